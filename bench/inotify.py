"""When a file appears in a directory, to the microsecond and without polling: inotify(7) through ctypes."""

import contextlib
import ctypes
import os
import select
import struct
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

IN_CLOSE_WRITE: Final = 0x8
IN_MOVED_TO: Final = 0x80
_IN_Q_OVERFLOW: Final = 0x4000
_EVENT: Final = struct.Struct("iIII")
#: What a delivery is called before it has its name.
_PART: Final = b".courier-"


class Watch:
    """Waits for files in directories: for a rename into one, or for the end of writing in one."""

    def __init__(self, mask: int, *directories: Path) -> None:
        """`mask` is IN_MOVED_TO for a file that is renamed into place, IN_CLOSE_WRITE for one that is written there."""
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for directory in directories:
            if libc.inotify_add_watch(self._descriptor, os.fsencode(directory), mask) < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(directory))
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def wait(self, count: int, timeout_s: float) -> float:
        """Wait for `count` files; return the time of the last one, as perf_counter has it. Raises TimeoutError."""
        deadline = time.perf_counter() + timeout_s
        seen = 0
        while True:
            left_s = deadline - time.perf_counter()
            if left_s <= 0 or not self._poll.poll(left_s * 1000):
                raise TimeoutError(f"{seen} of {count} files after {timeout_s} s")
            at = time.perf_counter()
            seen += self._read()
            if seen >= count:
                return at

    def take(self) -> int:
        """How many files came since the last look; does not wait."""
        with contextlib.suppress(BlockingIOError):
            return self._read()
        return 0

    def _read(self) -> int:
        data = os.read(self._descriptor, 1 << 18)
        seen = offset = 0
        while offset < len(data):
            _, mask, _, length = _EVENT.unpack_from(data, offset)
            if mask & _IN_Q_OVERFLOW:
                raise OSError("inotify: more events than its queue holds")
            offset += _EVENT.size
            seen += not data[offset:offset + length].startswith(_PART)
            offset += length
        return seen

    def close(self) -> None:
        """Stop watching."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
