"""Waiting in tests: for a condition, with a limit, never for a length of time."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

#: Longer than anything takes on a machine that is slow, or busy with something else. Only a failure takes so long.
PATIENCE_S = 60.0
#: Between two looks: a tenth of what was waited already, between these limits, so that looking costs little.
_SHORTEST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.05


def eventually(condition: Callable[[], Value], timeout_s: float = PATIENCE_S, what: str = "the condition") -> Value:
    """Return the first true value of `condition`; fail when there is none within `timeout_s`."""
    began = time.monotonic()
    while not (value := condition()):
        waited_s = time.monotonic() - began
        assert waited_s < timeout_s, f"{what} did not come true within {timeout_s} s"
        time.sleep(min(max(waited_s / 10, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S))
    return value
