import math
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from daemon.config import Config, load
from daemon.model.upload import Destination
from tests.support.waiting import eventually
from worker.dispatch.crew import Crew, RunnerEnded
from worker.dispatch.lane import Lane
from worker.targets.base import Patience


class Watch:
    """A crew whose runners do nothing until the test is over, and stand still if it says so."""

    def __init__(self) -> None:
        config = load(None)
        self.answered: set[str] = set()
        self.patiences: dict[str, Patience] = {}
        self.ended: list[RunnerEnded] = []
        self._over = threading.Event()
        self.crew = Crew(config, self.answered.__contains__, self._run, self.ended.append)

    def _run(self, lane: Lane, _config: Callable[[], Config], patience: Patience) -> None:
        self.patiences[lane.key] = patience
        self._over.wait(60.0)

    def start(self, number: int, *, answered: bool, still: bool, failures: int = 0) -> list[Patience]:
        """Start runners, each for a lane of its own."""
        keys = []
        for _ in range(number):
            lane = Lane(Destination("local", "default", f"c{len(self.crew)}", "/"), most_bulk=1, failures=failures)
            keys.append(lane.key)
            self.answered |= {lane.key} if answered else set()
            self.crew.start(lane)
        eventually(lambda: all(key in self.patiences for key in keys))
        for key in keys:
            self.patiences[key].still_since = time.monotonic() - 3600 if still else None
        return [self.patiences[key] for key in keys]

    def end(self) -> None:
        """Let all runners end."""
        self._over.set()
        eventually(lambda: len(self.ended) == len(self.crew))
        self.crew.close()


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Sixteen pushes at once, as by default."""
    made = Watch()
    yield made
    made.end()


def test_pushes_that_move_have_so_many_places_as_configured(watch: Watch) -> None:
    """`delivery.per_worker`."""
    assert watch.crew.room().pushes == 16
    watch.start(10, answered=True, still=False)
    assert watch.crew.room().pushes == 6


def test_push_that_stands_still_gives_its_place_to_another(watch: Watch) -> None:
    """Where a whole host hangs in the middle of its pushes, those to other hosts go on."""
    watch.start(16, answered=True, still=True)
    assert watch.crew.room().pushes == 16


def test_tries_take_no_place_of_pushes(watch: Watch) -> None:
    """Neither those that move nor those that stand still."""
    watch.start(8, answered=False, still=False)
    watch.start(100, answered=False, still=True)
    assert watch.crew.room().pushes == 16


def test_few_tries_move_at_once_and_many_stand_still(watch: Watch) -> None:
    """Each that moves takes the interpreter from the pushes; one that waits for an answer takes nothing."""
    assert watch.crew.room().tries == 8
    watch.start(150, answered=False, still=True)
    watch.start(5, answered=False, still=False)
    room = watch.crew.room()
    assert (room.tries, room.may_grow) == (3, True)


def test_tries_leave_threads_for_pushes_whatever_hangs(watch: Watch) -> None:
    """With all tries that there may be, sixteen pushes begin, and sixteen more when these stand still."""
    watch.start(180, answered=False, still=True)
    room = watch.crew.room()
    assert (room.tries, room.may_grow, room.pushes) == (0, False, 16)
    watch.start(16, answered=True, still=True)
    assert watch.crew.room().pushes == 16


def test_instances_that_failed_leave_threads_for_those_that_were_not_tried_yet(watch: Watch) -> None:
    """What is known to hang takes less than half of the threads for tries."""
    watch.start(80, answered=False, still=True, failures=1)
    room = watch.crew.room()
    assert (room.again, room.tries) == (0, 8)


def test_few_that_stand_still_have_all_the_time_that_their_remote_gives_them(watch: Watch) -> None:
    """A single slow instance is never hurried."""
    patiences = watch.start(100, answered=False, still=True)
    watch.crew.have_patience()
    assert not any(patience.limit_s < math.inf for patience in patiences)


@pytest.mark.parametrize(("answered", "failures", "limit_s"), [
    (False, 0, 0.5), (False, 1, 1.0), (False, 3, 4.0), (True, 0, 2.0)])
def test_patience_is_short_in_a_crowd_and_longer_after_each_failure(
    watch: Watch, answered: bool, failures: int, limit_s: float,
) -> None:
    """A thread is wanted by others then; who is only slow comes through at a later try."""
    watch.start(120, answered=False, still=True)
    [before] = watch.start(1, answered=answered, still=True, failures=failures)
    watch.crew.have_patience()
    [after] = watch.start(1, answered=answered, still=True, failures=failures)
    assert (before.limit_s, after.limit_s) == (limit_s, limit_s)


def test_patience_grows_up_to_that_of_the_remote(watch: Watch) -> None:
    """After many failures an instance has its thirty seconds again, which count as an attempt."""
    watch.start(120, answered=False, still=True)
    watch.crew.have_patience()
    [patience] = watch.start(1, answered=False, still=True, failures=6)
    assert patience.limit_s == math.inf


def test_patience_is_long_again_when_the_crowd_is_gone(watch: Watch) -> None:
    """What was hurried and still runs is not any more."""
    patiences = watch.start(120, answered=False, still=True)
    watch.crew.have_patience()
    assert all(patience.limit_s < math.inf for patience in patiences)
    for patience in patiences:
        patience.still_since = None
    watch.crew.have_patience()
    assert not any(patience.limit_s < math.inf for patience in patiences)
