"""The main loop's inbox: what other threads have to tell it, and the descriptor that wakes it."""

import contextlib
import os
from collections import deque
from typing import Any


class Inbox:
    """Messages from any thread to the main loop, in order."""

    def __init__(self) -> None:
        self._messages: deque[Any] = deque()
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def put(self, *messages: Any) -> None:
        """Leave messages and wake the main loop."""
        self._messages.extend(messages)
        os.eventfd_write(self._descriptor, 1)

    def fileno(self) -> int:
        """Readable while there may be messages."""
        return self._descriptor

    def drain(self, most: int) -> list[Any]:
        """Take up to `most` messages."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)
        taken: list[Any] = []
        while self._messages and len(taken) < most:
            taken.append(self._messages.popleft())
        if self._messages:
            os.eventfd_write(self._descriptor, 1)
        return taken

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self._descriptor)
