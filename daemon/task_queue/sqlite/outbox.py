"""What webhooks are to be told: rows that are put in the transaction that notes up to which event they are told.

So no event is left out, and none is told under two ids. What is sent has its own time: a row stays until it is
delivered or given up, and for a while after that.
"""

import re
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from daemon import failpoints
from daemon.errors import QueueFault
from daemon.model.counters import Key, webhook_attempts
from daemon.model.upload import END_OF_TIME_S
from daemon.task_queue.sqlite.base import is_told
from daemon.task_queue.sqlite.counters import count
from daemon.task_queue.sqlite.events import QueueEvents, event_of
from daemon.task_queue.sqlite.schema import CURSOR_FACT
from daemon.task_queue.values import (
    Happened,
    Notice,
    NoticeResult,
    NoticeState,
    Position,
    WebhookStanding,
)

#: No body is longer, in characters.
MOST_BODY: Final = 64 * 1024
_COLUMNS: Final = ("message_id, webhook, type, task_id, body, created_at, state, attempts, due_at, updated_at, status,"
                   " detail")
_STANDING: Final = ("name, pending, delivered, failed, disabled_at, disabled_why, last_at, last_status, last_detail")
#: What an id, and a name of a webhook or of a type, may be made of.
_WORD: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_PENDING: Final = int(NoticeState.PENDING)
_FAILED: Final = int(NoticeState.FAILED)
#: How a try ended that leaves a notice in a state.
_OUTCOMES: Final = {
    NoticeState.PENDING: "deferred", NoticeState.DELIVERED: "delivered", NoticeState.FAILED: "failed"}


