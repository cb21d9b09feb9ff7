"""A runner and its session."""

import math
from collections.abc import Callable
from typing import BinaryIO

import pytest

from daemon.config import Config
from daemon.errors import Undelivered
from daemon.model.upload import Destination
from daemon.task_queue import BULK_BYTES
from tests.support.depot import Depot, an_upload
from worker.dispatch import runner
from worker.dispatch.lane import Lane
from worker.dispatch.runner import Pushed, PushOutcome, Swept
from worker.targets.base import Delivery, Patience, Receipt


class Counted:
    """A Target, and its session, that note what is done with them."""

    broken = False
    left_part = False

    def __init__(self) -> None:
        self.said: list[str] = []
        #: What it raises when it is to vouch for what was delivered.
        self.doubt: Exception | None = None
        #: What happens during a delivery.
        self.meanwhile: Callable[[], None] = lambda: None

    def open(self, destination: Destination, stopped: str, patience: Patience | None = None) -> "Counted":
        """Open the session."""
        self.said.append("open")
        return self

    def deliver(self, delivery: Delivery, source: BinaryIO, before_rename: Callable[[], None]) -> Receipt:
        """Deliver nothing, while more tasks come."""
        self.said.append("deliver")
        self.meanwhile()
        return Receipt(atomic=True, way="directory")

    def confirm(self) -> None:
        """Vouch for what was delivered, or not."""
        self.said.append("confirm")
        if self.doubt is not None:
            raise self.doubt

    def sweep(self, delivery: Delivery) -> bool:
        """Find nothing."""
        return False

    def probe(self) -> None:
        """Be there."""

    def find_project(self, project: str) -> None:
        """Have every project."""

    def follow(self, *_: object) -> None:
        """Have no events."""

    def close(self) -> None:
        """Close the session."""
        self.said.append("close")


class Work:
    """A lane with tasks, and what a runner reported of them."""

    def __init__(self, depot: Depot, tasks: int) -> None:
        self.depot = depot
        uploads = [depot.accept(f"/{number}") for number in range(tasks)]
        self.lane = Lane(uploads[0].destination, most_bulk=1)
        self.lane.add(depot.claim())
        self.counted = Counted()
        self.reported: list[PushOutcome | Swept] = []
        #: How often the session had been asked to vouch when it was told that a task was pushed, and how that ended.
        self.pushed_after: list[int] = []
        self.told_after: list[int] = []

    def run(self, patience: Patience | None = None) -> None:
        """Push them all."""
        runner.run(self.lane, lambda _: self.counted, self.depot.spool, Config, self._hear, patience or Patience())

    def _hear(self, message: PushOutcome | Pushed | Swept) -> None:
        asked = self.counted.said.count("confirm")
        if isinstance(message, Pushed):
            self.pushed_after.append(asked)
        else:
            self.told_after.append(asked)
            self.reported.append(message)

    @property
    def codes(self) -> list[str | None]:
        """The codes of what was reported."""
        return [ended.code for ended in self.reported]


@pytest.mark.parametrize(("hold_s", "said"), [
    (60.0, ["open", "deliver", "deliver", "confirm", "close"]),
    (0.0, ["open", "deliver", "confirm", "close", "open", "deliver", "confirm", "close"]),
])
def test_session_is_let_go_of_now_and_then_while_work_keeps_coming(
        depot: Depot, monkeypatch: pytest.MonkeyPatch, hold_s: float, said: list[str]) -> None:
    """An open session blocks other operations on its instance, whether it is idle or not."""
    monkeypatch.setattr(runner, "HOLD_S", hold_s)
    monkeypatch.setattr(runner, "LINGER_S", 0.0)
    work = Work(depot, 2)
    work.run()
    assert work.counted.said == said
    assert work.codes == [None, None]


def test_delivery_is_told_only_when_its_session_has_vouched_for_it(depot: Depot) -> None:
    """One question serves all that were delivered before it; that there is room for more is told at once."""
    work = Work(depot, 3)
    work.run()
    assert work.pushed_after == [0, 0, 0]
    assert work.told_after == [1, 1, 1]


def test_push_that_was_hurried_stays_so_when_there_is_time_again_before_that_is_told(depot: Depot) -> None:
    """The crowd may be gone by then, as those in it give up together: no attempt counts all the same."""
    work, patience = Work(depot, 1), Patience(0.5)

    def give_up() -> None:
        patience.hurried, patience.limit_s = True, math.inf
        raise Undelivered("stalled", "no answer")

    work.counted.meanwhile = give_up
    work.run(patience)
    [ended] = work.reported
    assert isinstance(ended, PushOutcome)
    assert (ended.code, ended.hurried) == ("stalled", True)


def test_delivery_is_told_before_a_bulky_push_begins(depot: Depot) -> None:
    """That may take long: whoever waits for a small file need not wait for it, too."""
    work = Work(depot, 1)
    bulky = an_upload("/bulky", b"x" * BULK_BYTES)
    depot.put(bulky, b"x" * BULK_BYTES)
    work.counted.meanwhile = lambda: work.lane.add(depot.queue.claim(work.lane.key, 1, bulk=True))
    work.run()
    assert work.counted.said == ["open", "deliver", "confirm", "deliver", "confirm", "close"]


def test_delivery_that_is_not_vouched_for_ends_as_what_came_in_between(depot: Depot) -> None:
    """None of those before the question counts."""
    work = Work(depot, 2)
    work.counted.doubt = Undelivered("instance_changed", "another one")
    work.run()
    assert work.codes == ["instance_changed", "instance_changed"]
    assert [ended.detail for ended in work.reported] == ["another one", "another one"]


def test_delivery_is_abandoned_when_asking_for_it_is_a_mistake(depot: Depot) -> None:
    """The main loop hears of each task, whatever ends the runner."""
    work = Work(depot, 2)
    work.counted.doubt = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        work.run()
    assert len(work.lane.abandoned()) == 2
    assert work.counted.said[-1] == "close"


def test_bulky_task_is_abandoned_too_when_asking_for_what_was_delivered_before_is_a_mistake(depot: Depot) -> None:
    """It was taken, and not begun: it must not count as being pushed for ever."""
    work = Work(depot, 1)
    bulky = an_upload("/bulky", b"x" * BULK_BYTES)
    depot.put(bulky, b"x" * BULK_BYTES)
    work.counted.meanwhile = lambda: work.lane.add(depot.queue.claim(work.lane.key, 1, bulk=True))
    work.counted.doubt = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        work.run()
    assert len(work.lane.abandoned()) == 2
    assert work.lane.busy() == 0


def test_session_that_broke_is_asked_before_it_is_closed(depot: Depot) -> None:
    """What it delivered before counts all the same, if the instance is still the one."""
    work = Work(depot, 1)
    work.counted.broken = True
    work.run()
    assert work.counted.said == ["open", "deliver", "confirm", "close"]
    assert work.codes == [None]
