"""What goes in and out of a shard's queue: plain values, whatever keeps the queue."""

from dataclasses import asdict, dataclass, field, replace
from enum import Enum, IntEnum
from typing import Any, Final

from daemon.model.task import Attempt, State, Task
from daemon.model.upload import Upload

#: Tasks of at least this size are claimed apart, so that they never stand in the way of small ones. An index of every
#: database holds it: another size is another form of the tables.
BULK_BYTES: Final = 4 * 2**20
#: Rows that a search looks at before it tells what it found so far.
MOST_LOOKED_AT: Final = 20_000


class PutOutcome(Enum):
    """What became of an upload that was put."""

    ACCEPTED = "accepted"
    #: Its idempotency key, or its id, is there already, for the same upload.
    DUPLICATE = "duplicate"
    #: Its idempotency key was used for a different upload.
    MISMATCH = "mismatch"


@dataclass(frozen=True)
class Put:
    """The answer to one upload that was put."""

    outcome: PutOutcome
    #: The id under which the upload stands: that of the first one for a duplicate.
    task_id: str
    #: Ids of the pending tasks that this one replaced, each with the client that had sent it.
    superseded: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """What became of a task that was being pushed."""

    order: int
    state: State
    #: None leaves them as they are.
    attempts: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    due_at: float | None = None
    spooled: bool = True
    #: Whether an attempt may have left its part file; None leaves what was known.
    part: bool | None = None
    #: So many seconds more do not count towards its age.
    ageless_s: float = 0.0
    #: How the attempt ended that is to be kept with the task; None when there is nothing to keep.
    attempt: Attempt | None = None
    #: The upload, by which the bytes and the time of a delivery are counted.
    upload: Upload | None = None


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What became of settled tasks otherwise than their settlements said, by their orders."""

    #: A newer upload to the path was accepted meanwhile.
    superseded: frozenset[int] = frozenset()
    #: A person wished it meanwhile.
    cancelled: frozenset[int] = frozenset()
    held: frozenset[int] = frozenset()

    @property
    def finished(self) -> frozenset[int]:
        """Those that nothing more happens to."""
        return self.superseded | self.cancelled


@dataclass(frozen=True)
class Position:
    """A place in the order of what happened in a shard. Numbers of another epoch say nothing."""

    epoch: str
    #: The number of the last event before it.
    seq: int


@dataclass(frozen=True, kw_only=True)
class Event:
    """A task came into a state."""

    seq: int
    task_id: str
    state: State
    #: When, in seconds since the epoch.
    at: float
    #: The code of its error, if it has one.
    code: str | None = None


@dataclass(frozen=True)
class Happened:
    """What happened after a position."""

    #: Oldest first.
    events: tuple[Event, ...]
    #: Where to go on.
    position: Position
    #: True when it is not known what happened: the position is of another epoch, or too old. Go on from `position`.
    lost: bool
    #: How the tasks of the events stand by now, by their ids, if that was asked for: those that are there and sound.
    tasks: dict[str, Task] = field(default_factory=dict)


class NoticeState(IntEnum):
    """How a notice stands."""

    PENDING = 1
    DELIVERED = 2
    #: Given up; it is kept for a while, and can be sent again.
    FAILED = 3

    @property
    def label(self) -> str:
        """The name that people and clients see."""
        return self.name.lower()


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One message to one webhook: what is to be sent, and how that stands. Times are in seconds since the epoch."""

    #: Stays the same however often it is sent. Later ones have greater ids.
    message_id: str
    #: The name of the webhook.
    webhook: str
    type: str
    #: None for a message that is about no task.
    task_id: str | None
    #: What is sent: JSON.
    body: str
    created_at: float
    state: NoticeState = NoticeState.PENDING
    #: Tries that were made since it was put, or put again.
    attempts: int = 0
    #: When it is to be tried next.
    due_at: float = 0.0
    updated_at: float = 0.0
    #: The HTTP status and the words of the last try.
    status: int | None = None
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class NoticeResult:
    """What became of one try to send a notice."""

    #: As it was when it was tried; nothing is written where it is another by now.
    notice: Notice
    state: NoticeState
    due_at: float
    status: int | None
    detail: str | None


@dataclass(frozen=True, kw_only=True)
class WebhookStanding:
    """How a webhook stands in a shard. Times are in seconds since the epoch."""

    name: str
    pending: int = 0
    delivered: int = 0
    failed: int = 0
    #: Since when nothing is sent to it, and why; None: it is not disabled.
    disabled_at: float | None = None
    disabled_why: str | None = None
    #: When it was tried last, and the HTTP status and the words of that try.
    last_at: float | None = None
    last_status: int | None = None
    last_detail: str | None = None


