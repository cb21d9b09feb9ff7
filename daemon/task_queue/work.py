"""Working off a shard's queue: claim, settle, hand back. Only for the worker that holds the shard's lock."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from daemon import seam
from daemon.errors import CourierError
from daemon.task import State, Task
from daemon.task_queue.base import COLUMNS, QueueBase, decode
from daemon.task_queue.schema import BULK_BYTES, TABLE

_NEWER_EXISTS: Final = (f"EXISTS (SELECT 1 FROM {TABLE} AS newer"
                        f" WHERE newer.target = {TABLE}.target AND newer._id > {TABLE}._id)")


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """What became of a task that was being pushed."""

    order: int
    state: State
    attempts: int
    error_code: str | None = None
    error_message: str | None = None
    due_at: float | None = None
    spooled: bool = True


class QueueWork(QueueBase):
    """What a worker may do besides: claim tasks, settle them, hand them back."""

    def ready_instances(self, after: str, limit: int) -> list[str]:
        """Instances with queued tasks, in the order of their keys from `after` on: at most `limit` of them."""
        rows = self.read("SELECT instance FROM tally WHERE status = 1 AND tasks > 0 AND instance > ?"
                          " ORDER BY instance LIMIT ?", (after, limit))
        return [row[0] for row in rows]

    def claim(self, instance_key: str, limit: int, *, bulk: bool = False) -> list[Task]:
        """Take up to `limit` queued tasks of an instance, small ones or bulky ones, and return them in order.

        A task waits while an older one for its path is still to be pushed. A crash of the machine may undo a
        claim: the task is then still queued. A row that cannot be read becomes a dead letter. Raises QueueFault.
        """
        with self.write(self.quick, "queue.claim") as connection:
            rows = connection.execute(
                f"UPDATE {TABLE} SET status = 2, updated_at = ? WHERE _id IN ("
                f" SELECT _id FROM {TABLE} AS mine WHERE instance = ? AND status = 1"
                f" AND (size >= {BULK_BYTES}) = ? AND NOT EXISTS ("
                f"  SELECT 1 FROM {TABLE} AS older INDEXED BY tasks_rivals"
                "   WHERE older.target = mine.target AND older._id < mine._id AND older.status IN (1, 2, 3))"
                f" ORDER BY _id LIMIT ?) RETURNING {COLUMNS}",
                (time.time(), instance_key, bulk, limit)).fetchall()
        return [task for row in sorted(rows, key=lambda row: int(row[0])) if (task := self._decode_or_fail(row))]

    def _decode_or_fail(self, row: Sequence[Any]) -> Task | None:
        try:
            return decode(row)
        except (ValueError, CourierError) as error:
            self.settle([Settlement(order=row[0], state=State.FAILED, attempts=row[3], error_code="invalid_row",
                                    error_message=f"The row is damaged: {error}")])
            return None

    def settle(self, settlements: Iterable[Settlement], *, supersede: bool = True) -> list[str]:
        """Record what became of claimed tasks, in one durable transaction.

        With `supersede`, a task that is not pushed any more but not finished either, while a newer one to its path
        was accepted, is superseded; the ids of these are returned. Raises QueueFault.
        """
        now = time.time()
        settlements = list(settlements)
        waiting = [s.order for s in settlements if s.state in {State.QUEUED, State.DEFERRED}] if supersede else []
        replaced = []
        with self.write(self.durable, "queue.settle") as connection:
            connection.executemany(
                f"UPDATE {TABLE} SET status = ?, attempts = ?, error_code = ?, error_message = ?, due_at = ?,"
                " spooled = ?, recheck = recheck AND ? = 1, updated_at = ? WHERE _id = ? AND status = 2",
                [(s.state, s.attempts, s.error_code, s.error_message, s.due_at, s.spooled, s.state, now, s.order)
                 for s in settlements])
            for order in waiting:
                replaced += connection.execute(
                    f"UPDATE {TABLE} SET status = 6, due_at = NULL, error_message = 'A newer upload replaced it.'"
                    f" WHERE _id = ? AND status IN (1, 3) AND {_NEWER_EXISTS} RETURNING task_id", (order,)).fetchall()
        seam.reach("queue.settled")
        return [row[0] for row in replaced]

    def resume(self, *, supersede: bool) -> int:
        """Queue again what a worker that died was pushing; return how many. Only for the lock's holder."""
        with self.write(self.durable, "queue.settle") as connection:
            return int(connection.execute(
                f"UPDATE {TABLE} SET status = CASE WHEN ? AND {_NEWER_EXISTS} THEN 6 ELSE 1 END, updated_at = ?"
                " WHERE status = 2", (supersede, time.time())).rowcount)

    def promote_due(self, now: float, limit: int) -> int:
        """Queue again up to `limit` deferred tasks whose time has come; return how many."""
        with self.write(self.quick, "queue.claim") as connection:
            return int(connection.execute(
                f"UPDATE {TABLE} SET status = 1, due_at = NULL WHERE _id IN ("
                f" SELECT _id FROM {TABLE} WHERE status = 3 AND due_at <= ? ORDER BY due_at LIMIT ?)",
                (now, limit)).rowcount)

    def next_due_at(self) -> float | None:
        """When the next deferred task is due, in seconds since the epoch; None when none is deferred."""
        due: float | None = self.read(f"SELECT min(due_at) FROM {TABLE} WHERE status = 3")[0][0]
        return due

    def release_instance(self, instance_key: str, limit: int) -> int:
        """Queue again up to `limit` deferred tasks of one instance, whatever their time; return how many."""
        with self.write(self.quick, "queue.claim") as connection:
            return int(connection.execute(
                f"UPDATE {TABLE} SET status = 1, due_at = NULL WHERE _id IN ("
                f" SELECT _id FROM {TABLE} WHERE status = 3 AND instance = ? ORDER BY _id LIMIT ?)",
                (instance_key, limit)).rowcount)
