"""One shard's queue: the index to the uploads in the spool, on persist-queue's acknowledged SQLite queue.

Guarantees: what `put_many` and `settle` return for is on the disk; an upload is put once, however often it is
tried; a state changes only along the edges of `daemon.model.task.TRANSITIONS`. The API only puts and reads; all other
changes are made by the one worker that holds the shard's lock. Nothing is ever found out by counting rows.

All SQL of the service is in this package.
"""

from daemon.task_queue.sqlite.append import QueueAppend
from daemon.task_queue.sqlite.claim import QueueWork
from daemon.task_queue.sqlite.commands import QueueCommands
from daemon.task_queue.sqlite.migrate import QueueMoving
from daemon.task_queue.sqlite.reads import QueueReads
from daemon.task_queue.sqlite.restore import QueueRestore, Restored, Row
from daemon.task_queue.sqlite.upkeep import QueueUpkeep
from daemon.task_queue.values import (
    BULK_BYTES,
    Answer,
    Change,
    Command,
    Outcome,
    Put,
    Selection,
    Settled,
    Settlement,
    Tally,
)

__all__ = [
    "BULK_BYTES", "Answer", "Change", "Command", "Outcome", "Put", "Restored", "Row", "Selection", "Settled",
    "Settlement", "Tally", "TaskQueue",
]


class TaskQueue(QueueAppend, QueueReads, QueueWork, QueueCommands, QueueUpkeep, QueueRestore, QueueMoving):
    """One shard's queue. Its methods may be called from several threads."""
