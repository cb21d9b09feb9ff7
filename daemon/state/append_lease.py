"""The lease of those who put rows into the queue: while it is held, neither the shards' number nor their form changes.

Whoever appends (an API process, a command of the command line) holds it shared; whoever upgrades the
queue, or moves it to another number of shards, holds it alone. It ends with its process.
"""

import fcntl
import os

from daemon.state import shard_count
from daemon.state.layout import Layout
from daemon.state.room import where_there_is_room


class AppendLease:
    """The shared lease of one process that appends under `shards` shards. Keep it for as long as it may append."""

    def __init__(self, layout: Layout, shards: int) -> None:
        self._layout = layout
        self._shards = shards
        self._descriptor = -1

    def acquire(self) -> str | None:
        """Take the lease: None when it is held now, else what must happen first, as a sentence. Never blocks.

        The caller logs the sentence and tries again in about a second. Raises CannotStart when the recorded number
        of shards cannot be read.
        """
        self.release()
        descriptor = self._layout.open_made(self._layout.append_lock)
        try:
            waiting = self._wait_for(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if waiting is not None:
            os.close(descriptor)
            return waiting
        self._descriptor = descriptor
        _date(descriptor)
        return None

    def _wait_for(self, descriptor: int) -> str | None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return ("The queue is being brought up to date, or is being moved to another number of shards; this process"
                    f" has {self._shards} configured.")
        try:
            found = shard_count.establish(self._layout, self._shards)
        except PermissionError:
            return "The queue has not been made yet: a worker does that when it first runs."
        if found.serves(self._shards):
            return None
        return (f"The queue has {found.in_force} shards and this process has {self._shards} configured; a worker moves"
                " it when every process that uses the old number has ended.")

    def release(self) -> None:
        """Let go of the lease. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _date(descriptor: int) -> None:
    """Say that whoever appended before may have died in the middle of it: workers see the date and look soon.

    Without it they look a little later. Raises OSError.
    """
    with where_there_is_room():
        os.utime(descriptor)


def last_acquired_at(layout: Layout) -> float:
    """When the lease was last taken, in seconds since the epoch; 0 when it never was."""
    try:
        return os.stat(layout.append_lock).st_mtime
    except FileNotFoundError:
        return 0.0


def acquire_alone(layout: Layout) -> int | None:
    """For whoever upgrades or moves the queue: a descriptor that keeps appenders out; None while there are any."""
    descriptor = layout.open_made(layout.append_lock)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
