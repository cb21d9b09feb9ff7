"""Who serves a shard: one holder at a time, and who is it no more finds out.

Whatever keeps the leases, the values are plain. Where nothing else is said, a method may be called from any thread, may
block on the disk, and raises OSError when it cannot be told.
"""

from typing import Protocol


class Lease(Protocol):
    """The right to serve one shard, until it is released, its process ends, or another holder takes it over.

    Nobody tells a process that it stood still for so long that another one was given its shard: it has to ask. What was
    said may change the moment after.
    """

    @property
    def shard(self) -> int:
        """The number of the shard."""

    @property
    def epoch(self) -> int:
        """Never lower than that of a holder before; higher than that of one that may not know yet that it is none."""

    def check(self) -> None:
        """Raise CannotStart('state_lost') unless the shard is still this holder's. Some microseconds."""

    def check_storage(self) -> None:
        """As `check`; and raise OSError unless what was written within the last two seconds was kept."""

    def renew(self) -> None:
        """Say that the holder is there: to be called each second or so. Raises as `check`."""

    def release(self) -> None:
        """Let the next one in. May be called again, and takes nothing from a holder after this one."""


class Leases(Protocol):
    """The leases that one process of a host takes."""

    def lease(self, shard: int) -> Lease:
        """Take the lease of a shard, from the epoch that this process began in.

        Raises CannotStart: 'shard_taken', saying who has it, and 'state_lost' when another host has all of them by now.
        """

    def close(self) -> None:
        """Take no more. Where no process of this host has a lease, another host may begin at once. Never fails."""
