"""What happened to the tasks of a shard, in order: read by whoever follows them, kept for a while.

Triggers write it (`schema`), so no change of a state goes without. What a crash of the machine takes back may have been
read before: after one, a stretch of numbers is left out, so that none stands for two events.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from daemon.errors import QueueFault
from daemon.model.task import State, Task
from daemon.task_queue.sqlite.base import COLUMNS, QueueBase, decode_all
from daemon.task_queue.sqlite.schema import CURSOR_FACT, EPOCH_FACT, TABLE
from daemon.task_queue.values import Event, Happened, Position

#: More events than one crash of the machine can take back.
_LEFT_OUT: Final = 2**20
_NEW_EPOCH: Final = "lower(hex(randomblob(6)))"
#: The epoch, the oldest number that is kept, and the newest that was given.
_BOUNDS: Final = ("SELECT (SELECT value FROM facts WHERE name = ?), (SELECT min(seq) FROM events),"
                  " coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)")


class QueueEvents(QueueBase):
    """Following what happens, and letting go of what is old."""

    def position(self) -> Position:
        """Where the newest event is."""
        epoch, _, newest = self._bounds()
        return Position(epoch, newest)

    def happened(self, after: Position, limit: int) -> Happened:
        """Up to `limit` events after a position, oldest first."""
        epoch, oldest, newest = self._bounds()
        # Nothing is missing where the one that follows is there, or none has been given yet.
        known = epoch == after.epoch and after.seq <= newest
        if not (known and (after.seq == newest or (oldest is not None and after.seq + 1 >= oldest))):
            return Happened((), Position(epoch, newest), lost=True)
        rows = self.read("SELECT seq, task_id, status, at, code FROM events WHERE seq > ? ORDER BY seq LIMIT ?",
                         (after.seq, limit))
        events = tuple(event for row in rows if (event := event_of(row)) is not None)
        return Happened(events, Position(epoch, rows[-1][0] if rows else after.seq), lost=False)

    def find_all(self, task_ids: Sequence[str]) -> list[Task]:
        """Those of these tasks that are there; damaged ones are left out."""
        return decode_all(self.read(
            f"SELECT {COLUMNS} FROM {TABLE} WHERE task_id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(task_ids)),)))

    def forget_events(self, before: float, keep_most: int, limit: int) -> int:
        """Forget up to `limit` events from before then, or beyond the newest `keep_most`; return how many."""
        rows = self.read("SELECT seq, at FROM events ORDER BY seq LIMIT ?", (limit,))
        if not rows:
            return 0
        beyond = self._bounds()[2] - keep_most
        told = self.told_up_to()
        last = max((seq for seq, at in rows if (at < before or seq <= beyond) and (told is None or seq <= told.seq)),
                   default=None)
        if last is None:
            return 0
        with self.write(self.quick, "queue.unspool") as connection:
            return int(connection.execute("DELETE FROM events WHERE seq <= ?", (last,)).rowcount)

    def leave_numbers_out(self) -> None:
        """After a crash of the machine: no number that may have been read stands for another event, durably."""
        with self.write(self.durable, "queue.settle") as connection:
            connection.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'events'", (_LEFT_OUT,))

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

    def _bounds(self) -> tuple[str, int | None, int]:
        epoch, oldest, newest = self.read(_BOUNDS, (EPOCH_FACT,))[0]
        if not isinstance(epoch, str):
            raise QueueFault("queue_damaged", "The queue's database has no epoch.")
        return epoch, oldest, newest


def event_of(row: Sequence[Any]) -> Event | None:
    """The event of a row: number, task, state, time, code. None when it is damaged."""
    seq, task_id, status, at, code = row
    try:
        return Event(seq=seq, task_id=str(task_id), state=State(status), at=float(at), code=code)
    except (ValueError, TypeError):
        # A row that was damaged had a state of which there is none.
        return None
