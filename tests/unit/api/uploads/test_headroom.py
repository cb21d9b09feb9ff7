"""Whether the disk has room, asked once for many uploads."""

import os
from collections.abc import Iterator

import pytest

from api.uploads.headroom import ANSWER_S, Headroom
from daemon.partials import Census
from daemon.process.shared_counts import SharedCounts, create

NOTHING = Census()


class Disk:
    """A disk that says what is free on it, and a clock."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.asked = 0
        self.now = 0.0

    def free_bytes(self) -> int:
        """What is free."""
        self.asked += 1
        return self.free

    def clock(self) -> float:
        """The time."""
        return self.now

    def room(self, counts: SharedCounts) -> Headroom:
        """Its room as one process sees it."""
        return Headroom(counts, self.free_bytes, self.clock)


@pytest.fixture
def processes() -> Iterator[list[SharedCounts]]:
    """The counts of two processes of one service."""
    descriptor = create(2)
    yield [SharedCounts(descriptor, row) for row in range(2)]
    os.close(descriptor)


def test_disk_is_asked_once_for_the_uploads_of_a_moment() -> None:
    """As long as its answer is not old, and there is room for all that was let in since."""
    disk = Disk(1000)
    room = disk.room(SharedCounts())
    for _ in range(5):
        room.owe(100)
        assert room.suffices(100, NOTHING)
        room.settle(100)
    assert disk.asked == 1
    disk.now = ANSWER_S
    assert room.suffices(100, NOTHING)
    assert disk.asked == 2


def test_what_was_written_since_the_disk_was_asked_counts() -> None:
    """It is on its way no more, and the answer of before does not know of it."""
    disk = Disk(1000)
    room = disk.room(SharedCounts())
    assert room.suffices(0, NOTHING)
    for size in (400, 500):
        room.owe(size)
        assert room.suffices(0, NOTHING)
        disk.free -= size
        room.settle(size)
    room.owe(101)
    assert not room.suffices(0, NOTHING)
    assert disk.asked == 2


def test_nobody_is_refused_by_an_answer_of_before() -> None:
    """What was given free since is found when it is needed."""
    disk = Disk(100)
    room = disk.room(SharedCounts())
    assert room.suffices(100, NOTHING)
    disk.free = 200
    room.owe(100)
    assert room.suffices(100, NOTHING)


def test_what_another_process_has_written_since_counts(processes: list[SharedCounts]) -> None:
    """Also when that process is gone by then."""
    disk = Disk(1000)
    mine, others = (disk.room(counts) for counts in processes)
    assert mine.suffices(0, NOTHING)
    others.owe(600)
    others.settle(600)
    disk.free = 400
    processes[0].clear(1)
    mine.owe(401)
    assert not mine.suffices(0, NOTHING)


def test_disk_is_asked_anew_when_other_resumable_uploads_are_known() -> None:
    """What they lacked before may be written by now, and is not told of them any more."""
    disk = Disk(1000)
    room = disk.room(SharedCounts())
    assert room.suffices(0, Census(number=1, owed_bytes=600))
    disk.free = 400
    assert not room.suffices(401, Census(number=1, present_bytes=600))


def test_what_was_let_in_is_never_too_much_to_be_counted() -> None:
    """Whatever was announced: a count that is full would let nobody in any more."""
    disk = Disk(10**18)
    room = disk.room(SharedCounts())
    for _ in range(20):
        room.owe(10**18)
        assert room.suffices(0, NOTHING)
        room.settle(10**18)
    disk.free = 100
    disk.now = ANSWER_S
    room.owe(100)
    assert room.suffices(0, NOTHING)
    room.owe(1)
    assert not room.suffices(0, NOTHING)