class QueueOutbox(QueueEvents):
    """Messages to webhooks."""

    # --- for everyone ------------------------------------------------------------------------------------

    def webhook_standings(self) -> list[WebhookStanding]:
        """How each webhook stands that anything is known of."""
        rows = self.read(f"SELECT {_STANDING} FROM webhooks ORDER BY name LIMIT 1000")
        return [WebhookStanding(
            name=str(name), pending=_count(pending), delivered=_count(delivered), failed=_count(failed),
            disabled_at=_time(disabled_at), disabled_why=_words(why), last_at=_time(last_at),
            last_status=status if isinstance(status, int) else None, last_detail=_words(detail))
            for name, pending, delivered, failed, disabled_at, why, last_at, status, detail in rows]

    def notices(self, webhook: str, state: NoticeState | None, before: str | None, limit: int) -> list[Notice]:
        """Up to `limit` notices, newest first, with ids under `before`; damaged ones are left out."""
        found: list[Notice] = []
        for wanted in NoticeState if state is None else [state]:
            rows = self.read(
                f"SELECT {_COLUMNS} FROM outbox INDEXED BY outbox_by_state WHERE webhook = ? AND state = ?"
                " AND (? IS NULL OR message_id < ?) ORDER BY message_id DESC LIMIT ?",
                (webhook, wanted, before, before, limit))
            found += [notice for row in rows if (notice := _notice(row)) is not None]
        return sorted(found, key=lambda notice: notice.message_id, reverse=True)[:limit]

    def find_notice(self, message_id: str) -> Notice | None:
        """The notice of that id, or None."""
        rows = self.read(f"SELECT {_COLUMNS} FROM outbox WHERE message_id = ?", (message_id,))
        return _notice(rows[0]) if rows else None

    def replay(self, webhook: str, message_id: str | None) -> int:
        """Have one notice, or without an id all that were given up, sent again; return how many. Durable."""
        now = time.time()
        which, values = ("state = ?", _FAILED) if message_id is None else ("message_id = ?", message_id)
        with self.write(self.durable, "queue.commit") as connection:
            changed = connection.execute(
                "UPDATE outbox SET state = ?, attempts = 0, due_at = ?, updated_at = ?"
                f" WHERE webhook = ? AND {which}", (_PENDING, now, now, webhook, values)).rowcount
        self._require_same_database()
        return int(changed)

    def disable(self, webhook: str, why: str | None) -> None:
        """Send nothing to the webhook any more, for that reason; None: send to it again, from now on. Durable."""
        now = time.time()
        with self.write(self.durable, "queue.commit") as connection:
            connection.execute(
                "INSERT INTO webhooks (name, disabled_at, disabled_why) VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET disabled_at = excluded.disabled_at, disabled_why = excluded.disabled_why",
                (webhook, None if why is None else now, why))
            if why is None:
                connection.execute("UPDATE outbox SET due_at = ? WHERE webhook = ? AND state = ?",
                                   (now, webhook, _PENDING))
        self._require_same_database()

    def post(self, notices: Sequence[Notice]) -> None:
        """Put notices that no event is behind, durably."""
        with self.write(self.durable, "queue.commit") as connection:
            connection.executemany(_INSERT, map(_row, notices))
        self._require_same_database()

    def _require_same_database(self) -> None:
        if self.replaced():
            raise QueueFault("queue_failed", f"The database of shard {self.shard} was replaced just now; ask again.")

    # --- for the holder of the shard's lock ----------------------------------------------------------------

    def follow_for_webhooks(self, wanted: bool) -> None:
        """Keep what happens from now on until webhooks are told; or do not keep it for them. Durable.

        Where it is kept already, nothing changes.
        """
        known = self.told_up_to()
        if wanted and known is None:
            now = self.position()
            with self.write(self.durable, "queue.settle") as connection:
                connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (CURSOR_FACT, _told(now)))
        elif not wanted and known is not None:
            with self.write(self.durable, "queue.settle") as connection:
                connection.execute("DELETE FROM facts WHERE name = ?", (CURSOR_FACT,))

    def untold(self, limit: int) -> Happened | None:
        """Up to `limit` events that webhooks have not been told, oldest first; None when they are told nothing."""
        told = self.told_up_to()
        if told is None:
            return None
        now = self.position()
        if told.epoch != now.epoch or told.seq > now.seq:
            return Happened((), now, lost=True)
        # Nothing that they were not told is forgotten: what is missing in between was never given.
        rows = self.read("SELECT seq, task_id, status, at, code FROM events WHERE seq > ? ORDER BY seq LIMIT ?",
                         (told.seq, limit))
        events = tuple(event for row in rows if (event := event_of(row)) is not None)
        return Happened(events, Position(told.epoch, rows[-1][0] if rows else told.seq), lost=False)

    def tell(self, notices: Sequence[Notice], position: Position) -> None:
        """Put notices and note that webhooks are told up to that position, all or none, durably.

        Where there are none, a crash of the machine may undo it: it is found out again then.
        """
        durably = notices and failpoints.reach("outbox.sync")
        with self.write(self.durable if durably else self.quick, "outbox.tell") as connection:
            connection.executemany(_INSERT, map(_row, notices))
            connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (CURSOR_FACT, _told(position)))
        failpoints.reach("outbox.told")

    def due_notices(self, webhook: str, now: float, limit: int) -> list[Notice]:
        """Up to `limit` pending notices whose time has come, those first that have waited longest."""
        rows = self.read(f"SELECT {_COLUMNS} FROM outbox INDEXED BY outbox_due"
                         " WHERE webhook = ? AND state = 1 AND due_at <= ? ORDER BY due_at LIMIT ?",
                         (webhook, now, limit))
        found = [_notice(row) for row in rows]
        damaged = [(_FAILED, row[0]) for row, notice in zip(rows, found, strict=True) if notice is None]
        if damaged:
            with self.write(self.durable, "queue.settle") as connection:
                connection.executemany("UPDATE outbox SET state = ? WHERE message_id IS ?", damaged)
        return [notice for notice in found if notice is not None]

    def next_notice_at(self, webhook: str) -> float | None:
        """When the next pending notice to the webhook is due, or None."""
        at: float | None = self.read("SELECT min(due_at) FROM outbox INDEXED BY outbox_due"
                                     " WHERE webhook = ? AND state = 1", (webhook,))[0][0]
        return at

    def settle_notices(self, results: Sequence[NoticeResult], now: float) -> None:
        """Record what became of tries to send notices, all or none, durably."""
        with self.write(self.durable, "outbox.settle") as connection:
            told: Counter[Key] = Counter()
            for result in results:
                notice = result.notice
                told[webhook_attempts(_OUTCOMES[result.state])] += connection.execute(
                    "UPDATE outbox SET state = ?, attempts = attempts + 1, due_at = ?, updated_at = ?, status = ?,"
                    " detail = ? WHERE message_id = ? AND state = ? AND attempts = ?",
                    (result.state, result.due_at, now, result.status, result.detail, notice.message_id, _PENDING,
                     notice.attempts)).rowcount
                connection.execute("UPDATE webhooks SET last_at = ?, last_status = ?, last_detail = ? WHERE name = ?",
                                   (now, result.status, result.detail, notice.webhook))
            count(connection, +told)
        failpoints.reach("outbox.settled")

    def give_up_notices(self, webhook: str, keep_most: int, limit: int, why: str) -> int:
        """Give up the oldest pending notices to a webhook beyond `keep_most`, up to `limit`; return how many."""
        return self._beyond(webhook, NoticeState.PENDING, keep_most, limit, (
            f"UPDATE outbox SET state = {_FAILED}, updated_at = ?, detail = ?", (time.time(), why)))

    def forget_notices(self, webhook: str, state: NoticeState, before: str, keep_most: int, limit: int) -> int:
        """Forget up to `limit` notices to a webhook with ids under `before`, or beyond `keep_most`; return how many."""
        old = self.read("SELECT message_id FROM outbox INDEXED BY outbox_by_state"
                        " WHERE webhook = ? AND state = ? AND message_id < ? ORDER BY message_id LIMIT ?",
                        (webhook, state, before, limit))
        if old:
            with self.write(self.durable, "queue.settle") as connection:
                connection.executemany("DELETE FROM outbox WHERE message_id = ?", old)
        return len(old) + self._beyond(webhook, state, keep_most, limit - len(old), ("DELETE FROM outbox", ()))

    def drop_notices(self, message_ids: Sequence[str]) -> None:
        """Forget notices that are somewhere else, durably."""
        with self.write(self.durable, "queue.settle") as connection:
            connection.executemany("DELETE FROM outbox WHERE message_id = ?", [(each,) for each in message_ids])

    def _beyond(
        self, webhook: str, state: NoticeState, keep_most: int, limit: int, change: tuple[str, tuple[object, ...]],
    ) -> int:
        """Change the oldest notices of a state that are too many."""
        rows = self.read(f"SELECT {state.label} FROM webhooks WHERE name = ?", (webhook,))
        surplus = min(limit, _count(rows[0][0]) - keep_most) if rows else 0
        if surplus <= 0:
            return 0
        statement, values = change
        with self.write(self.durable, "queue.settle") as connection:
            return int(connection.execute(
                f"{statement} WHERE message_id IN (SELECT message_id FROM outbox INDEXED BY outbox_by_state"
                " WHERE webhook = ? AND state = ? ORDER BY message_id LIMIT ?)",
                (*values, webhook, state, surplus)).rowcount)


