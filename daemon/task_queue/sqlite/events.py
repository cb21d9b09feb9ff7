"""What happened to the tasks of a shard, in order: read by whoever follows them, kept for a while.

Triggers write it (`schema`), so no change of a state goes without. Writers come one after the other, so numbers become
visible in their order. What a crash of the machine takes back may have been read before (`numbers`).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from daemon.errors import QueueFault
from daemon.model.task import State, Task
from daemon.model.upload import END_OF_TIME_S
from daemon.task_queue.sqlite import numbers
from daemon.task_queue.sqlite.base import COLUMNS, QueueBase, decode_all, is_told
from daemon.task_queue.sqlite.schema import CURSOR_FACT, EPOCH_FACT, TABLE
from daemon.task_queue.values import Event, Happened, Position

_NEW_EPOCH: Final = "lower(hex(randomblob(6)))"
_EPOCH: Final = re.compile(r"[0-9a-f]{12}")
_FACT: Final = "(SELECT value FROM facts WHERE name = ?)"
_BOUNDS: Final = (f"SELECT {_FACT}, (SELECT min(seq) FROM events),"
                  " coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0),"
                  f" {_FACT}")


@dataclass(frozen=True, slots=True)
class _Bounds:
    epoch: str
    #: The oldest number that is kept, if there is one, and the newest that was given.
    oldest: int | None
    newest: int
    #: The last of each stretch of numbers that was left out.
    left_out: tuple[int, ...]

    def reaches_back_to(self, after: Position) -> bool:
        """True when nothing is missing after that position: the event that follows is there, or none was given yet."""
        if after.epoch != self.epoch or after.seq > self.newest:
            return False
        seq = numbers.settled(after.seq, self.left_out)
        return seq == self.newest or (self.oldest is not None and seq + 1 >= self.oldest)


class QueueEvents(QueueBase):
    """Following what happens, and letting go of what is old."""

    def position(self) -> Position:
        """Where the newest event is."""
        bounds = self._bounds()
        return Position(bounds.epoch, bounds.newest)

    def happened(self, after: Position, limit: int, *, tasks: bool = False) -> Happened:
        """Up to `limit` events after a position, oldest first; with `tasks` also how their tasks stand."""
        rows = self.read("SELECT seq, task_id, status, at, code FROM events WHERE seq > ? ORDER BY seq LIMIT ?",
                         (after.seq, limit))
        # Only now: what is there still was there before, but not the other way round.
        bounds = self._bounds()
        if not bounds.reaches_back_to(after):
            return Happened((), Position(bounds.epoch, bounds.newest), lost=True)
        events = tuple(event for row in rows if (event := event_of(row)) is not None)
        found = self.find_all([event.task_id for event in events]) if tasks and events else []
        return Happened(events, Position(bounds.epoch, rows[-1][0] if rows else after.seq), lost=False,
                        tasks={task.task_id: task for task in found})

    def find_all(self, task_ids: Sequence[str]) -> list[Task]:
        """Those of these tasks that are there; damaged ones are left out."""
        return decode_all(self.read(
            f"SELECT {COLUMNS} FROM {TABLE} WHERE task_id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(task_ids)),)))

    def forget_events(self, before: float, keep_most: int, limit: int) -> int:
        """Forget up to `limit` events from before then, or beyond the newest `keep_most`; return how many.

        What webhooks have yet to be told stays.
        """
        told = self.told_up_to()
        rows = self.read("SELECT seq, at FROM events WHERE seq <= coalesce(?, seq) ORDER BY seq LIMIT ?",
                         (None if told is None else told.seq, limit))
        if not rows:
            return 0
        bounds = self._bounds()
        beyond = numbers.newest_to_forget(bounds.newest, keep_most, bounds.left_out)
        last = max((seq for seq, at in rows if at < before or seq <= beyond), default=None)
        if last is None:
            return 0
        with self.write(self.quick, "queue.unspool") as connection:
            return int(connection.execute("DELETE FROM events WHERE seq <= ?", (last,)).rowcount)

    def leave_numbers_out(self, *, in_any_case: bool = False) -> None:
        """After a restart of the machine: no number that may have been read stands for another event, durably."""
        with self.write(self.durable, "queue.settle") as connection:
            numbers.leave_out(connection, in_any_case=in_any_case)

    def begin_epoch(self) -> None:
        """Nobody goes on from a position of before, durably: tasks came from other shards, or went there."""
        with self.write(self.durable, "queue.settle") as connection:
            connection.execute(f"INSERT OR REPLACE INTO facts VALUES (?, {_NEW_EPOCH})", (EPOCH_FACT,))
            connection.execute("DELETE FROM events")
            connection.execute(
                "UPDATE facts SET value = (SELECT value FROM facts WHERE name = ?) || ' ' ||"
                " coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0) WHERE name = ?",
                (EPOCH_FACT, CURSOR_FACT))

    def told_up_to(self) -> Position | None:
        """Up to where webhooks have been told; None where they are not."""
        rows = self.read("SELECT value FROM facts WHERE name = ?", (CURSOR_FACT,))
        if not rows:
            return None
        epoch, _, seq = str(rows[0][0]).partition(" ")
        if not (seq.isascii() and seq.isdigit() and len(seq) < 20):
            raise QueueFault("queue_damaged", "The queue's database: it does not say what webhooks have been told.")
        return Position(epoch, int(seq))

    def _bounds(self) -> _Bounds:
        epoch, oldest, newest, left_out = self.read(_BOUNDS, (EPOCH_FACT, numbers.LEFT_OUT_FACT))[0]
        if not isinstance(epoch, str) or _EPOCH.fullmatch(epoch) is None or not isinstance(newest, int):
            raise QueueFault("queue_damaged", "The queue's database has no epoch.")
        return _Bounds(epoch, oldest, newest, numbers.read_ends(left_out))


def event_of(row: Sequence[Any]) -> Event | None:
    """The event of a row: number, task, state, time, code. None where it, or the row of its task, was damaged."""
    seq, task_id, status, at, code = row
    try:
        sound = isinstance(task_id, str) and is_told(code) and 0 <= at < END_OF_TIME_S
        return Event(seq=seq, task_id=task_id, state=State(status), at=float(at), code=code) if sound else None
    except (ValueError, TypeError):
        return None
