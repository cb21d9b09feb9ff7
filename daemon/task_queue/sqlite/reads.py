"""Questions to a shard's queue. None of them takes longer because more is finished or waiting."""

from collections.abc import Iterable, Sequence
from typing import Final

from daemon.model.task import FINISHED, PENDING, State, Task
from daemon.model.upload import Destination, Upload
from daemon.task_queue.sqlite.base import COLUMNS, NEWER, TASK_ID, QueueBase, decode, decode_all
from daemon.task_queue.sqlite.batches import chunks, values
from daemon.task_queue.sqlite.schema import OUTAGE, TABLE, index_for
from daemon.task_queue.values import Standing, Total

#: Rows that are read at once for a page.
_STEP: Final = 100
#: Instances with tasks.
_KNOWN: Final = f"FROM {TABLE} INDEXED BY tasks_by_instance WHERE true"

#: The oldest task of a path that is still to be pushed and comes before one; and one that may have left a part file.
_OLDER: Final = f"SELECT {COLUMNS} FROM {TABLE} WHERE target = ? AND open = 1 AND _id < ? ORDER BY _id LIMIT 1"
_LEFT: Final = (f"SELECT {COLUMNS} FROM {TABLE} INDEXED BY tasks_left WHERE target = ? AND part = 1 AND open = 0"
                " AND _id <> ? LIMIT 1")


def _numbers(states: Iterable[State]) -> str:
    return ",".join(str(int(state)) for state in sorted(states))


#: States of tasks that are not finished. A damaged row may have another number.
_UNFINISHED: Final = frozenset(State) - FINISHED


def _oldest(where: str) -> str:
    """The time of the oldest of the tasks that are not finished, in SQL: each state has its own, first in an index."""
    firsts = (f"((SELECT timestamp FROM {TABLE} WHERE {where} AND status = {int(state)} ORDER BY task_id LIMIT 1))"
              for state in sorted(_UNFINISHED))
    return f"(SELECT min(column1) FROM (VALUES {', '.join(firsts)}))"


