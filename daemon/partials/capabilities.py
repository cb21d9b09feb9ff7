"""What can be done with resumable uploads, in small parts.

Whatever keeps them, the values are plain. Every method may block on the disk. Where nothing else is said, it raises
Rejected('storage_failed'), or Rejected('no_room') where it writes.
"""

from collections.abc import Sequence
from typing import Protocol

from daemon.model.upload import Upload
from daemon.partials.values import Census, PartialState, Plan
from daemon.spool import Incoming


class Partial(Protocol):
    """One resumable upload, as the one who holds it sees it: nobody else changes it until it is let go.

    One thread at a time, but for `is_wanted`.
    """

    @property
    def upload_id(self) -> str:
        """Its id."""

    @property
    def plan(self) -> Plan:
        """What it is to become."""

    @property
    def state(self) -> PartialState:
        """How it stands, durably."""

    @property
    def size(self) -> int:
        """Bytes that were stored; those after `state.offset` are not durable yet."""

    def is_wanted(self) -> bool:
        """True when a newer request waits for it: let it go soon. From any thread."""

    def rewind(self) -> None:
        """Drop what was stored after `state.offset`."""

    def store(self, pieces: Sequence[bytes]) -> None:
        """Add bytes."""

    def read(self, offset: int, most: int) -> bytes:
        """Up to `most` of the bytes that were stored, from `offset` on."""

    def keep(self, now: float, length: int | None = None) -> None:
        """Make what was stored durable, and then that it may be told; of the last byte it is not told before the end.

        `length` is what it is to have, where nobody has said it before. `now` is in seconds since the epoch.
        """

    def choose(self, upload: Upload) -> None:
        """Say durably what all of it becomes: from now on that, and nothing else. All bytes must be there."""

    @property
    def is_spooled(self) -> bool:
        """True when all of it has been in the spool: it is an upload, whose row may be missing."""

    @property
    def is_taken(self) -> bool:
        """True when all of it was in the spool and has been taken from there: its task has a row, or had one."""

    def incoming(self) -> Incoming:
        """What was chosen, to be sealed in the spool. When it is withdrawn from there, its bytes come back here.

        Nothing else is done with its bytes after that, but `conclude`, `remove` and `release`.
        """

    def conclude(self, task_id: str, now: float) -> None:
        """Say durably which task stands for it; the bytes that are here are let go."""

    def remove(self) -> None:
        """Leave nothing of it here, durably."""

    def release(self) -> None:
        """Let it go. May be called again."""


class Turn(Protocol):
    """A request's turn to hold an upload: whoever has it is told, and whoever waited before gives up."""

    def take(self) -> Partial | None:
        """Take hold of it; None: not yet, try again in a moment.

        Raises Rejected('upload_busy') when a newer request wants it as well, and Rejected('upload_not_found') when it
        has gone.
        """

    def leave(self) -> None:
        """Do without it. May be called again, and after it was taken."""


class Partials(Protocol):
    """The resumable uploads of a service, for all its processes. From any thread."""

    def is_in_place(self) -> bool:
        """False when what is kept here could not become an upload: nothing can be stored then."""

    def create(self, plan: Plan, length: int | None) -> str:
        """Make one, durably; return its id, which nobody can guess."""

    def want(self, upload_id: str) -> Turn | None:
        """A turn to hold one; None when there is none. From now on whoever holds it is told to let it go."""

    def find(self, upload_id: str) -> tuple[Plan, PartialState] | None:
        """How one stands, whoever holds it; None when there is none."""

    def census(self, *, fresh: bool = False) -> Census:
        """What there is of unfinished ones; unless `fresh`, what others did in the last moment may be missing."""

    def census_under(self, owner: str) -> Census:
        """What there is of unfinished ones of that name and of all below it."""

    def sweep(self, now: float, expire_s: float) -> Sequence[str]:
        """Remove what nothing was heard of for so long, and what crashes left; return the ids of unfinished ones."""

    def close(self) -> None:
        """Let go of everything. May be called again."""
