"""Upkeep of a shard's queue: what is finished, what has grown old, in small steps; its clocks and facts."""

import json
import time
from collections.abc import Iterable
from typing import Any, Final

from daemon.model.counters import finished
from daemon.model.task import State, Task
from daemon.task_queue.sqlite.base import COLUMNS, QueueBase, decode_all, decode_or_none
from daemon.task_queue.sqlite.connect import BUSY_TIMEOUT_S
from daemon.task_queue.sqlite.counters import count
from daemon.task_queue.sqlite.history import LAST_ELSEWHERE
from daemon.task_queue.sqlite.schema import TABLE
from daemon.task_queue.values import BULK_BYTES

#: Counts of nothing that are removed at once.
_COUNTS_AT_ONCE: Final = 20_000
#: How long shrinking the write-ahead log may hold up others.
_CHECKPOINT_PATIENCE_MS = 200


class QueueUpkeep(QueueBase):
    """Clocks and facts; unspooling, clearing and expiring."""

    def delete_rows(self, orders: Iterable[int]) -> None:
        """Forget tasks whose bytes are gone, and their idempotency keys."""
        doomed = [(order,) for order in orders]
        if doomed:
            self._delete(doomed)

    # --- outages and facts -------------------------------------------------------------------------------

    def add_outages(self, seconds: dict[str, float]) -> None:
        """Add to the times for which remotes or instances were away; the empty name stands for the worker itself."""
        with self.write(self.quick, "queue.claim") as connection:
            connection.executemany("INSERT INTO outages VALUES (?, ?) ON CONFLICT DO UPDATE"
                                   " SET seconds = seconds + excluded.seconds", seconds.items())

    def remember(self, name: str, value: str) -> None:
        """Remember a fact about the shard, durably."""
        with self.write(self.durable, "queue.settle") as connection:
            connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    # --- part files that may be left -----------------------------------------------------------------------

    def next_with_parts(self, after: str) -> str | None:
        """The next instance, in the order of their keys, in which there may be part files to remove, or None."""
        found: str | None = self.read(f"SELECT min(instance) FROM {TABLE} INDEXED BY tasks_parts"
                                      " WHERE part = 1 AND open = 0 AND instance > ?", (after,))[0][0]
        return found

    def left_parts(self, instance_key: str, limit: int) -> list[Task]:
        """Tasks of an instance that are not to be pushed (any more) and may have left a part file, oldest first.

        Damaged rows are left out, and count towards the limit: `forget_unreadable_parts` comes first.
        """
        return decode_all(self._rows_with_parts(instance_key, limit))

    def forget_unreadable_parts(self, instance_key: str, limit: int) -> None:
        """Record that damaged rows have no part file: they do not say where. `limit` as for `left_parts`."""
        for row in self._rows_with_parts(instance_key, limit):
            if decode_or_none(row) is None:
                self.forget_part(row[0])

    def _rows_with_parts(self, instance_key: str, limit: int) -> list[Any]:
        return self.read(f"SELECT {COLUMNS} FROM {TABLE} INDEXED BY tasks_parts"
                         " WHERE part = 1 AND open = 0 AND instance = ? ORDER BY _id LIMIT ?", (instance_key, limit))

    def suspect_claims(self, most: int) -> None:
        """Note, durably, that up to `most` queued tasks of a kind may have left a part file in each instance.

        For after a crash of the machine, which may have undone their claims.
        """
        first = (f"SELECT _id FROM {TABLE} INDEXED BY tasks_lane WHERE instance = ? AND status = 1 AND behind = 0"
                 f" AND (size >= {BULK_BYTES}) = ? ORDER BY _id LIMIT ?")
        with self.write(self.durable, "queue.settle") as connection:
            waiting = connection.execute("SELECT instance FROM tally WHERE status = 1 AND tasks > 0").fetchall()
            connection.executemany(f"UPDATE {TABLE} SET part = 1 WHERE _id IN ({first})",
                                   [(key, bulky, most) for (key,) in waiting for bulky in (False, True)])

    def forget_part(self, order: int) -> None:
        """Record that a task has no part file. Not durable by itself: looking for it twice does no harm."""
        with self.write(self.quick, "queue.unspool") as connection:
            connection.execute(f"UPDATE {TABLE} SET part = 0 WHERE _id = ?", (order,))

    # --- what is finished --------------------------------------------------------------------------------

    def recheck_unsynced(self, elsewhere: str | None = None) -> int:
        """Queue again, to be compared, what was delivered before a crash with its bytes still there.

        With `elsewhere` only what may be on another machine, in that instance or remote.
        """
        which, wanted = "", tuple[str, ...]()
        if elsewhere is not None:
            which = f" AND {LAST_ELSEWHERE} AND substr(mine.instance, 1, length(?1)) = ?1" + (
                "" if elsewhere.endswith("/") else " AND mine.instance = ?1")
            wanted = (elsewhere,)
        with self.write(self.durable, "queue.settle") as connection:
            return int(connection.execute(
                f"UPDATE {TABLE} AS mine INDEXED BY tasks_unspool SET status = 1, recheck = 1"
                " WHERE spooled = 1 AND status IN (5, 6, 7) AND status = 5 AND NOT EXISTS ("
                f" SELECT 1 FROM {TABLE} AS newer"
                f" WHERE newer.target = mine.target AND newer.open IN (0, 1) AND newer._id > mine._id){which}", wanted
            ).rowcount)

    def unspoolable(self, limit: int, after_order: int = 0) -> list[Task]:
        """Finished tasks whose bytes are still in the spool, oldest first; not those whose path has one up to there."""
        rows = self.read(f"SELECT {COLUMNS} FROM {TABLE} AS mine INDEXED BY tasks_unspool"
                         " WHERE spooled = 1 AND status IN (5, 6, 7) AND _id > ?1 AND (?1 = 0 OR NOT EXISTS ("
                         f" SELECT 1 FROM {TABLE} AS older WHERE older.target = mine.target AND older.open = 0"
                         " AND older._id <= ?1 AND older.spooled = 1 AND older.status IN (5, 6, 7)))"
                         " ORDER BY _id LIMIT ?2", (after_order, limit))
        return decode_all(rows)

    def unspool(self, orders: Iterable[int]) -> None:
        """Record that the bytes of tasks are gone. Not durable by itself: unlinking twice does no harm."""
        with self.write(self.quick, "queue.unspool") as connection:
            connection.execute(f"UPDATE {TABLE} SET spooled = 0 WHERE _id IN (SELECT value FROM json_each(?))",
                               (json.dumps(list(orders)),))

    def clear_finished(self, before: float, keep_most: int, limit: int) -> int:
        """Delete up to `limit` finished rows that are older than `before` or more than `keep_most`; return how many."""
        rows = self.read(f"SELECT _id, updated_at FROM {TABLE} INDEXED BY tasks_clear"
                         " WHERE spooled = 0 AND status IN (5, 6, 7) ORDER BY updated_at LIMIT ?", (limit,))
        old = sum(at < before for _, at in rows)
        # Where all that can be taken now are old enough, nobody needs to know how many there are besides.
        doomed = [(order,) for order, _ in rows[:old if old == len(rows) else max(old, self._finished() - keep_most)]]
        if doomed:
            self._delete(doomed)
        return len(doomed)

    def _finished(self) -> int:
        return int(self.read("SELECT coalesce(sum(tasks), 0) FROM tally WHERE status IN (5, 6, 7)")[0][0])

    def _delete(self, doomed: list[tuple[int]]) -> None:
        with self.write(self.durable, "queue.settle") as connection:
            connection.executemany(
                f"UPDATE {TABLE} SET outrun = 1 WHERE target = (SELECT target FROM {TABLE} WHERE _id = ?)"
                " AND open IN (0, 1) AND _id < ? AND status NOT IN (5, 6, 7)", [(order, order) for (order,) in doomed])
            connection.executemany(f"DELETE FROM {TABLE} WHERE _id = ?", doomed)

    def aged(self, instance_key: str, age_before: float, limit: int) -> list[Task]:
        """Of the oldest waiting tasks of an instance, up to `limit` in a state, those with `age_base` before that."""
        found = []
        for waiting in (State.QUEUED, State.DEFERRED):
            rows = self.read(f"SELECT {COLUMNS} FROM {TABLE} INDEXED BY tasks_by_instance"
                             " WHERE instance = ? AND status = ? ORDER BY task_id LIMIT ?",
                             (instance_key, waiting, limit))
            found += [task for task in decode_all(rows) if task.age_base < age_before]
        return found

    def give_up(self, tasks: Iterable[Task], message: str) -> None:
        """Make dead letters of waiting tasks that were never tried for themselves, durably."""
        with self.write(self.durable, "queue.settle") as connection:
            given_up = connection.executemany(
                f"UPDATE {TABLE} SET status = 9, error_code = 'gave_up', error_message = ?, due_at = NULL,"
                " updated_at = ? WHERE _id = ? AND status IN (1, 3)",
                [(message, time.time(), task.order) for task in tasks]).rowcount
            if given_up > 0:
                count(connection, {finished(State.FAILED): given_up})

    def old_dead_letters(self, before: float, limit: int) -> list[Task]:
        """Dead letters that failed before that time, oldest first."""
        rows = self.read(f"SELECT {COLUMNS} FROM {TABLE} INDEXED BY tasks_expire WHERE status = 9 AND updated_at < ?"
                         " ORDER BY updated_at LIMIT ?", (before, limit))
        return decode_all(rows)

    def compact(self) -> None:
        """Remove some counts of nothing, and shrink the write-ahead log if nobody reads from it just now."""
        nothing = self.read("SELECT status, instance FROM tally WHERE tasks = 0 LIMIT ?", (_COUNTS_AT_ONCE,))
        if nothing:
            with self.write(self.quick, "queue.unspool") as connection:
                connection.executemany("DELETE FROM tally WHERE tasks = 0 AND status = ? AND instance = ?", nothing)
        idle = self.read("SELECT client FROM clients WHERE tasks = 0 LIMIT ?", (_COUNTS_AT_ONCE,))
        if idle:
            with self.write(self.quick, "queue.unspool") as connection:
                connection.executemany("DELETE FROM clients WHERE tasks = 0 AND client = ?", idle)
        self._checkpoint("TRUNCATE")

    def reuse_room(self) -> None:
        """Have the write-ahead log written from its beginning again if nobody reads from it; its room stays its own."""
        self._checkpoint("RESTART")

    def _checkpoint(self, kind: str) -> None:
        with self._lock, self.faults():
            self.quick.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_PATIENCE_MS}")
            try:
                self.quick.execute(f"PRAGMA wal_checkpoint({kind})").fetchall()
            finally:
                self.quick.execute(f"PRAGMA busy_timeout = {round(BUSY_TIMEOUT_S * 1000)}")
