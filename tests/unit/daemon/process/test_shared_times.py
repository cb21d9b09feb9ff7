"""Times that several processes put off."""

import os
import signal
from collections.abc import Iterator

import pytest

from daemon.process.shared_counts import SharedCounts, create
from daemon.process.shared_times import LATEST


@pytest.fixture
def descriptor() -> Iterator[int]:
    """Memory for two processes."""
    made = create(2)
    yield made
    os.close(made)


def in_child(descriptor: int, name: str) -> int:
    """A process that locks that name's times, puts one off by 5, and stops itself before it lets go."""
    child = os.fork()
    if child == 0:
        times = SharedCounts(descriptor, 1).times()
        if times.lock([name]):
            times.put_off(name, 0, times.of(name, 0) + 5)
            os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(1)
    assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])
    return child


def test_times_are_one_for_all_processes_and_only_move_forward(descriptor: int) -> None:
    """Each name and kind has its own; emptying a process's counts leaves them."""
    first, second = (SharedCounts(descriptor, row).times() for row in (0, 1))
    first.put_off("me", 0, 7)
    second.put_off("me", 0, 5)
    second.put_off("me", 1, 9)
    second.put_off("far", 0, LATEST + 1)
    SharedCounts(descriptor).clear(0)
    assert [first.of("me", 0), first.of("me", 1), first.of("you", 0), first.of("far", 0)] == [7, 9, 0, LATEST]


def test_names_are_never_too_early_and_seldom_too_late(descriptor: int) -> None:
    """However many there are: only who shares both places with a later one is late."""
    times = SharedCounts(descriptor).times()
    for number in range(4096):
        times.put_off(f"token:{number}", 1, number + 1)
    late = [times.of(f"token:{number}", 1) - (number + 1) for number in range(4096)]
    assert min(late) == 0
    assert late.count(0) > 3600


def test_stopped_process_locks_its_names_alone_and_death_frees_them(descriptor: int) -> None:
    """Nobody waits for it, what it wrote is whole, and other names can be had meanwhile."""
    child = in_child(descriptor, "me")
    times = SharedCounts(descriptor, 0).times()
    try:
        assert not times.lock(["you", "me"])
        # What was had of them before that is let go.
        assert times.lock(["you"])
        times.unlock()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert times.lock(["you", "me"])
    times.unlock()
    assert times.of("me", 0) == 5


def test_process_that_is_alone_locks_nobody_out() -> None:
    """There is nothing to lock."""
    times = SharedCounts().times()
    assert times.lock(["me"])
    assert times.lock(["me"])
    times.put_off("me", 0, 3)
    times.unlock()
    assert times.of("me", 0) == 3