class QueueReads(QueueBase):
    """What everyone may ask."""

    def find(self, task_id: str) -> Task | None:
        """The task of that id, or None. Raises ValueError when its row is damaged."""
        rows = self.read(f"SELECT {COLUMNS} FROM {TABLE} WHERE task_id = ?", (task_id,))
        return decode(rows[0]) if rows else None

    def newer_known(self, upload: Upload) -> bool:
        """True when an upload to the same path with a later id has a row."""
        return bool(self.read(f"SELECT 1 FROM {TABLE} WHERE {NEWER} LIMIT 1",
                              (upload.destination.digest, upload.task_id)))

    def blocker(self, task: Task) -> Task | None:
        """The task to the same path that a queued one waits for, or None: what a claim would find in its way."""
        for question in (_OLDER, _LEFT):
            if found := decode_all(self.read(question, (task.destination.digest, task.order))):
                return found[0]
        return None

    def page(
        self, *, states: frozenset[State] = frozenset(), instance_key: str | None = None, client: str | None = None,
        before: str | None = None, limit: int,
    ) -> list[Task]:
        """Up to `limit` tasks, newest id first, with ids under `before`. Damaged rows are left out: fsck has them."""
        # The tasks of an instance, and those of a client, are in order by state.
        everything = instance_key is None and client is None
        wanted: list[State | None] = [*(states or (() if everything else State))] or [None]
        tasks = [task for state in wanted for task in self._page(state, instance_key, client, before, limit)]
        return sorted(tasks, key=lambda task: task.task_id, reverse=True)[:limit]

    def _page(
        self, state: State | None, instance_key: str | None, client: str | None, before: str | None, limit: int,
    ) -> list[Task]:
        index = "" if state is None else f"INDEXED BY {index_for(instance_key, client)}"
        tasks: list[Task] = []
        while True:
            conditions = {"status = ?": state, "instance = ?": instance_key, "client = ?": client,
                          "task_id < ?": before}
            used = {text: value for text, value in conditions.items() if value is not None}
            where = f"WHERE {' AND '.join(used)}" if used else ""
            # A few at a time: what is in damaged rows may be large.
            step = min(limit, _STEP)
            rows = self.read(f"SELECT {COLUMNS} FROM {TABLE} {index} {where} ORDER BY task_id DESC LIMIT ?",
                             (*used.values(), step))
            tasks += decode_all(rows)
            if len(rows) < step or len(tasks) >= limit:
                return tasks[:limit]
            # Damaged rows do not make a page look like the last one.
            before = rows[-1][TASK_ID]

    def totals(self, states: frozenset[State]) -> dict[State, Total]:
        """How many tasks, and of how many bytes, are in each of these states, all at the same moment."""
        # Summed where the counts are: as many as there are instances would keep the interpreter from everybody else.
        rows = self.read("SELECT status, sum(tasks), sum(bytes) FROM tally"
                         f" WHERE status IN ({_numbers(states)}) GROUP BY status")
        return dict.fromkeys(states, Total()) | {State(status): Total(*sums) for status, *sums in rows}

    def client_pending(self, client: str) -> Total:
        """How many tasks of that client are pending, and of how many bytes."""
        rows = self.read("SELECT tasks, bytes FROM clients WHERE client = ?", (client,))
        return Total(*rows[0]) if rows else Total()

    def pending_under(self, client: str) -> Total:
        """How many tasks of that client and of all under it are pending, and of how many bytes."""
        # The character after the slash ends the range.
        [sums] = self.read(
            "SELECT ifnull(sum(tasks), 0), ifnull(sum(bytes), 0) FROM clients"
            " WHERE client = ? OR client >= ? AND client < ?", (client, f"{client}/", f"{client}0"))
        return Total(*sums)

    def busiest(self, limit: int) -> tuple[int, list[str]]:
        """How many instances have tasks that are not finished, and up to `limit` of these, those with most first."""
        rows = self.read(f"SELECT instance, count(*) OVER () FROM tally WHERE status IN ({_numbers(_UNFINISHED)})"
                         " AND tasks > 0 GROUP BY instance ORDER BY sum(tasks) DESC, instance LIMIT ?", (limit,))
        return rows[0][1] if rows else 0, [instance for instance, _ in rows]

    def ranked(self, limit: int, after: tuple[int, str] | None = None) -> tuple[int, list[tuple[str, int]]]:
        """How many instances have tasks that are not finished, and up to `limit` of these, with how many tasks wait.

        Those with most that wait come first, then the order is that of their keys; `after` is a place in it.
        """
        number, key = after or (2**62, "")
        rows = self.read(
            f"SELECT instance, sum(iif(status IN ({_numbers(PENDING)}), tasks, 0)) AS waiting, count(*) OVER ()"
            f" FROM tally WHERE status IN ({_numbers(_UNFINISHED)}) AND tasks > 0 GROUP BY instance"
            " HAVING waiting < ? OR waiting = ? AND instance > ? ORDER BY waiting DESC, instance LIMIT ?",
            (number, number, key, limit))
        return rows[0][2] if rows else 0, [(instance, waiting) for instance, waiting, _ in rows]

    def instance_keys(self, after: str, limit: int) -> list[str]:
        """Up to `limit` instances that have tasks, finished ones too, in the order of their keys from `after` on."""
        return self.step_through(_KNOWN, after, limit)

    def standings(self, instance_keys: Sequence[str]) -> list[Standing]:
        """How each of these instances stands, in the same order."""
        return [standing for some in chunks(instance_keys) for standing in self._standings(some)]

    def _standings(self, keys: Sequence[str]) -> list[Standing]:
        rows = self.read(f"SELECT instance, status, tasks, bytes FROM tally WHERE status IN ({_numbers(State)})"
                         f" AND tasks > 0 AND instance IN ({values(len(keys), 1)})", keys)
        totals: dict[str, dict[State, Total]] = {key: {} for key in keys}
        for instance, status, *sums in rows:
            totals[instance][State(status)] = Total(*sums)
        oldest = self.read(f"SELECT column1, {_oldest('instance = asked.column1')}"
                           f" FROM ({values(len(keys), 1)}) AS asked", keys)
        return [Standing(instance_key=key, totals=totals[key], oldest_at=at) for key, at in oldest]

    def oldest_at(self) -> float | None:
        """When the oldest task that is not finished was accepted (seconds since the epoch), or None."""
        at: float | None = self.read(f"SELECT {_oldest('true')}")[0][0]
        return at

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

