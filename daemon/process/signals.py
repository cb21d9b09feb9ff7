"""Signals as something to wait on: handlers only take a note, the main loop reads it."""

import contextlib
import os
import signal
from types import FrameType


class Signals:
    """SIGTERM, SIGINT and SIGHUP of this process. Made in the main thread."""

    def __init__(self) -> None:
        self._taken: list[int] = []
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._taken.append(number)

    def fileno(self) -> int:
        """Readable when a signal came."""
        return self._read_end

    def taken(self) -> list[int]:
        """The signals that came since the last call."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._read_end, 4096)
        taken, self._taken = self._taken, []
        return taken
