"""Working off a shard's queue: claim, settle, hand back. Only for the worker that holds the shard's lock."""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from daemon import failpoints
from daemon.errors import QueueFault
from daemon.model.counters import (
    DELIVERED_BYTES,
    END_TO_END_SECONDS,
    PUSH_SECONDS,
    Key,
    attempts,
    finished,
    observed,
)
from daemon.model.task import OUTCOMES, State, Task
from daemon.task_queue.sqlite.base import COLUMNS, QueueBase, decode, decode_all
from daemon.task_queue.sqlite.batches import chunks, values
from daemon.task_queue.sqlite.counters import count
from daemon.task_queue.sqlite.history import APPENDED, to_json
from daemon.task_queue.sqlite.schema import TABLE
from daemon.task_queue.values import BULK_BYTES, Settled, Settlement

#: What a wish for a task does to the states in which a push can leave it; a delivery is a delivery.
_GRANTED: Final = {
    State.CANCELLED: frozenset({State.QUEUED, State.DEFERRED, State.FAILED, State.HELD}),
    State.HELD: frozenset({State.QUEUED, State.DEFERRED}),
}
#: States of a task that is still to be pushed.
_OPEN: Final = frozenset({State.QUEUED, State.PUSHING, State.DEFERRED})
_SUPERSEDED: Final = finished(State.SUPERSEDED)
_OLDER_IS_OPEN: Final = (f"EXISTS (SELECT 1 FROM {TABLE} AS older"
                         " WHERE older.target = mine.target AND older.open = 1 AND older._id < mine._id)")
_PART_IS_LEFT: Final = (f"EXISTS (SELECT 1 FROM {TABLE} AS other INDEXED BY tasks_left"
                        " WHERE other.target = mine.target AND other.part = 1 AND other.open = 0)")
#: Instances with queued tasks.
_READY: Final = f"FROM {TABLE} INDEXED BY tasks_lane WHERE status = 1 AND behind = 0"
#: Also one that was there and is cleared.
_NEWER_EXISTS: Final = (f"({TABLE}.outrun = 1 OR EXISTS (SELECT 1 FROM {TABLE} AS newer"
                        f" WHERE newer.target = {TABLE}.target AND newer.open IN (0, 1) AND newer._id > {TABLE}._id))")


