"""Leases in a state directory: the lock of a shard, for the processes of one kernel, under the token of their host.

The epoch is the token's: hosts, and the boots of one, follow each other in it. Workers of one boot share it, because
what the kernel has locked ends with its process. Each time before something becomes visible a worker looks whether its
lock, its state directory and its epoch are still its own, and at times whether what the state is on still takes what is
written. What all of them say may change the moment after; what was handed to Incus by then cannot be called back.
"""

import threading
import time
from typing import Final

from daemon import failpoints
from daemon.errors import CannotStart
from daemon.state.layout import Layout
from daemon.state.shard_lock import ShardLock, holder
from daemon.state.tenure import Host, Tenure

#: What was written through so long ago tells that the storage is there: no host takes it over in so short a time.
PROVEN_S: Final = 2.0


class FileLease:
    """See daemon.lease.Lease."""

    def __init__(self, tenure: Tenure, lock: ShardLock) -> None:
        """Both are taken."""
        self._tenure = tenure
        self._lock = lock
        self._proving = threading.Lock()
        #: On the monotonic clock, which goes on while a process is stopped.
        self._proven_at = float("-inf")

    @property
    def shard(self) -> int:
        """See daemon.lease.Lease."""
        return self._lock.shard

    @property
    def epoch(self) -> int:
        """See daemon.lease.Lease."""
        return self._tenure.epoch

    def check(self) -> None:
        """See daemon.lease.Lease."""
        if not failpoints.reach("fence.check"):
            return
        if not self._lock.is_held():
            raise CannotStart("state_lost", "The lock of the shard is another one's.")
        self._tenure.check()

    def check_storage(self) -> None:
        """See daemon.lease.Lease."""
        # First: who has lost the state writes nothing there.
        self.check()
        if failpoints.reach("fence.check") and time.monotonic() - self._proven_at > PROVEN_S:
            self._prove()
            self.check()

    def _prove(self) -> None:
        with self._proving:
            now = time.monotonic()
            if now - self._proven_at > PROVEN_S:
                self._lock.write_through()
                self._proven_at = now

    def renew(self) -> None:
        """See daemon.lease.Lease."""
        self.check()
        if failpoints.reach("fence.check"):
            self._tenure.refresh()

    def release(self) -> None:
        """See daemon.lease.Lease."""
        self._lock.release()


class FileLeases:
    """See daemon.lease.Leases."""

    def __init__(self, layout: Layout, host: Host, shards: int, *, take_over: bool = False) -> None:
        """Use the state from now on, durably. Raises CannotStart('state_in_use') and OSError."""
        self._layout = layout
        self._shards = shards
        self._tenure = Tenure(layout, host)
        self._tenure.take(take_over=take_over)

    def lease(self, shard: int) -> FileLease:
        """See daemon.lease.Leases."""
        lock = ShardLock(self._layout, shard)
        lock.acquire()
        try:
            # The shard may have been waited for, for long.
            self._tenure.check()
        except (CannotStart, OSError):
            lock.release()
            raise
        return FileLease(self._tenure, lock)

    def close(self) -> None:
        """See daemon.lease.Leases."""
        if all(holder(self._layout, shard) is None for shard in range(self._shards)):
            self._tenure.leave()
        else:
            self._tenure.close()
