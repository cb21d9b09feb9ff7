"""Who is let in: a pure decision from what a request announces, and the counts that it is made from.

Guarantees: a refusal needs nothing of the body. What is being received counts as if it were there already, so
that uploads side by side do not fill the disk together. The counts of the backlog are at most a little over
`SNAPSHOT_S` old; what this process accepted since then is added to them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from api.http.peers import Shares
from api.queries.reader import Snapshot
from daemon.config import Limits
from daemon.errors import Rejected

#: Seconds after which the counts of the backlog and of the disk are taken again.
SNAPSHOT_S: Final = 0.5
#: Refusals that counts decide about.
COUNTED: Final = frozenset({"backlog_full", "no_room"})


@dataclass(kw_only=True)
class Load:
    """What this process is receiving, and what it took in since the last snapshot."""

    uploads: int = 0
    #: Bytes that the running uploads announced.
    announced_bytes: int = 0
    #: Those of them that are not on the disk yet.
    unwritten_bytes: int = 0
    #: Tasks that were made since the last snapshot, and their bytes.
    tasks_since: int = 0
    task_bytes_since: int = 0
    #: Bytes that went to the disk since the last snapshot.
    written_since: int = 0


def refusal(
    length: int | None, *, limits: Limits, has_place: bool, seen: Snapshot, load: Load, draining: bool,
) -> str | None:
    """The code of the error with which an upload of `length` bytes (None: unknown) is refused, or None: let it in."""
    size = length or 0
    if size > limits.max_upload_bytes:
        return "too_large"
    if draining:
        return "draining"
    if not has_place:
        return "too_busy"
    if seen.pending_tasks + load.tasks_since + load.uploads >= limits.max_pending_tasks:
        return "backlog_full"
    if seen.pending_bytes + load.task_bytes_since + load.announced_bytes + size > limits.max_pending_bytes:
        return "backlog_full"
    if seen.free_bytes - load.written_since - load.unwritten_bytes - size < limits.min_free_bytes:
        return "no_room"
    return None


@dataclass
class Place:
    """The place of one upload among those that are being received: what it still owes of what it announced."""

    load: Load
    owed_bytes: int

    def wrote(self, size: int) -> None:
        """Count `size` bytes as being on the disk."""
        paid = min(size, self.owed_bytes)
        self.owed_bytes -= paid
        self.load.unwritten_bytes -= paid
        self.load.written_since += size


@dataclass
class Admission:
    """The door's memory: asked on the event loop only."""

    seen: Snapshot
    shares: Shares
    load: Load = field(default_factory=Load)
    draining: bool = False
    #: True when some of what is counted on top of the snapshot may be in it already.
    doubtful: bool = False

    def refusal(self, length: int | None, peer: str, limits: Limits) -> str | None:
        """The code of the error with which an upload of `length` bytes from `peer` would be refused now, or None."""
        return refusal(length, limits=limits, has_place=self.shares.admits(peer), seen=self.seen, load=self.load,
                       draining=self.draining)

    @contextmanager
    def admit(self, length: int | None, peer: str, limits: Limits) -> Iterator[Place]:
        """Hold a place for an upload of `length` bytes from `peer`; raise Rejected when it is not let in."""
        code = self.refusal(length, peer, limits)
        if code is not None:
            raise Rejected(code)
        place = Place(self.load, length or 0)
        self.load.uploads += 1
        self.load.announced_bytes += length or 0
        self.load.unwritten_bytes += length or 0
        try:
            with self.shares.hold(peer):
                yield place
        finally:
            self.load.uploads -= 1
            self.load.announced_bytes -= length or 0
            self.load.unwritten_bytes -= place.owed_bytes

    def accepted(self, size: int) -> None:
        """Count one task of `size` bytes more in the backlog, until the next snapshot counts it."""
        self.load.tasks_since += 1
        self.load.task_bytes_since += size

    def refresh(self, snapshot: Snapshot, before: Load) -> None:
        """Go on from newer counts; `before` is a copy of the load from when they began to be taken.

        Nobody knows whether what came meanwhile is in them: it is counted, and the counts are doubtful.
        """
        self.seen = snapshot
        self.doubtful = self.load.uploads > 0 or self.load.tasks_since > before.tasks_since
        self.load.tasks_since -= before.tasks_since
        self.load.task_bytes_since -= before.task_bytes_since
        self.load.written_since -= before.written_since
