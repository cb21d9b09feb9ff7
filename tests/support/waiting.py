"""Waiting in tests: for a condition, with a limit, never for a length of time."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

#: Between two looks.
_LOOK_EVERY_S = 0.01


def eventually(condition: Callable[[], Value], timeout_s: float = 10.0, what: str = "the condition") -> Value:
    """Return the first true value of `condition`; fail when there is none within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout_s} s"
        time.sleep(_LOOK_EVERY_S)
    return value
