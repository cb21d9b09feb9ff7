"""The pulse of a shard: a few bytes that change whenever something happens in its queue, for those who follow it.

It says only «look». A beat may be lost or come twice: whoever follows also looks by itself, if more seldom. Nothing is
mapped: the file can be cut short by either user of the state.
"""

import os
import struct
import threading
import time
from contextlib import suppress
from typing import Final

from daemon.state.layout import Layout

_BEAT: Final = struct.Struct("<Q")


class Pulse:
    """One shard's pulse. From any thread; never blocks, never raises."""

    def __init__(self, layout: Layout, shard: int) -> None:
        self._layout = layout
        self._path = layout.pulse(shard)
        self._lock = threading.Lock()
        self._descriptor = -1

    def beat(self) -> None:
        """Tell everybody that something happened."""
        with suppress(OSError):
            os.pwrite(self._opened(), _BEAT.pack(time.monotonic_ns()), 0)

    def last(self) -> int:
        """What changes with each beat; 0 where nobody has made the file yet."""
        try:
            found = os.pread(self._opened(), _BEAT.size, 0)
        except OSError:
            return 0
        return int(_BEAT.unpack(found)[0]) if len(found) == _BEAT.size else 0

    def _opened(self) -> int:
        with self._lock:
            if self._descriptor < 0:
                self._descriptor = self._layout.open_made(self._path)
            return self._descriptor

    def close(self) -> None:
        """Let go of the file. May be called again."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
