"""What lifecycle events mean to the main loop."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from worker.dispatch.lifecycle_feed import InstanceChanged, feed
from worker.targets.base import Target


class Telling:
    """A target that tells of one event of the instance c1."""

    def __init__(self, action: str) -> None:
        self._action = action

    def follow(self, on_event: Callable[[str, str, str], None], on_up: Callable[[], None],
               on_down: Callable[[str], None]) -> None:
        """Tell it at once."""
        on_event("default", "c1", self._action)


@pytest.mark.parametrize(("action", "reported"), [
    ("instance-started", [InstanceChanged("local/default/c1", started=True)]),
    ("instance-ready", [InstanceChanged("local/default/c1")]),
    ("instance-resumed", [InstanceChanged("local/default/c1", resumed=True)]),
    ("instance-deleted", []),
])
def test_instance_that_can_be_written_to_again_is_reported(action: str, reported: list[InstanceChanged]) -> None:
    """One that was only paused says so, as a snapshot does that, too; and one that started, perhaps after a crash."""
    told: list[Any] = []
    feed("local", cast(Target, Telling(action)), told.append)
    assert told == reported