@dataclass(frozen=True)
class Total:
    """How many tasks there are, and of how many bytes."""

    tasks: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How one instance stands."""

    instance_key: str
    #: Only of states that it has tasks in.
    totals: dict[State, Total]
    #: When its oldest task that is not finished was accepted (seconds since the epoch), or None.
    oldest_at: float | None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The tasks that a command is about, by what they are rather than by their ids."""

    instance_key: str | None = None
    #: Only tasks that this client sent.
    client: str | None = None
    #: Only tasks in these states; empty: all in which the command applies.
    states: tuple[int, ...] = ()
    #: Only tasks accepted before this time, in seconds since the epoch.
    accepted_before: float | None = None
    #: Only tasks whose order is at most this: those that were there when the command was given.
    up_to_order: int | None = None


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a person asked for, on the disk until the worker has done it."""

    verb: str
    task_id: str | None = None
    selection: Selection | None = None
    force: bool = False
    asked_by: str = ""
    asked_at: float = 0.0
    #: Its number; 0 until it is in the queue.
    number: int = 0
    #: The action that it is a part of; None: it is one by itself.
    action_id: str | None = None
    #: The selection that its task was a member of, if it is asked for with others of it.
    selection_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class ActionRecord:
    """What a person did to tasks, and what became of it so far: for the audit list. Times are seconds since the epoch.

    It is about one task, or about all of a selection of the API's, or about all that a filter meant: one of the three.
    """

    #: Later ones have greater ids.
    action_id: str
    at: float
    by: str
    verb: str
    task_id: str | None = None
    selection_id: str | None = None
    filter: Selection | None = None
    #: How many tasks it is about, as far as they are known: those of a filter are when they are worked off.
    tasks: int = 0
    changed: int = 0
    refused: int = 0
    #: When all of it was worked off; None: it is not yet.
    done_at: float | None = None

    @property
    def what(self) -> dict[str, Any]:
        """What it is about, as JSON values."""
        if self.filter is not None:
            given = {key: value for key, value in asdict(self.filter).items() if value not in {None, ()}}
            given |= {"states": [State(state).label for state in self.filter.states]} if self.filter.states else {}
            return {"filter": given}
        return {"task_id": self.task_id} if self.selection_id is None else {"selection": self.selection_id}

    def __add__(self, other: "ActionRecord") -> "ActionRecord":
        """Both parts of one action, which two shards have."""
        done = None if self.done_at is None or other.done_at is None else max(self.done_at, other.done_at)
        return replace(self, at=min(self.at, other.at), tasks=self.tasks + other.tasks,
                       changed=self.changed + other.changed, refused=self.refused + other.refused, done_at=done)


@dataclass(frozen=True, kw_only=True)
class Counter:
    """A sum that only grows (`daemon.model.counters`)."""

    name: str
    #: As text: `key=value,key=value`.
    labels: str
    value: float


@dataclass(frozen=True, kw_only=True)
class TaskQuestion:
    """Which tasks are looked for. All of what it says has to be so."""

    #: Empty: all.
    states: frozenset[State] = frozenset()
    instance_key: str | None = None
    #: Sent by this client.
    client: str | None = None
    #: The path has this in it; or it is a glob (`daemon.model.glob`), where it begins with "/" and ends with "*".
    path: str | None = None
    #: The code of their error.
    error: str | None = None
    #: Accepted from then on, and before then, in seconds since the epoch, to the millisecond.
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True)
class FoundTasks:
    """The tasks that were found, newest first."""

    tasks: tuple[Task, ...]
    #: All tasks from this id on were looked at: go on before it. None: there are no more.
    next_before: str | None


@dataclass(frozen=True, kw_only=True)
class Change:
    """One task that a command changes: from the state that it was read in to another."""

    task: Task
    state: State
    #: It counts as accepted just now: a forced task comes after what overtook it.
    anew: bool = False
    #: A runner has it: the state is set when the push ends without a delivery.
    when_settled: bool = False


@dataclass(frozen=True, kw_only=True)
class CommandAnswer:
    """What became of a command so far."""

    number: int
    changed: int = 0
    refused: int = 0
    #: Why the first of the refused was refused.
    reason: str | None = None
    done: bool = True
