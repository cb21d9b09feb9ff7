"""What a process without the shard's lock does with its queue, in the database that has the shard's name now.

The lock's holder may set a damaged database aside and begin another one. Whoever has the old one open goes on in the
new one, and puts again what went with the old one.
"""

import threading
from collections.abc import Iterable, Sequence
from typing import Final

from daemon.errors import QueueFault
from daemon.log import log
from daemon.model.task import State, Task
from daemon.model.upload import Upload
from daemon.state.layout import Layout
from daemon.state.pulse import Pulse
from daemon.task_queue.capabilities import Bytes, SealedUpload
from daemon.task_queue.sqlite.queue import SqliteQueue
from daemon.task_queue.values import (
    MOST_LOOKED_AT,
    ActionRecord,
    Command,
    CommandAnswer,
    Counter,
    FoundTasks,
    Happened,
    Notice,
    NoticeState,
    Position,
    Put,
    Standing,
    TaskQuestion,
    Total,
    WebhookStanding,
)

#: How often an upload is put again because its database was replaced meanwhile.
MAX_REPLACEMENTS: Final = 3


class SqliteIntake:
    """Puts and reads. Its methods may be called from several threads."""

    def __init__(self, layout: Layout, shard: int, spool: Bytes) -> None:
        """The queue is the index of `spool`. Nothing is opened before it is needed."""
        self._layout = layout
        self._shard = shard
        self._spool = spool
        self._lock = threading.Lock()
        self._queue: SqliteQueue | None = None
        self._pulse = Pulse(layout, shard)

    def close(self) -> None:
        """Close the connections. May be called again."""
        with self._lock:
            if self._queue is not None:
                self._queue.close()
        self._pulse.close()

    # --- putting -----------------------------------------------------------------------------------------

    def put_many(self, sealed: Sequence[SealedUpload], *, supersede: bool) -> list[Put]:
        """Put uploads into the database that has the shard's name when this returns. Raises QueueFault."""
        answers = self._put_once(sealed, supersede)
        for _ in range(MAX_REPLACEMENTS):
            if self._is_in_place():
                return answers
            # It was set aside between our opening and our commit: the rows went with it.
            log("queue.replaced", shard=self._shard, uploads=len(sealed))
            try:
                answers = self._put_once(sealed, supersede)
            except QueueFault as fault:
                # The first rows may yet be found, in the database that was set aside.
                raise QueueFault(fault.code, fault.detail, certainly_failed=False) from fault
        raise QueueFault("queue_damaged", "The database is replaced again and again.", certainly_failed=False)

    def _is_in_place(self) -> bool:
        """True when what was put is in the database that has the shard's name. Raises QueueFault."""
        try:
            return self._queue is not None and not self._queue.replaced()
        except QueueFault as fault:
            raise QueueFault(fault.code, fault.detail, certainly_failed=False) from fault

    def _put_once(self, sealed: Sequence[SealedUpload], supersede: bool) -> list[Put]:
        queue = self._current()
        try:
            return queue.put_many(sealed, supersede=supersede)
        except OSError as error:
            raise QueueFault("queue_failed", f"The queue: {error.strerror}.", certainly_failed=False) from error

    def _current(self) -> SqliteQueue:
        with self._lock:
            if self._queue is not None and self._queue.replaced():
                self._queue.close()
                self._queue = None
            if self._queue is None:
                self._queue = SqliteQueue(self._layout, self._shard, self._spool)
            return self._queue

    # --- reading -----------------------------------------------------------------------------------------

    def find(self, task_id: str) -> Task | None:
        """The task of that id, or None. Raises ValueError when its row is damaged, and QueueFault."""
        return self._current().find(task_id)

    def newer_known(self, upload: Upload) -> bool:
        """True when an upload to the same path with a later id is in the queue. Raises QueueFault."""
        return self._current().newer_known(upload)

    def blocker(self, task: Task) -> Task | None:
        """The task to the same path that a queued one waits for, or None. Raises QueueFault."""
        return self._current().blocker(task)

    def page(
        self, *, states: frozenset[State] = frozenset(), instance_key: str | None = None, client: str | None = None,
        before: str | None = None, limit: int,
    ) -> list[Task]:
        """Up to `limit` tasks, newest id first, with ids under `before`. Raises QueueFault."""
        return self._current().page(
            states=states, instance_key=instance_key, client=client, before=before, limit=limit)

    def totals(self, states: frozenset[State]) -> dict[State, Total]:
        """How many tasks, and of how many bytes, are in each of these states. Raises QueueFault."""
        return self._current().totals(states)

    def client_pending(self, client: str) -> Total:
        """How many tasks of that client are pending, and of how many bytes. Raises QueueFault."""
        return self._current().client_pending(client)

    def pending_under(self, client: str) -> Total:
        """How many tasks of that client and of all under it are pending, and of how many bytes. Raises QueueFault."""
        return self._current().pending_under(client)

    def instance_keys(self, after: str, limit: int) -> list[str]:
        """Up to `limit` instances that have tasks, in the order of their keys from `after` on. Raises QueueFault."""
        return self._current().instance_keys(after, limit)

    def search(
        self, question: TaskQuestion, before: str | None, limit: int, most: int = MOST_LOOKED_AT,
    ) -> FoundTasks:
        """Up to `limit` tasks, newest id first, with ids under `before`, among about `most`. Raises QueueFault."""
        return self._current().search(question, before, limit, most)

    def busiest(self, limit: int) -> tuple[int, list[str]]:
        """How many instances have tasks that are not finished, and those with most. Raises QueueFault."""
        return self._current().busiest(limit)

    def ranked(self, limit: int, after: tuple[int, str] | None = None) -> tuple[int, list[tuple[str, int]]]:
        """The same, with how many tasks wait, from a place in their order on. Raises QueueFault."""
        return self._current().ranked(limit, after)

    def standings(self, instance_keys: Sequence[str]) -> list[Standing]:
        """How each of these instances stands, in the same order. Raises QueueFault."""
        return self._current().standings(instance_keys)

    def oldest_at(self) -> float | None:
        """When the oldest task that is not finished was accepted, or None. Raises QueueFault."""
        return self._current().oldest_at()

    def ages(
        self, instance_keys: Sequence[str], bounds_s: Sequence[float], now: float, most: int,
    ) -> list[tuple[int, ...]]:
        """For each of these instances, how many of its tasks are how old. Raises QueueFault."""
        return self._current().ages(instance_keys, bounds_s, now, most)

    def counters(self) -> list[Counter]:
        """All sums that only grow. Raises QueueFault."""
        return self._current().counters()

    def actions(self, before: str | None, limit: int, by: str | None = None) -> list[ActionRecord]:
        """Up to `limit` actions, newest first, with ids under `before`. Raises QueueFault."""
        return self._current().actions(before, limit, by)

    # --- following ---------------------------------------------------------------------------------------

    def beat(self) -> int:
        """A number that is another one whenever something has happened. Never blocks, never raises."""
        return self._pulse.last()

    def position(self) -> Position:
        """Where the newest event is. Raises QueueFault."""
        return self._current().position()

    def happened(self, after: Position, limit: int, *, tasks: bool = False) -> Happened:
        """Up to `limit` events after a position, oldest first; with `tasks` also these. Raises QueueFault."""
        return self._current().happened(after, limit, tasks=tasks)

    def find_all(self, task_ids: Sequence[str]) -> list[Task]:
        """Those of these tasks that are there. Raises QueueFault."""
        return self._current().find_all(task_ids)

    # --- asking ------------------------------------------------------------------------------------------

    def ask(self, commands: Iterable[Command]) -> list[int]:
        """Record what a person asks for, durably, and return the numbers. Raises QueueFault."""
        return self._current().ask(commands)

    def answers(self, numbers: Sequence[int]) -> dict[int, CommandAnswer]:
        """What became of those of these commands that are still known. Raises QueueFault."""
        return self._current().answers(numbers)

    def asked(self, at: float, by: str) -> dict[str, int]:
        """The numbers of the commands of exactly that time and name that are still known. Raises QueueFault."""
        return self._current().asked(at, by)

    def newest_order(self) -> int:
        """The highest order that was ever given. Raises QueueFault."""
        return self._current().newest_order()

    def pending_commands(self) -> int:
        """How many commands are not done yet. Raises QueueFault."""
        return self._current().pending_commands()

    # --- webhooks ----------------------------------------------------------------------------------------

    def webhook_standings(self) -> list[WebhookStanding]:
        """How each webhook stands that anything is known of. Raises QueueFault."""
        return self._current().webhook_standings()

    def notices(self, webhook: str, state: NoticeState | None, before: str | None, limit: int) -> list[Notice]:
        """Up to `limit` notices to a webhook, newest first, with ids under `before`. Raises QueueFault."""
        return self._current().notices(webhook, state, before, limit)

    def find_notice(self, message_id: str) -> Notice | None:
        """The notice of that id, or None. Raises QueueFault."""
        return self._current().find_notice(message_id)

    def replay(self, webhook: str, message_id: str | None) -> int:
        """Have a notice, or all that were given up, sent again; return how many. Raises QueueFault."""
        return self._current().replay(webhook, message_id)

    def disable(self, webhook: str, why: str | None) -> None:
        """Send nothing to a webhook any more, or again. Raises QueueFault."""
        self._current().disable(webhook, why)

    def post(self, notices: Sequence[Notice]) -> None:
        """Put notices that no event is behind. Raises QueueFault."""
        self._current().post(notices)