class QueueWork(QueueBase):
    """What a worker may do besides: claim tasks, settle them, hand them back."""

    def ready_instances(self, after: str, limit: int) -> list[str]:
        """Instances with queued tasks, in the order of their keys from `after` on: at most `limit` of them."""
        return self.step_through(_READY, after, limit)

    def ready_among(self, keys: Sequence[str]) -> list[str]:
        """Those of `keys` whose instances have queued tasks, in the same order."""
        found: list[str] = []
        for some in chunks(keys):
            found += [row[0] for row in self.read(
                f"SELECT column1 FROM ({values(len(some), 1)})"
                f" WHERE EXISTS (SELECT 1 {_READY} AND instance = column1)", some)]
        return found

    def arrivals(self, after_order: int, limit: int) -> tuple[int, list[str]]:
        """The newest order, and the instances of the newest tasks after `after_order`, up to `limit`, newest first."""
        rows = self.read(f"SELECT _id, instance FROM {TABLE} WHERE _id > ? ORDER BY _id DESC LIMIT ?",
                         (after_order, limit))
        return rows[0][0] if rows else after_order, list(dict.fromkeys(row[1] for row in rows))

    def claim(self, instance_key: str, limit: int, *, bulk: bool = False, share: float = 0.0) -> list[Task]:
        """Take up to `limit` queued tasks of an instance, small ones or bulky ones, and return them in order.

        They are the oldest; or, if any of these may be taken, those that come after `share` (0 to less than 1) of all.
        A task waits while an older one for its path is still to be pushed, or one that is not may have left its part
        file: a rename that hangs somewhere on its way would put other bytes over its own. A crash of the machine may
        undo a claim: the task is then still queued. A row that cannot be read becomes a dead letter.
        Raises QueueFault; what `doubtful_claims` has then must be settled before the next claim.
        """
        tasks: list[Task] = []
        # Most instances have none, and a question costs less than a transaction.
        if bulk and not self.read(f"SELECT 1 {_READY} AND instance = ? AND (size >= {BULK_BYTES}) = 1 LIMIT 1",
                                  (instance_key,)):
            return tasks
        try:
            with self.write(self.quick, "queue.claim") as connection:
                first = self._first(connection, instance_key, bulk, share) if share else 0
                tasks = self._claim(connection, instance_key, limit, bulk, first)
                if first and not tasks:
                    tasks = self._claim(connection, instance_key, limit, bulk, 0)
            if tasks:
                failpoints.reach("queue.claimed")
        except (QueueFault, OSError):
            self._doubtful += tasks
            raise
        return sorted(tasks, key=lambda task: task.order)

    @staticmethod
    def _first(connection: sqlite3.Connection, instance_key: str, bulk: bool, share: float) -> int:
        queued = (f"FROM {TABLE} INDEXED BY tasks_lane WHERE instance = :instance AND status = 1 AND behind = 0"
                  f" AND (size >= {BULK_BYTES}) = :bulk")
        # One by one: for both at once SQLite would read all that lies between.
        oldest, newest = connection.execute(
            f"SELECT (SELECT min(_id) {queued}), (SELECT max(_id) {queued})",
            {"instance": instance_key, "bulk": bulk}).fetchone()
        return 0 if oldest is None else oldest + int(share * (newest - oldest + 1))

    def _claim(
        self, connection: sqlite3.Connection, instance_key: str, limit: int, bulk: bool, first: int,
    ) -> list[Task]:
        rows = connection.execute(
            f"UPDATE {TABLE} SET status = 2, updated_at = ? WHERE _id IN ("
            f" SELECT _id FROM {TABLE} AS mine INDEXED BY tasks_lane WHERE instance = ? AND status = 1"
            f" AND behind = 0 AND (size >= {BULK_BYTES}) = ? AND _id >= ? AND NOT {_OLDER_IS_OPEN}"
            f" AND NOT {_PART_IS_LEFT}"
            f" ORDER BY _id LIMIT ?) RETURNING {COLUMNS}",
            (time.time(), instance_key, bulk, first, limit)).fetchall()
        tasks = [task for row in rows if (task := _decode_or_fail(connection, row))]
        self.met_damaged_row |= len(tasks) < len(rows)
        return tasks

    def doubtful_claims(self) -> list[Task]:
        """Take the tasks whose claim failed, perhaps after it had reached the disk: nobody pushes them."""
        tasks, self._doubtful = self._doubtful, []
        return tasks

    def settle(self, settlements: Iterable[Settlement], *, supersede: bool = True) -> Settled:
        """Record what became of claimed tasks, in one durable transaction.

        What a person wished for a task while it was pushed is granted, unless it was delivered. With `supersede`, a
        task that is not pushed any more but not finished either, while a newer one to its path was accepted, is
        superseded. Raises QueueFault.
        """
        now = time.time()
        with self.write(self.durable, "queue.settle") as connection:
            wishes = dict(connection.execute(f"SELECT _id, wish FROM {TABLE} WHERE wish IS NOT NULL").fetchall())
            asked = list(settlements)
            granted = [_grant(settlement, wishes.get(settlement.order)) for settlement in asked]
            otherwise = {after.order for before, after in zip(asked, granted, strict=True) if after is not before}
            written = sum(_write_down(connection, some, now) for some in chunks(granted))
            waiting = [s.order for s in granted if s.state in {State.QUEUED, State.DEFERRED}] if supersede else []
            superseded = [order for order in waiting if connection.execute(
                f"UPDATE {TABLE} SET status = 6, due_at = NULL, error_code = NULL,"
                " error_message = 'A newer upload replaced it.'"
                f" WHERE _id = ? AND status IN (1, 3) AND {_NEWER_EXISTS}", (order,)).rowcount]
            settled = granted if written == len(granted) else _those_written(connection, granted, now)
            count(connection, _counted(settled, len(superseded), now))
        failpoints.reach("queue.settled")
        wished = {s.order: s.state for s in granted if s.order in otherwise}
        return Settled(superseded=frozenset(superseded),
                       cancelled=frozenset(order for order, state in wished.items() if state is State.CANCELLED),
                       held=frozenset(order for order, state in wished.items() if state is State.HELD))

    def left_pushing(self) -> list[Task]:
        """Tasks that a worker that died was pushing, but for those of which a person wished something else."""
        return decode_all(self.read(
            f"SELECT {COLUMNS} FROM {TABLE} INDEXED BY tasks_pushing WHERE status = 2 AND wish IS NULL"))

    def resume(self, *, supersede: bool) -> int:
        """Queue again what a worker that died was pushing; return how many. Only for the lock's holder.

        What a person wished for such a task, or a newer upload to its path, comes first. A task that waits for an
        older one of its path, which damage took away, waits no longer. Each may have left a part file.
        """
        with self.write(self.durable, "queue.settle") as connection:
            connection.execute(
                f"UPDATE {TABLE} SET behind = 0 WHERE _id IN ("
                f" SELECT _id FROM {TABLE} AS mine INDEXED BY tasks_behind WHERE behind = 1 AND NOT {_OLDER_IS_OPEN})")
            left = connection.execute(
                f"UPDATE {TABLE} SET status = CASE WHEN wish IS NOT NULL THEN wish"
                f" WHEN ? AND {_NEWER_EXISTS} THEN 6 ELSE 1 END, wish = NULL, part = 1, updated_at = ?"
                " WHERE status = 2 RETURNING status", (supersede, time.time())).fetchall()
            count(connection, Counter(finished(State(status)) for (status,) in left if status in OUTCOMES))
        return len(left)

    def promote_due(self, now: float, limit: int) -> int:
        """Queue again up to `limit` deferred tasks whose time has come; return how many."""
        return self._queue_again("tasks_due", "due_at <= ? ORDER BY due_at", now, limit)

    def next_due_at(self) -> float | None:
        """When the next deferred task is due, in seconds since the epoch; None when none is deferred."""
        due: float | None = self.read(f"SELECT min(due_at) FROM {TABLE} INDEXED BY tasks_due WHERE status = 3")[0][0]
        return due

    def release_late(self, latest: float, limit: int) -> int:
        """Queue again up to `limit` deferred tasks that are due after `latest`; return how many.

        No task is put off so far: the clock was set back since.
        """
        last = self.read(f"SELECT max(due_at) FROM {TABLE} INDEXED BY tasks_due WHERE status = 3")[0][0]
        if last is None or last <= latest:
            return 0
        return self._queue_again("tasks_due", "due_at > ? ORDER BY due_at", latest, limit)

    def release_instance(self, instance_key: str, limit: int) -> int:
        """Queue again up to `limit` deferred tasks of one instance, whatever their time; return how many."""
        return self._queue_again("tasks_deferred", "instance = ? ORDER BY _id", instance_key, limit)

    def _queue_again(self, index: str, which: str, value: object, limit: int) -> int:
        with self.write(self.quick, "queue.claim") as connection:
            return int(connection.execute(
                f"UPDATE {TABLE} SET status = 1, due_at = NULL WHERE _id IN ("
                f" SELECT _id FROM {TABLE} INDEXED BY {index} WHERE status = 3 AND {which} LIMIT ?)",
                (value, limit)).rowcount)


