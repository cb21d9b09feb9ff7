"""A session that stays true to one very instance: it hides nothing in it, and vouches for what it delivered.

What is written into the root directory of an instance that does not run is hidden as soon as something is mounted over
it. A name may belong to another instance by the time that a delivery counts. And an instance that does not run may be
moved, to another pool or member of a cluster, so that what is written after its files were copied is lost. So the
instance is looked at once the session is open, and again before anything counts as delivered. The session itself holds
what lies between: before Incus starts, stops or deletes an instance, it ends the sessions to it or waits for their end.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, Protocol

from daemon.errors import Undelivered
from daemon.spool import Source
from worker.targets.attributes import where
from worker.targets.base import Carrier, Delivery, Ended, Parcel, Receipt
from worker.targets.incus.instance import Instance
from worker.targets.incus.kernel import Kernels

#: A link that a container has as long as it runs: Incus mounts /proc in all of them.
_WHILE_RUNNING: Final = "/proc/mounts"


class SeeingCarrier(Carrier, Protocol):
    """What carries the files: SFTP or the files API."""

    def link_at(self, path: str) -> str | None:
        """Where the symbolic link at `path` points; None where there is none. Raises Undelivered."""

    def read_file(self, path: str) -> bytes | None:
        """What is in the small file at `path`; None where it cannot be read. Raises Undelivered."""


class BoundSession:
    """A Session to one instance; see worker.targets.base for what it promises."""

    def __init__(self, inner: SeeingCarrier, look: Callable[[], Instance], kernels: Kernels) -> None:
        """Deliver by `inner`, which is open; `look` tells how the instance of that name is. Raises what that raises."""
        self._inner = inner
        self._look = look
        self._instance: Final = look()
        self._seen: Final = replace(self._instance, running=self._instance.running and self._sees_mounts())
        self._elsewhere: Final = not kernels.is_ours(self._seen, inner.read_file)
        #: True when the last delivery may have left its part file.
        self.left_part = False

    @property
    def runs(self) -> bool:
        """True when it is a session into the running instance, which ends with that."""
        return self._seen.running

    @property
    def place(self) -> tuple[str, str]:
        """The member of a cluster and the pool that the instance was on when it was looked at."""
        return self._instance.place

    @property
    def broken(self) -> bool:
        """True when the connection can no longer be used."""
        return self._inner.broken

    def close(self) -> None:
        """End the connection. Never raises."""
        self._inner.close()

    def deliver(self, delivery: Delivery, source: Source, before_rename: Callable[[], None]) -> Receipt:
        """Put the bytes of `source` at the destination, unless they would be hidden there."""
        self.left_part = False
        self._refuse_hidden(delivery)
        try:
            return self._placed(self._inner.deliver(delivery, source, before_rename))
        finally:
            self.left_part = self._inner.left_part

    def deliver_all(self, parcels: Sequence[Parcel]) -> Iterator[Ended]:
        """Deliver those that would not be hidden; see worker.targets.base.Carrier."""
        seen = []
        for parcel in parcels:
            if parcel.delivery.delivered_to not in {None, self._instance.identity}:
                # The instance that it was delivered to took it along: it is not for the one that came after.
                yield Ended(parcel=parcel)
                continue
            try:
                self._refuse_hidden(parcel.delivery)
            except Undelivered as error:
                yield Ended(parcel=parcel, error=error)
                if self.broken:
                    return
            else:
                seen.append(parcel)
        for ended in self._inner.deliver_all(seen):
            yield replace(ended, receipt=self._placed(ended.receipt)) if ended.receipt else ended

    def _placed(self, receipt: Receipt) -> Receipt:
        if not self._elsewhere:
            return receipt
        # The oldest servers give an instance its identity when it first starts.
        return replace(receipt, elsewhere=True, identity=self._instance.identity if self.runs else None)

    def sweep(self, delivery: Delivery) -> bool:
        """Remove the part file of a killed attempt, unless what it may be in is not mounted."""
        self._refuse_hidden(delivery)
        return self._inner.sweep(delivery)

    def confirm(self) -> None:
        """Return when all that was delivered counts; see worker.targets.base.Session."""
        now = self._look()
        if now.identity != self._instance.identity:
            raise Undelivered("instance_changed", "another instance of that name is there now")
        if now.place != self._instance.place:
            raise Undelivered("instance_changed", "the instance was moved")
        if now.running != self._instance.running:
            raise Undelivered("instance_changed", f"the instance is {now.status.lower()} now")

    def _sees_mounts(self) -> bool:
        # Incus may have opened it to the root directory alone, as of a stopped one, just before the instance started.
        return not self._instance.is_container or self._inner.link_at(_WHILE_RUNNING) is not None

    def _refuse_hidden(self, delivery: Delivery) -> None:
        mount = self._seen.hides(
            delivery.destination.path, self._inner.link_at, follow_last=delivery.symlinks == "follow")
        if mount is not None:
            raise Undelivered("hidden_when_stopped", f"{where(delivery)}: {mount} is a mount point when it runs")
