"""Leases in memory, and nothing clever: what another keeper behind the door has to do."""

from dataclasses import dataclass, field

from daemon.errors import CannotStart
from daemon.lease import Lease, Leases


@dataclass
class Book:
    """Who has which shard, for all hosts."""

    epoch: int = 0
    holders: dict[int, "MemoryLease"] = field(default_factory=dict)

    def begin(self) -> int:
        """Take everything from whoever has it; return the new epoch."""
        self.holders.clear()
        self.epoch += 1
        return self.epoch


class MemoryLease(Lease):
    """A line in the book."""

    def __init__(self, book: Book, shard: int, epoch: int) -> None:
        """It is not in the book yet."""
        self._book = book
        self._shard = shard
        self._epoch = epoch

    @property
    def shard(self) -> int:
        """See daemon.lease.Lease."""
        return self._shard

    @property
    def epoch(self) -> int:
        """See daemon.lease.Lease."""
        return self._epoch

    def check(self) -> None:
        """See daemon.lease.Lease."""
        if self._book.holders.get(self._shard) is not self:
            raise CannotStart("state_lost", f"Shard {self._shard} is another one's.")

    def check_storage(self) -> None:
        """See daemon.lease.Lease."""
        self.check()

    def renew(self) -> None:
        """See daemon.lease.Lease."""
        self.check()

    def release(self) -> None:
        """See daemon.lease.Lease."""
        if self._book.holders.get(self._shard) is self:
            del self._book.holders[self._shard]


class MemoryLeases(Leases):
    """The leases of a process of the host that began last."""

    def __init__(self, book: Book) -> None:
        """In the epoch of now."""
        self._book = book
        self._epoch = book.epoch

    def lease(self, shard: int) -> MemoryLease:
        """See daemon.lease.Leases."""
        if self._epoch != self._book.epoch:
            raise CannotStart("state_lost", "Another host has them.")
        if shard in self._book.holders:
            raise CannotStart("shard_taken", f"Shard {shard} is served.")
        made = self._book.holders[shard] = MemoryLease(self._book, shard, self._epoch)
        return made

    def close(self) -> None:
        """See daemon.lease.Leases."""
