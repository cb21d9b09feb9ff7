"""Who is let in: a pure decision from what a request announces, and the counts that it is made from.

Guarantees: a refusal needs nothing of the body. What is being received, by all API processes together, counts as if it
were there already, so that uploads side by side do not fill the disk together: each is counted before it is decided
about, so that of two none overlooks the other. The counts of the backlog are a little over `SNAPSHOT_S` old; what this
process accepted since then is added to them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from api.http.peers import Shares
from api.queries.reader import Waiting
from api.uploads.headroom import Headroom
from daemon.config import Limits
from daemon.errors import Rejected
from daemon.partials import Census
from daemon.process.shared_counts import SharedCount

#: Seconds after which the counts of the backlog are taken again.
SNAPSHOT_S: Final = 0.5


def fits(tasks: int, size_bytes: int, limits: Limits) -> bool:
    """True when the backlog may have that much, what is being received included."""
    return tasks <= limits.max_pending_tasks and size_bytes <= limits.max_pending_bytes


@dataclass(slots=True)
class Place:
    """The place of one upload among those that are being received: what it still owes of what it announced.

    It is held from the beginning, and ends with its `with`.
    """

    admission: "Admission"
    peer: str
    announced_bytes: int
    limits: Limits
    owed_bytes: int = 0
    #: What was expected last.
    _newest_bytes: int = 0

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Give it back, with what it owes."""
        self.admission.headroom.settle(self.owed_bytes)
        self.owed_bytes = 0
        self.admission.announced.add(-self.announced_bytes)
        self.admission.shares.give_back(self.peer)

    def owe(self, size: int) -> None:
        """Count `size` bytes as being on their way to the disk, and no others of this upload."""
        more = size - self.owed_bytes
        if more > 0:
            self.admission.headroom.owe(more)
        else:
            self.admission.headroom.settle(-more)
        self.owed_bytes = size

    def expect(self, size: int, unwritten_bytes: int = 0) -> None:
        """Count `size` bytes that nobody announced, before they are written.

        Of those before, `unwritten_bytes` are not, and what was expected last may be held back by who writes.
        Raises Rejected('no_room').
        """
        self.admission.headroom.owe(size)
        unwritten = min(self.owed_bytes, unwritten_bytes + self._newest_bytes)
        self.admission.headroom.settle(self.owed_bytes - unwritten)
        self.owed_bytes = unwritten + size
        self._newest_bytes = size
        self.admission.check_room(self.limits)


@dataclass
class Admission:
    """The door's memory: asked on the event loop only."""

    #: What waited when it was counted last.
    counted: Waiting
    shares: Shares
    announced: SharedCount
    headroom: Headroom
    #: Why nothing can be stored, for people; None while all is well.
    trouble: Callable[[], str | None] = lambda: None
    #: Resumable uploads that are not finished: their bytes are on their way, too.
    partials: Census = field(default_factory=Census)
    #: What this process accepted since then.
    since_tasks: int = 0
    since_bytes: int = 0
    draining: bool = False

    @property
    def since(self) -> Waiting:
        """What this process accepted since it was counted what waits."""
        return Waiting(tasks=self.since_tasks, size_bytes=self.since_bytes)

    @property
    def waiting(self) -> Waiting:
        """What waits to be delivered; a little too much while it is being counted."""
        return self.counted + self.since

    def admit(self, length: int | None, peer: str, limits: Limits) -> Place:
        """The place of an upload of `length` bytes from `peer`; raise Rejected when it is not let in."""
        size = length or 0
        if size > limits.max_upload_bytes:
            raise Rejected("too_large")
        if self.draining:
            raise Rejected("draining")
        if (trouble := self.trouble()) is not None:
            raise Rejected("storage_failed", trouble)
        if not self.shares.take(peer):
            raise Rejected("too_busy")
        self.announced.add(size)
        self.headroom.owe(size)
        place = Place(self, peer, size, limits, owed_bytes=size)
        try:
            self._check_backlog(limits)
            self.check_room(limits)
        except Rejected:
            place.end()
            raise
        return place

    def _check_backlog(self, limits: Limits) -> None:
        counted, partials = self.counted, self.partials
        tasks = counted.tasks + self.since_tasks + self.shares.taken
        size_bytes = (counted.size_bytes + self.since_bytes
                      + self.announced.total + partials.present_bytes + partials.owed_bytes)
        if not fits(tasks, size_bytes, limits):
            raise Rejected("backlog_full")

    def check_room(self, limits: Limits) -> None:
        """Raise Rejected('no_room') unless the disk has room for all that is on its way, or 'storage_failed'."""
        if not self.headroom.suffices(limits.min_free_bytes, self.partials):
            raise Rejected("no_room")

    def accepted(self, size: int) -> None:
        """Count one task of `size` bytes more in the backlog, until it is counted there."""
        self.since_tasks += 1
        self.since_bytes += size

    def refresh(self, counted: Waiting, before: Waiting) -> None:
        """Go on from newer counts; `before` is what had been accepted since the last ones when they began to be taken.

        What came meanwhile is counted, though it may be in them.
        """
        self.counted = counted
        self.since_tasks -= before.tasks
        self.since_bytes -= before.size_bytes
