"""A shard's queue as recovery opens it: what it needs to put the database right comes on top."""

from daemon.task_queue.sqlite.migrate import QueueMoving
from daemon.task_queue.sqlite.queue import SqliteQueue
from daemon.task_queue.sqlite.restore import QueueRestore


class SqliteDoctor(SqliteQueue, QueueRestore, QueueMoving):
    """One shard's queue, for the holder of the shard's lock who looks after its database too."""
