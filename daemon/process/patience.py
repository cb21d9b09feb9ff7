"""Waiting before a process can begin: said once in the log, and again and again to the service manager."""

import time
from collections.abc import Callable
from typing import Final

from daemon.process import sd_notify

#: Between two tries.
RETRY_S: Final = 0.5
#: For how long the service manager is asked to wait, again and again.
_PATIENCE_S: Final = 60.0


class StartWait:
    """One process's wait at its start."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """`say` logs what is waited for, whenever that is something else."""
        self._say = say
        self._said: str | None = None

    def wait(self, reason: str) -> None:
        """Wait for a moment, because of `reason`: a sentence."""
        go_on()
        if reason != self._said:
            self._say(reason)
            sd_notify.status(reason)
            self._said = reason
        time.sleep(RETRY_S)


def go_on() -> None:
    """Tell the service manager that the start goes on, and ask it to wait."""
    sd_notify.still_starting(_PATIENCE_S)
