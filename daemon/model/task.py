"""What a task is: its destination, the upload it carries, and its states.

All values are immutable. Nothing in here touches a disk, a clock or a network.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from daemon.model.upload import Destination, Upload


class State(IntEnum):
    """Where a task stands. The numbers are the queue's status column; 1, 2, 5 and 9 are persist-queue's own."""

    #: Waiting for a worker.
    QUEUED = 1
    #: A worker is pushing it.
    PUSHING = 2
    #: A transient failure; waits for its due time.
    DEFERRED = 3
    #: A person holds it back.
    HELD = 4
    #: It is in the instance.
    DELIVERED = 5
    #: A newer upload to the same path was accepted.
    SUPERSEDED = 6
    #: A person cancelled it.
    CANCELLED = 7
    #: A dead letter: the bytes are kept until a person decides.
    FAILED = 9

    @property
    def label(self) -> str:
        """The name that people and clients see."""
        return self.name.lower()


#: States in which a task still wants to be delivered.
PENDING: Final = frozenset({State.QUEUED, State.PUSHING, State.DEFERRED, State.HELD})
#: States after which nothing more happens and the bytes may go.
FINISHED: Final = frozenset({State.DELIVERED, State.SUPERSEDED, State.CANCELLED})
#: States in which it is known what became of a task; of a dead letter, until a person decides about it.
OUTCOMES: Final = FINISHED | {State.FAILED}
#: Every edge of the state machine; `task_queue` takes no other, and the docs are checked against it.
TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    State.QUEUED: frozenset({State.PUSHING, State.HELD, State.CANCELLED, State.SUPERSEDED, State.FAILED}),
    State.PUSHING: frozenset({State.DELIVERED, State.DEFERRED, State.FAILED, State.QUEUED, State.CANCELLED,
                              State.HELD, State.SUPERSEDED}),
    State.DEFERRED: frozenset({State.QUEUED, State.HELD, State.CANCELLED, State.SUPERSEDED, State.FAILED}),
    State.HELD: frozenset({State.QUEUED, State.CANCELLED, State.FAILED}),
    State.FAILED: frozenset({State.QUEUED, State.CANCELLED}),
    State.DELIVERED: frozenset({State.QUEUED}),
    State.SUPERSEDED: frozenset(),
    State.CANCELLED: frozenset(),
}


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One push of a task that was tried and counted, and how it ended."""

    #: When it ended, in seconds since the epoch.
    at: float
    #: How long it took, in seconds.
    duration_s: float
    #: The code of its error, and what it said; None when the file is in the instance.
    code: str | None = None
    message: str | None = None
    #: Of a delivery: how it was done, and the permission bits and the owner that the file has now, where that is known.
    way: str | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    #: Of a delivery: it may be on another machine, whose disks a sync of this one does not reach.
    elsewhere: bool = False
    #: And which instance it went to, where that is known: another one of its name has another identity.
    identity: str | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """An upload and how it stands: one row of a shard."""

    #: Order of acceptance in its shard: later uploads have higher numbers.
    order: int
    upload: Upload
    state: State
    #: Pushes that were tried and counted.
    attempts: int = 0
    #: Seconds since the epoch; when a deferred task is tried again.
    due_at: float | None = None
    updated_at: float = 0.0
    error_code: str | None = None
    error_message: str | None = None
    #: True while the bytes are in the spool.
    spooled: bool = True
    #: When it was accepted (or retried by a person), on a clock that stands still while the remote is away.
    age_base: float = 0.0
    #: True when it was delivered before a crash of the machine and may not have reached the disk.
    recheck: bool = False
    #: True when an attempt may have left its part file in the instance.
    left_part: bool = False
    #: The last attempts, oldest first.
    history: tuple[Attempt, ...] = ()

    @property
    def task_id(self) -> str:
        """The id of the upload."""
        return self.upload.task_id

    @property
    def destination(self) -> Destination:
        """Where the upload goes."""
        return self.upload.destination