_INSERT: Final = f"INSERT OR IGNORE INTO outbox ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def _row(notice: Notice) -> tuple[object, ...]:
    return (notice.message_id, notice.webhook, notice.type, notice.task_id, notice.body, notice.created_at,
            notice.state, notice.attempts, notice.due_at, notice.updated_at, notice.status, notice.detail)


def _notice(row: Sequence[Any]) -> Notice | None:
    """The notice of a row, or None when the row is damaged."""
    message_id, webhook, kind, task_id, body, created_at, state, attempts, due_at, updated_at, status, detail = row
    words = (message_id, webhook, kind, *(() if task_id is None else (task_id,)))
    if not all(isinstance(word, str) and _WORD.fullmatch(word) for word in words):
        return None
    # Each character has to fit into a frame, as JSON in JSON.
    if not (isinstance(body, str) and len(body) <= MOST_BODY and body.isascii() and body.isprintable()
            and is_told(detail)):
        return None
    if not all(_time(at) is not None for at in (created_at, due_at, updated_at)):
        return None
    if not (isinstance(attempts, int) and 0 <= attempts < 2**31 and isinstance(status, int | None)):
        return None
    try:
        known = NoticeState(state)
    except ValueError:
        return None
    return Notice(message_id=message_id, webhook=webhook, type=kind, task_id=task_id, body=body, created_at=created_at,
                  state=known, attempts=attempts, due_at=due_at, updated_at=updated_at, status=status, detail=detail)


def _told(position: Position) -> str:
    return f"{position.epoch} {position.seq}"


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def _time(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value < END_OF_TIME_S else None


def _words(value: object) -> str | None:
    return value if isinstance(value, str) and is_told(value) else None
