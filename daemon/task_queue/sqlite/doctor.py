"""A shard's queue as recovery opens it: what it needs to put the database right comes on top."""

from daemon.task_queue.sqlite import notes
from daemon.task_queue.sqlite.inspection import give_way, what_is_damaged
from daemon.task_queue.sqlite.migrate import QueueMoving
from daemon.task_queue.sqlite.queue import SqliteQueue
from daemon.task_queue.sqlite.restore import QueueRestore


class SqliteDoctor(SqliteQueue, QueueRestore, QueueMoving):
    """One shard's queue, for the holder of the shard's lock who looks after its database too."""

    #: Some of its questions are about every row.
    MOST_S = 600.0

    def require_form(self) -> None:
        """Raise QueueFault('queue_damaged') when anything is in the schema that this program has not made."""
        self._look_at_form()

    def try_writing(self) -> None:
        """Write nothing, but ask SQLite to. Raises QueueFault, also for a database whose head forbids it."""
        with self.write(self.durable, "queue.settle") as connection:
            # A transaction alone asks for nothing that a database without writers could not do.
            connection.execute("DELETE FROM facts WHERE 0")

    def met_damage(self) -> bool:
        """True when a damaged row was met since this was last asked."""
        met, self.met_damaged_row = self.met_damaged_row, False
        return met

    def is_suspected(self) -> bool:
        """True when somebody asks for the database to be read through."""
        return notes.is_suspected(self.layout, self.shard)

    def clear_suspicion(self) -> None:
        """The database was read through, and nothing is wrong with it."""
        notes.clear_suspicion(self.layout, self.shard)

    def damage(self) -> str | None:
        """What is wrong with the database, or None. Raises QueueFault when it cannot be read just now."""
        give_way()
        return what_is_damaged(self.layout, self.shard)

    def end(self) -> None:
        """Close it in order: whoever opens it next finds nothing to put right. Raises QueueFault and OSError."""
        self.compact()
        self.close()
        notes.note_closed(self.layout, self.shard)

    def condemn(self) -> None:
        """Note, durably, that the database is damaged: the next start sets it aside. Raises OSError."""
        notes.condemn(self.layout, self.shard)
