"""Upkeep of a shard's queue: what people asked for, what is finished, what has grown old, in small steps."""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from daemon.task import State, Task
from daemon.task_queue.base import COLUMNS, QueueBase, decode
from daemon.task_queue.schema import BULK_BYTES, OUTAGE, TABLE


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The tasks that a command is about, by what they are rather than by their ids."""

    instance_key: str | None = None
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


class QueueUpkeep(QueueBase):
    """Commands, clocks and facts; unspooling, clearing and expiring."""

    # --- commands ----------------------------------------------------------------------------------------

    def ask(self, commands: Iterable[Command]) -> None:
        """Record what a person asks for, durably; the worker does it when it comes round, even much later."""
        with self.write(self.durable, "queue.commit") as connection:
            connection.executemany(
                "INSERT INTO commands (verb, task_id, filter, force, asked_at, asked_by) VALUES (?, ?, ?, ?, ?, ?)",
                [(c.verb, c.task_id, json.dumps(asdict(c.selection)) if c.selection else None, c.force,
                  c.asked_at or time.time(), c.asked_by) for c in commands])

    def commands(self, limit: int) -> list[Command]:
        """The oldest commands that are not done yet."""
        rows = self.read("SELECT id, verb, task_id, filter, force, asked_at, asked_by FROM commands"
                         " ORDER BY id LIMIT ?", (limit,))
        return [Command(number=number, verb=verb, task_id=task_id, force=bool(force), asked_at=at, asked_by=by,
                        selection=_selection(text)) for number, verb, task_id, text, force, at, by in rows]

    def pending_commands(self) -> int:
        """How many commands are not done yet."""
        return int(self.read("SELECT count(*) FROM commands")[0][0])

    def select(self, selection: Selection, after_order: int, limit: int) -> list[Task]:
        """Up to `limit` of the selected tasks, in order, with orders over `after_order`."""
        conditions: list[str] = ["_id > ?"]
        values: list[object] = [after_order]
        for text, value in (("instance = ?", selection.instance_key), ("timestamp < ?", selection.accepted_before),
                            ("_id <= ?", selection.up_to_order)):
            if value is not None:
                conditions.append(text)
                values.append(value)
        if selection.states:
            conditions.append(f"status IN ({','.join('?' * len(selection.states))})")
            values.extend(selection.states)
        rows = self.read(f"SELECT {COLUMNS} FROM {TABLE} WHERE {' AND '.join(conditions)} ORDER BY _id LIMIT ?",
                         (*values, limit))
        return [decode(row) for row in rows]

    def newest_order(self) -> int:
        """The highest order that was ever given."""
        rows = self.read("SELECT seq FROM sqlite_sequence WHERE name = ?", (TABLE,))
        return int(rows[0][0]) if rows else 0

    def change(self, changes: Sequence[tuple[Task, State]], done: Sequence[Command] = ()) -> int:
        """Change states as people asked and acknowledge their commands, in one durable transaction.

        A task that meanwhile left the state it was read in is not changed. Returns how many were.
        """
        now = time.time()
        changed = 0
        with self.write(self.durable, "queue.settle") as connection:
            for task, state in changes:
                changed += connection.execute(
                    f"UPDATE {TABLE} SET status = ?, updated_at = ?, due_at = NULL,"
                    " attempts = CASE WHEN status = 9 THEN 0 ELSE attempts END,"
                    f" age_base = CASE WHEN status = 9 THEN ? - {OUTAGE} ELSE age_base END"
                    " WHERE _id = ? AND status = ?",
                    (state, now, now, task.destination.remote, task.order, task.state)).rowcount
            connection.executemany("DELETE FROM commands WHERE id = ?", [(command.number,) for command in done])
        return changed

    def delete_rows(self, orders: Iterable[int]) -> None:
        """Forget tasks whose bytes are gone, and their idempotency keys."""
        doomed = [(order,) for order in orders]
        if doomed:
            self._delete(doomed)

    # --- outages and facts -------------------------------------------------------------------------------

    def add_outage(self, remote: str, seconds: float) -> None:
        """Add to the time for which a remote was away; the empty name stands for the worker itself."""
        with self.write(self.quick, "queue.claim") as connection:
            connection.execute("INSERT INTO outages VALUES (?, ?) ON CONFLICT DO UPDATE"
                               " SET seconds = seconds + excluded.seconds", (remote, seconds))

    def remember(self, name: str, value: str) -> None:
        """Remember a fact about the shard, durably."""
        with self.write(self.durable, "queue.settle") as connection:
            connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    # --- what is finished --------------------------------------------------------------------------------

    def recheck_unsynced(self) -> int:
        """Queue again, to be compared, what was delivered before a crash of the machine with its bytes still there.

        A delivery that a newer upload to its path has followed stays as it is. Returns how many were queued.
        """
        with self.write(self.durable, "queue.settle") as connection:
            return int(connection.execute(
                f"UPDATE {TABLE} AS mine SET status = 1, recheck = 1 WHERE status = 5 AND spooled = 1 AND NOT EXISTS ("
                f" SELECT 1 FROM {TABLE} AS newer WHERE newer.target = mine.target AND newer._id > mine._id)"
            ).rowcount)

    def unspoolable(self, limit: int, after_order: int = 0) -> list[Task]:
        """Finished tasks whose bytes are still in the spool, oldest first."""
        rows = self.read(f"SELECT {COLUMNS} FROM {TABLE} WHERE spooled = 1 AND status IN (5, 6, 7) AND _id > ?"
                         " ORDER BY _id LIMIT ?", (after_order, limit))
        return [decode(row) for row in rows]

    def unspool(self, orders: Iterable[int]) -> None:
        """Record that the bytes of tasks are gone. Not durable by itself: unlinking twice does no harm."""
        with self.write(self.quick, "queue.unspool") as connection:
            connection.executemany(f"UPDATE {TABLE} SET spooled = 0 WHERE _id = ?", [(order,) for order in orders])

    def clear_finished(self, before: float, keep_most: int, limit: int) -> int:
        """Delete up to `limit` finished rows that are older than `before` or more than `keep_most`; return how many."""
        finished = self.read("SELECT coalesce(sum(tasks), 0) FROM tally WHERE status IN (5, 6, 7)")[0][0]
        rows = self.read(f"SELECT _id, updated_at FROM {TABLE} WHERE spooled = 0 AND status IN (5, 6, 7)"
                         " ORDER BY updated_at LIMIT ?", (limit,))
        excess = finished - keep_most
        doomed = [(order,) for index, (order, at) in enumerate(rows) if at < before or index < excess]
        if doomed:
            self._delete(doomed)
        return len(doomed)

    def _delete(self, doomed: list[tuple[int]]) -> None:
        with self.write(self.keyed, "queue.settle") as connection:
            connection.executemany("DELETE FROM keys.idempotency WHERE task_id ="
                                   f" (SELECT task_id FROM {TABLE} WHERE _id = ?)", doomed)
            connection.executemany(f"DELETE FROM {TABLE} WHERE _id = ?", doomed)
            connection.execute("DELETE FROM tally WHERE tasks = 0")

    def aged(self, instance_key: str, age_before: float, limit: int) -> list[Task]:
        """Of the oldest waiting tasks of an instance, up to `limit` of a kind, those with `age_base` before that."""
        found = []
        for waiting in (f"status = 1 AND (size >= {BULK_BYTES}) = 0", f"status = 1 AND (size >= {BULK_BYTES}) = 1",
                        "status = 3"):
            rows = self.read(f"SELECT {COLUMNS} FROM {TABLE} WHERE instance = ? AND {waiting} ORDER BY _id LIMIT ?",
                             (instance_key, limit))
            found += [task for row in rows if (task := decode(row)).age_base < age_before]
        return found

    def give_up(self, tasks: Iterable[Task], message: str) -> None:
        """Make dead letters of waiting tasks that were never tried for themselves, durably."""
        with self.write(self.durable, "queue.settle") as connection:
            connection.executemany(
                f"UPDATE {TABLE} SET status = 9, error_code = 'gave_up', error_message = ?, due_at = NULL,"
                " updated_at = ? WHERE _id = ? AND status IN (1, 3)",
                [(message, time.time(), task.order) for task in tasks])

    def old_dead_letters(self, before: float, limit: int) -> list[Task]:
        """Dead letters that failed before that time, oldest first."""
        rows = self.read(f"SELECT {COLUMNS} FROM {TABLE} WHERE status = 9 AND updated_at < ?"
                         " ORDER BY updated_at LIMIT ?", (before, limit))
        return [decode(row) for row in rows]

    def checkpoint(self) -> None:
        """Shrink the write-ahead log if nobody reads from it just now."""
        self.read("PRAGMA wal_checkpoint(TRUNCATE)")


def _selection(text: str | None) -> Selection | None:
    if text is None:
        return None
    values = json.loads(text)
    return Selection(**{**values, "states": tuple(values["states"])})

