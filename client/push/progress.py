"""How far each file has come, as the threads that send tell it."""

import threading
from enum import Enum


class Stage(Enum):
    """What goes on with a file."""

    WAITING = "waiting"
    #: It is read once, so that the service can compare.
    READING = "reading"
    SENDING = "sending"
    #: It is accepted; the service delivers it.
    DELIVERING = "delivering"


class FileProgress:
    """How far one file has come. Told by one thread, read by others."""

    def __init__(self, name: str, size: int | None) -> None:
        """`name` may be anything; `size` in bytes, None when it is not known."""
        self.name = name
        self.size = size
        self.stage = Stage.WAITING
        self.done_bytes = 0
        self._lock = threading.Lock()

    def begin(self, stage: Stage, size: int | None = None) -> None:
        """Another stage begins, unless it is the one that it is in."""
        with self._lock:
            if size is not None:
                self.size = size
            if stage is not self.stage:
                self.stage, self.done_bytes = stage, 0

    def at(self, offset: int) -> None:
        """So many bytes are done in this stage."""
        self.done_bytes = offset

    def add(self, size: int) -> None:
        """So many more bytes are done."""
        self.done_bytes += size
