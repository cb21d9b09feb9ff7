"""Questions to a shard's queue. None of them takes longer because more is finished or waiting."""

from typing import Final

from daemon.model.task import State, Task
from daemon.model.upload import Destination
from daemon.task_queue.sqlite.base import COLUMNS, TASK_ID, QueueBase, decode, decode_all
from daemon.task_queue.sqlite.schema import OUTAGE, TABLE
from daemon.task_queue.values import Tally, Total

#: A damaged row may have another.
_NUMBERS: Final = frozenset(State)


class QueueReads(QueueBase):
    """What everyone may ask."""

    def find(self, task_id: str) -> Task | None:
        """The task of that id, or None. Raises ValueError when its row is damaged."""
        rows = self.read(f"SELECT {COLUMNS} FROM {TABLE} WHERE task_id = ?", (task_id,))
        return decode(rows[0]) if rows else None

    def page(
        self, *, states: frozenset[State] = frozenset(), instance_key: str | None = None, before: str | None = None,
        limit: int,
    ) -> list[Task]:
        """Up to `limit` tasks, newest id first, with ids under `before`. Damaged rows are left out: fsck has them."""
        # The tasks of an instance are in order by state.
        wanted: list[State | None] = [*(states or (State if instance_key else ()))] or [None]
        tasks = [task for state in wanted for task in self._page(state, instance_key, before, limit)]
        return sorted(tasks, key=lambda task: task.task_id, reverse=True)[:limit]

    def _page(self, state: State | None, instance_key: str | None, before: str | None, limit: int) -> list[Task]:
        index = "" if state is None else f"INDEXED BY {'tasks_by_instance' if instance_key else 'tasks_by_state'}"
        tasks: list[Task] = []
        while True:
            conditions = {"status = ?": state, "instance = ?": instance_key, "task_id < ?": before}
            used = {text: value for text, value in conditions.items() if value is not None}
            where = f"WHERE {' AND '.join(used)}" if used else ""
            rows = self.read(f"SELECT {COLUMNS} FROM {TABLE} {index} {where} ORDER BY task_id DESC LIMIT ?",
                             (*used.values(), limit))
            tasks += decode_all(rows)
            if len(rows) < limit or len(tasks) >= limit:
                return tasks[:limit]
            # Damaged rows do not make a page look like the last one.
            before = rows[-1][TASK_ID]

    def totals(self, states: frozenset[State]) -> dict[State, Total]:
        """How many tasks, and of how many bytes, are in each of these states, all at the same moment."""
        # Summed where the counts are: as many as there are instances would keep the interpreter from everybody else.
        numbers = ",".join(str(int(state)) for state in sorted(states))
        rows = self.read("SELECT status, sum(tasks), sum(bytes) FROM tally"
                         f" WHERE status IN ({numbers}) GROUP BY status")
        return dict.fromkeys(states, Total()) | {State(status): Total(*sums) for status, *sums in rows}

    def tallies(self) -> list[Tally]:
        """How many tasks, and of how many bytes, each instance has in each state."""
        rows = self.read("SELECT instance, status, tasks, bytes FROM tally WHERE tasks > 0")
        return [Tally(instance, State(status), tasks, size) for instance, status, tasks, size in rows
                if status in _NUMBERS]

    def oldest_at(self, instance_key: str) -> float | None:
        """When the oldest task of an instance that is not finished was accepted; None when there is none."""
        times = [
            self.read(f"SELECT timestamp FROM {TABLE} WHERE status = ? AND instance = ? ORDER BY task_id LIMIT 1",
                      (state, instance_key))
            for state in (State.QUEUED, State.PUSHING, State.DEFERRED, State.HELD, State.FAILED)
        ]
        return min((rows[0][0] for rows in times if rows), default=None)

    def newer_exists(self, target: bytes, order: int) -> bool:
        """True when an upload to the same destination was accepted after the one of that order.

        Also when that one is finished and cleared, as long as the older task is there.
        """
        return bool(self.read(f"SELECT 1 FROM {TABLE} WHERE target = ? AND open IN (0, 1) AND _id > ?"
                              f" UNION ALL SELECT 1 FROM {TABLE} WHERE target = ? AND _id = ? AND outrun = 1 LIMIT 1",
                              (target, order, target, order)))

    def fact(self, name: str) -> str | None:
        """A remembered fact about the shard, or None."""
        rows = self.read("SELECT value FROM facts WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    def outage_s(self, destination: Destination) -> float:
        """For how many seconds nothing could be delivered there, as far as is known.

        No worker ran, the remote could not be reached, or the instance was waited for.
        """
        return float(self.read(f"SELECT {OUTAGE}", destination.clocks)[0][0])

