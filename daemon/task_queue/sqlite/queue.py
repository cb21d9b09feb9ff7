"""One shard's queue in its database."""

from daemon.task_queue.sqlite.append import QueueAppend
from daemon.task_queue.sqlite.audit import QueueAudit
from daemon.task_queue.sqlite.claim import QueueWork
from daemon.task_queue.sqlite.commands import QueueCommands
from daemon.task_queue.sqlite.counters import QueueCounters
from daemon.task_queue.sqlite.outbox import QueueOutbox
from daemon.task_queue.sqlite.reads import QueueReads
from daemon.task_queue.sqlite.search import QueueSearch
from daemon.task_queue.sqlite.upkeep import QueueUpkeep


class SqliteQueue(
    QueueAppend, QueueReads, QueueSearch, QueueCounters, QueueOutbox, QueueWork, QueueCommands, QueueAudit, QueueUpkeep,
):
    """One shard's queue. Its methods may be called from several threads."""
