"""The lock by which one worker serves a shard.

The lock of an open file (`daemon.state.file_lock`): it ends with its process, whatever ends it, and needs no clock and
no heartbeat. The locked file is never replaced. Asking who holds it does not take it.
"""

import os

from daemon.errors import CannotStart
from daemon.state.file_lock import is_locked, try_lock
from daemon.state.layout import Layout
from daemon.state.room import where_there_is_room


class ShardLock:
    """The lock of one shard, held from `acquire` until `release` or the end of the process."""

    def __init__(self, layout: Layout, shard: int) -> None:
        self._layout = layout
        self._shard = shard
        self._descriptor = -1

    @property
    def shard(self) -> int:
        """The number of the shard."""
        return self._shard

    def acquire(self) -> None:
        """Take the lock. Raises CannotStart('shard_taken') saying which process holds it."""
        descriptor = self._layout.open_made(self._layout.lock(self._shard))
        if not try_lock(descriptor):
            holder = pid_in(descriptor)
            os.close(descriptor)
            raise CannotStart("shard_taken", f"Shard {self._shard} is served by process {holder or '(unknown)'}.")
        self._descriptor = descriptor
        # On a full disk nobody learns who it is; the worker has to begin all the same, and makes room.
        with where_there_is_room():
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def is_held(self) -> bool:
        """True while the lock is this one's. Takes some microseconds."""
        return self._descriptor >= 0 and try_lock(self._descriptor)

    def write_through(self) -> None:
        """Write to what the state is on, and return when it is there. Raises OSError where that is gone."""
        # When it has no room it is there: who delivers makes some.
        with where_there_is_room():
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
            os.fdatasync(self._descriptor)

    def release(self) -> None:
        """Let go of the lock. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def holder(layout: Layout, shard: int) -> int | None:
    """The process that serves the shard: its id, 0 when that cannot be read, None when nobody does."""
    try:
        descriptor = layout.open(layout.lock(shard), os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return pid_in(descriptor) if is_locked(descriptor) else None
    finally:
        os.close(descriptor)


def pid_in(descriptor: int) -> int:
    """The process id that is written in a lock's file; 0 when there is none."""
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else 0