def _write_down(connection: sqlite3.Connection, settlements: Sequence[Settlement], now: float) -> int:
    """Write settlements into the rows of tasks that are being pushed; return how many."""
    rows = [(s.order, s.state, s.state in _OPEN, s.attempts, s.error_code, s.error_message, s.due_at, s.spooled, s.part,
             s.ageless_s, to_json(s.attempt)) for s in settlements]
    return connection.execute(
        f"UPDATE {TABLE} SET status = column2, open = column3, attempts = coalesce(column4, attempts),"
        " error_code = column5, error_message = column6, due_at = column7, spooled = column8,"
        " part = coalesce(column9, part), outrun = outrun OR (column5 IS 'order_unknown' AND NOT column3),"
        " recheck = recheck AND column2 IN (1, 3), wish = NULL, age_base = age_base + column10,"
        f" history = {APPENDED.format('column11')}, updated_at = ?"
        f" FROM ({values(len(rows), 11)}) WHERE _id = column1 AND status = 2",
        [now, *(value for row in rows for value in row)]).rowcount


def _those_written(
    connection: sqlite3.Connection, settlements: Sequence[Settlement], now: float,
) -> list[Settlement]:
    """Those whose tasks were being pushed: others may be settled already, or gone."""
    orders = {order for (order,) in connection.execute(
        f"SELECT _id FROM {TABLE} WHERE _id IN (SELECT value FROM json_each(?)) AND updated_at = ?",
        (json.dumps([settlement.order for settlement in settlements]), now))}
    return [settlement for settlement in settlements if settlement.order in orders]


def _counted(settlements: Sequence[Settlement], superseded: int, now: float) -> dict[Key, float]:
    """What counters grow by when these are settled."""
    grown: dict[Key, float] = {}
    pushed: list[float] = []
    delivered: list[float] = []
    size_bytes = 0
    ends = Counter([(s.state, s.attempt and (s.attempt.code or "")) for s in settlements])
    for (state, code), number in ends.items():
        if code is not None:
            grown[attempts(state.label, code)] = number
        if state in OUTCOMES:
            grown[finished(state)] = grown.get(finished(state), 0) + number
    if superseded:
        grown[_SUPERSEDED] = grown.get(_SUPERSEDED, 0) + superseded
    for settlement in settlements:
        if settlement.attempt is not None:
            pushed.append(settlement.attempt.duration_s)
        if settlement.state is State.DELIVERED and settlement.upload is not None:
            size_bytes += settlement.upload.size
            delivered.append(max(0.0, now - settlement.upload.created_at))
    if size_bytes:
        grown[DELIVERED_BYTES] = size_bytes
    return {**grown, **observed(PUSH_SECONDS, pushed), **observed(END_TO_END_SECONDS, delivered)}


def _decode_or_fail(connection: sqlite3.Connection, row: Sequence[Any]) -> Task | None:
    try:
        return decode(row)
    except ValueError as error:
        connection.execute(
            f"UPDATE {TABLE} SET status = 9, error_code = 'invalid_row', error_message = ? WHERE _id = ?",
            (f"The row is damaged: {error}", row[0]))
        count(connection, {finished(State.FAILED): 1})
        return None


def _grant(settlement: Settlement, wish: int | None) -> Settlement:
    if wish is None or settlement.state not in _GRANTED[State(wish)]:
        return settlement
    return replace(settlement, state=State(wish), due_at=None)
