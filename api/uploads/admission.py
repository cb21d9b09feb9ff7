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
from daemon.config import Limits
from daemon.errors import Rejected
from daemon.partials import Census
from daemon.process.shared_counts import SharedCount

#: Seconds after which the counts of the backlog are taken again.
SNAPSHOT_S: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class Load:
    """What all API processes are receiving, with the upload that is decided about."""

    uploads: int
    announced_bytes: int
    unwritten_bytes: int


def refusal(*, limits: Limits, waiting: Waiting, load: Load, free_bytes: int) -> str | None:
    """The code of the error with which an upload that is in `load` is refused, or None: let it in."""
    if waiting.tasks + load.uploads > limits.max_pending_tasks:
        return "backlog_full"
    if waiting.size_bytes + load.announced_bytes > limits.max_pending_bytes:
        return "backlog_full"
    return None if leaves_room(free_bytes, load.unwritten_bytes, limits) else "no_room"


def leaves_room(free_bytes: int, unwritten_bytes: int, limits: Limits) -> bool:
    """True when enough is left on the disk once all that is on its way is written."""
    return free_bytes - unwritten_bytes >= limits.min_free_bytes


@dataclass
class Place:
    """The place of one upload among those that are being received: what it still owes of what it announced.

    It is held from the beginning, and ends with its `with`.
    """

    unwritten: SharedCount
    has_room: Callable[[], bool]
    give_back: Callable[[], None]
    owed_bytes: int = 0
    #: What was expected last.
    _newest_bytes: int = 0

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Give it back, with what it owes."""
        self.owe(0)
        self.give_back()

    def owe(self, size: int) -> None:
        """Count `size` bytes as being on their way to the disk, and no others of this upload."""
        self.unwritten.add(size - self.owed_bytes)
        self.owed_bytes = size

    def expect(self, size: int) -> None:
        """Count `size` bytes that nobody announced, before they are written; all but the ones before them are written.

        Raises Rejected('no_room').
        """
        self.owe(self._newest_bytes + size)
        self._newest_bytes = size
        if not self.has_room():
            raise Rejected("no_room")


@dataclass
class Admission:
    """The door's memory: asked on the event loop only."""

    #: What waited when it was counted last.
    counted: Waiting
    shares: Shares
    announced: SharedCount
    unwritten: SharedCount
    #: Room on the disk now. Raises Rejected('storage_failed').
    free_bytes: Callable[[], int]
    #: Why nothing can be stored, for people; None while all is well.
    trouble: Callable[[], str | None] = lambda: None
    #: Resumable uploads that are not finished: their bytes are on their way, too.
    partials: Census = field(default_factory=Census)
    #: What this process accepted since then.
    since: Waiting = field(default_factory=Waiting)
    draining: bool = False

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
        place = self._place_of(size, peer, limits)
        try:
            self._check(limits)
        except Rejected:
            place.end()
            raise
        return place

    def _place_of(self, size: int, peer: str, limits: Limits) -> Place:
        def give_back() -> None:
            self.announced.add(-size)
            self.shares.give_back(peer)

        self.announced.add(size)
        place = Place(
            self.unwritten, lambda: leaves_room(self.free_bytes(), self._unwritten_bytes, limits), give_back)
        place.owe(size)
        return place

    def _check(self, limits: Limits) -> None:
        partials = self.partials
        load = Load(
            uploads=self.shares.taken, unwritten_bytes=self._unwritten_bytes,
            announced_bytes=self.announced.total + partials.present_bytes + partials.owed_bytes)
        code = refusal(limits=limits, waiting=self.waiting, load=load, free_bytes=self.free_bytes())
        if code is not None:
            raise Rejected(code)

    @property
    def _unwritten_bytes(self) -> int:
        return self.unwritten.total + self.partials.owed_bytes

    def accepted(self, size: int) -> None:
        """Count one task of `size` bytes more in the backlog, until it is counted there."""
        self.since += Waiting(tasks=1, size_bytes=size)

    def refresh(self, counted: Waiting, before: Waiting) -> None:
        """Go on from newer counts; `before` is what had been accepted since the last ones when they began to be taken.

        What came meanwhile is counted, though it may be in them.
        """
        self.counted = counted
        self.since -= before
