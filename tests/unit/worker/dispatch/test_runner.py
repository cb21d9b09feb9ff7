"""A runner and its session."""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from daemon.config import Config
from daemon.model.upload import Destination
from tests.support.depot import Depot
from worker.dispatch import runner
from worker.dispatch.lane import Lane
from worker.targets.base import Delivery, Receipt


class Counted:
    """A Target, and its session, that note what is done with them."""

    local = True
    broken = False
    left_part = False

    def __init__(self) -> None:
        self.said: list[str] = []

    def open(self, destination: Destination, stopped: str) -> "Counted":
        """Open the session."""
        self.said.append("open")
        return self

    def deliver(self, delivery: Delivery, source: BinaryIO, before_rename: Callable[[], None]) -> Receipt:
        """Deliver nothing."""
        self.said.append("deliver")
        return Receipt(atomic=True, way="directory")

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


@pytest.mark.parametrize(("hold_s", "said"), [
    (60.0, ["open", "deliver", "deliver", "close"]),
    (0.0, ["open", "deliver", "close", "open", "deliver", "close"]),
])
def test_session_is_let_go_of_now_and_then_while_work_keeps_coming(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hold_s: float, said: list[str]) -> None:
    """An open session blocks other operations on its instance, whether it is idle or not."""
    monkeypatch.setattr(runner, "HOLD_S", hold_s)
    monkeypatch.setattr(runner, "LINGER_S", 0.0)
    counted = Counted()
    with Depot(tmp_path) as depot:
        lane = Lane(depot.accept("/1").destination, most_bulk=1)
        depot.accept("/2")
        lane.add(depot.claim())
        runner.run(lane, lambda _: counted, depot.spool, Config, lambda _: None)
    assert counted.said == said
