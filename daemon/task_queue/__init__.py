"""The queue of a shard: the index to the uploads in the spool. This is the door to it.

`capabilities` says what a queue can do, in small parts; `values` what goes in and out. Guarantees: what `put_many` and
`settle` return for is on the disk; an upload is put once, however often it is tried; a state changes only along the
edges of `daemon.model.task.TRANSITIONS`. The API only puts and reads; all other changes are made by the one worker that
holds the shard's lock. Nothing is ever found out by counting rows.

What keeps the queue is behind the door, in `sqlite`, with all of its SQL. tests/unit/daemon/conformance
holds it to what is promised here.
"""

from daemon.state.layout import Layout
from daemon.task_queue.capabilities import (
    Alter,
    Append,
    Ask,
    Audit,
    Bytes,
    Claim,
    Clocks,
    Counters,
    Execute,
    Find,
    Follow,
    Intake,
    Maintain,
    Operate,
    Outbox,
    PartFiles,
    Read,
    Remember,
    Resume,
    SealedUpload,
    Settle,
    Survey,
    TaskQueue,
    WebhookBoard,
)
from daemon.task_queue.sqlite import notes
from daemon.task_queue.sqlite.connect import BUSY_TIMEOUT_S
from daemon.task_queue.sqlite.intake import SqliteIntake
from daemon.task_queue.sqlite.queue import SqliteQueue
from daemon.task_queue.values import (
    BULK_BYTES,
    MOST_LOOKED_AT,
    ActionRecord,
    Change,
    Command,
    CommandAnswer,
    Counter,
    Event,
    FoundTasks,
    Happened,
    Notice,
    NoticeResult,
    NoticeState,
    Position,
    Put,
    PutOutcome,
    Selection,
    Settled,
    Settlement,
    Standing,
    TaskQuestion,
    Total,
    WebhookStanding,
)

__all__ = [
    "BULK_BYTES",
    "BUSY_TIMEOUT_S",
    "MOST_LOOKED_AT",
    "ActionRecord",
    "Alter",
    "Append",
    "Ask",
    "Audit",
    "Bytes",
    "Change",
    "Claim",
    "Clocks",
    "Command",
    "CommandAnswer",
    "Counter",
    "Counters",
    "Event",
    "Execute",
    "Find",
    "Follow",
    "FoundTasks",
    "Happened",
    "Intake",
    "Maintain",
    "Notice",
    "NoticeResult",
    "NoticeState",
    "Operate",
    "Outbox",
    "PartFiles",
    "Position",
    "Put",
    "PutOutcome",
    "Read",
    "Remember",
    "Resume",
    "SealedUpload",
    "Selection",
    "Settle",
    "Settled",
    "Settlement",
    "Standing",
    "Survey",
    "TaskQuestion",
    "TaskQueue",
    "Total",
    "WebhookBoard",
    "WebhookStanding",
    "open_existing",
    "open_intake",
]


def open_intake(layout: Layout, shard: int, spool: Bytes) -> Intake:
    """A shard's queue, the index of `spool`, to put and read as long as the process runs. Opened when first needed."""
    return SqliteIntake(layout, shard, spool)


def open_existing(layout: Layout, shard: int) -> Operate | None:
    """Open a shard's queue to look and to ask; None when there is none, and none is made. Raises QueueFault."""
    return SqliteQueue(layout, shard) if notes.exists(layout, shard) else None
