"""Whether a worker may still do something: it may have stood still, for as long as it takes another host to take over.

Nobody tells a process that it was stopped. So each time before something becomes visible it looks whether its lock, its
state directory and its epoch are still its own, and at times whether what the state is on still takes what is written.
What all of them say may change the moment after; what was handed to Incus by then cannot be called back.
"""

import threading
import time
from typing import Final

from daemon import failpoints
from daemon.errors import CannotStart
from daemon.state.shard_lock import ShardLock
from daemon.state.tenure import Tenure

#: What was written through so long ago tells that the storage is there: no host takes it over in so short a time.
PROVEN_S: Final = 2.0


class Fence:
    """What a worker asks before it does something. From any thread."""

    def __init__(self, tenure: Tenure, lock: ShardLock) -> None:
        self._tenure = tenure
        self._lock = lock
        self._proving = threading.Lock()
        #: On the monotonic clock, which goes on while a process is stopped.
        self._proven_at = float("-inf")

    def check(self) -> None:
        """Raise CannotStart('state_lost') unless the shard is this worker's. Some microseconds. Raises OSError."""
        if not failpoints.reach("fence.check"):
            return
        if not self._lock.is_held():
            raise CannotStart("state_lost", "The lock of the shard is another one's.")
        self._tenure.check()

    def check_storage(self) -> None:
        """As `check`; and raise OSError unless the storage took what was written to it within the last two seconds."""
        if failpoints.reach("fence.check") and time.monotonic() - self._proven_at > PROVEN_S:
            self._prove()
        self.check()

    def _prove(self) -> None:
        with self._proving:
            now = time.monotonic()
            if now - self._proven_at > PROVEN_S:
                self._lock.write_through()
                self._proven_at = now

    def tend(self) -> None:
        """Say at times that this host is there. Raises CannotStart('state_lost') and OSError as `check`."""
        self.check()
        if failpoints.reach("fence.check"):
            self._tenure.refresh()
