"""The reading side of the queue: tasks and counts of all shards, on connections of its own.

Every method blocks on the disk: call it from a thread. A reader never waits for a writer.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from api.queries.sight import Sight
from api.queries.task_query import Question, merge
from daemon.errors import QueueFault, Rejected
from daemon.model.task import PENDING, State, Task
from daemon.model.upload import Upload
from daemon.spool import Receive, Room
from daemon.state.layout import Layout
from daemon.task_queue import (
    Command,
    CommandAnswer,
    Happened,
    Intake,
    Notice,
    NoticeState,
    Position,
    Total,
    WebhookStanding,
    open_intake,
)

#: Tasks that are in memory of each shard while a page is made.
STEP: Final = 64
#: Instances that are looked through one beside the other for somebody who may not see all; of more all tasks are.
WALKS_AT_ONCE: Final = 64
#: Names of instances that are read at once.
KEYS_AT_ONCE: Final = 512

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Tasks that wait to be delivered, and their bytes."""

    tasks: int = 0
    size_bytes: int = 0

    def __add__(self, other: "Waiting") -> "Waiting":
        return Waiting(tasks=self.tasks + other.tasks, size_bytes=self.size_bytes + other.size_bytes)

    def __sub__(self, other: "Waiting") -> "Waiting":
        return Waiting(tasks=self.tasks - other.tasks, size_bytes=self.size_bytes - other.size_bytes)


def free_bytes(spool: Room) -> int:
    """Room for uploads on the disk. Raises Rejected('storage_failed')."""
    try:
        return spool.free_bytes()
    except OSError as error:
        raise Rejected("storage_failed", f"The spool: {error.strerror}.") from error


class Reader:
    """Reads all shards."""

    def __init__(self, layout: Layout, spool: Receive, shards: int) -> None:
        self._queues = [open_intake(layout, shard, spool) for shard in range(shards)]
        #: What waited in each shard when it could last be read.
        self._pending = [Waiting()] * shards

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return len(self._queues)

    def find(self, task_id: str, sees: Callable[[Task], bool]) -> Task | None:
        """The task of that id, or None; every shard is asked, whether it is there and seen or not.

        Raises Rejected('queue_unreadable' or 'no_room').
        """
        seen, trouble = None, None
        for shard in range(len(self._queues)):
            try:
                task = self._ask(shard, lambda queue: queue.find(task_id))
            except Rejected as error:
                trouble = trouble or error
                continue
            if task is not None and sees(task):
                seen = task
        if seen is None and trouble is not None:
            raise trouble
        return seen

    def newer_known(self, upload: Upload) -> bool:
        """True when an upload to the same path with a later id is in the queue, finished or not. Raises as `find`."""
        return self._ask(upload.destination.shard(self.shards), lambda queue: queue.newer_known(upload))

    def newest(self, question: Question, sight: Sight) -> Iterator[Task]:
        """All tasks that are asked for and seen, newest first, read as they are taken. Raises as `find`."""
        client = question.client or sight.sender
        if sight.sender not in {None, client}:
            return iter(())
        walks = [self._walk(shard, question.states, key, client, question.after)
                 for shard in question.shards(len(self._queues)) for key in self._instances(shard, question, sight)]
        return filter(sight.sees, merge(walks))

    def _instances(self, shard: int, question: Question, sight: Sight) -> Sequence[str | None]:
        """The instances whose tasks are to be looked through, or None for all at once."""
        if question.instance_key is not None:
            return [question.instance_key] if sight.reaches(question.instance_key) else []
        if sight.everywhere:
            return [None]
        reached: list[str | None] = []
        after = ""
        while keys := self._keys(shard, after):
            reached += [key for key in keys if sight.reaches(key)]
            if len(reached) > WALKS_AT_ONCE:
                return [None]
            after = keys[-1]
        return reached

    def _walk(
        self, shard: int, states: frozenset[State], instance_key: str | None, client: str | None, before: str | None,
    ) -> Iterator[Task]:
        while tasks := self._step(shard, states, instance_key, client, before):
            yield from tasks
            before = tasks[-1].task_id

    def _step(
        self, shard: int, states: frozenset[State], instance_key: str | None, client: str | None, before: str | None,
    ) -> list[Task]:
        return self._ask(shard, lambda queue: queue.page(
            states=states, instance_key=instance_key, client=client, before=before, limit=STEP))

    def _keys(self, shard: int, after: str) -> list[str]:
        return self._ask(shard, lambda queue: queue.instance_keys(after, KEYS_AT_ONCE))

    def waiting(self) -> Waiting:
        """What waits now. A shard that cannot be read counts as when it last could be.

        So it turns its own uploads away, and no other's.
        """
        for shard in range(len(self._queues)):
            with suppress(Rejected):
                self._pending[shard] = self._count(shard)
        return sum(self._pending, Waiting())

    def pending_under(self, client: str) -> Total:
        """What waits of that client and of all that act under it. Raises as `find`."""
        totals = [self._ask(shard, lambda queue: queue.pending_under(client)) for shard in range(len(self._queues))]
        return Total(sum(total.tasks for total in totals), sum(total.size_bytes for total in totals))

    def beats(self) -> tuple[int, ...]:
        """Numbers that are others whenever something has happened in a shard. Never blocks."""
        return tuple(queue.beat() for queue in self._queues)

    def positions(self) -> tuple[Position, ...]:
        """Where the newest event of each shard is. Raises as `find`."""
        return tuple(self._ask(shard, lambda queue: queue.position()) for shard in range(len(self._queues)))

    def happened(self, shard: int, after: Position, limit: int, *, tasks: bool = False) -> Happened:
        """Up to `limit` events of a shard after a position, with `tasks` also these. Raises as `find`."""
        return self._ask(shard, lambda queue: queue.happened(after, limit, tasks=tasks))

    def find_all(self, shard: int, task_ids: Sequence[str]) -> list[Task]:
        """Those of these tasks that are in a shard, whoever may see them. Raises as `find`."""
        return self._ask(shard, lambda queue: queue.find_all(task_ids))

    def ask(self, shard: int, commands: Sequence[Command]) -> list[int]:
        """Ask a shard's worker for something, durably; the numbers of the commands. Raises as `find`."""
        return self._ask(shard, lambda queue: queue.ask(commands))

    def answers(self, shard: int, numbers: Sequence[int]) -> dict[int, CommandAnswer]:
        """What became of those of these commands that are still known. Raises as `find`."""
        return self._ask(shard, lambda queue: queue.answers(numbers))

    def asked(self, shard: int, at: float, by: str) -> dict[str, int]:
        """The numbers of the commands of exactly that time and name, by the ids of their tasks. Raises as `find`."""
        return self._ask(shard, lambda queue: queue.asked(at, by))

    def pending_commands(self, shard: int) -> int:
        """How many commands wait for a shard's worker. Raises as `find`."""
        return self._ask(shard, lambda queue: queue.pending_commands())

    def epoch(self, shard: int) -> str:
        """What tells the database of a shard from the one that takes its place. Raises as `find`."""
        return self._ask(shard, lambda queue: queue.position()).epoch

    def find_each(self, task_ids: Sequence[str]) -> list[Task]:
        """Those of these tasks that are in any shard, whoever may see them; what cannot be read is left out."""
        found: list[Task] = []
        for shard in range(len(self._queues)):
            with suppress(Rejected):
                found += self.find_all(shard, task_ids)
        return found

    def webhook_standings(self) -> list[list[WebhookStanding]]:
        """How the webhooks stand in each shard. Raises as `find`."""
        return [self._ask(shard, lambda queue: queue.webhook_standings()) for shard in range(len(self._queues))]

    def notices(self, webhook: str, state: NoticeState | None, before: str | None, limit: int) -> list[Notice]:
        """Up to `limit` notices to a webhook, newest first, with ids under `before`. Raises as `find`."""
        found = [notice for shard in range(len(self._queues))
                 for notice in self._ask(shard, lambda queue: queue.notices(webhook, state, before, limit))]
        return sorted(found, key=lambda notice: notice.message_id, reverse=True)[:limit]

    def find_notice(self, message_id: str) -> Notice | None:
        """The notice of that id, or None. Raises as `find`."""
        for shard in range(len(self._queues)):
            found = self._ask(shard, lambda queue: queue.find_notice(message_id))
            if found is not None:
                return found
        return None

    def replay(self, webhook: str, message_id: str) -> int | None:
        """Have a notice sent again; return the shard that it is in, or None when there is none. Raises as `find`."""
        return next((shard for shard in range(len(self._queues))
                     if self._ask(shard, lambda queue: queue.replay(webhook, message_id))), None)

    def _count(self, shard: int) -> Waiting:
        totals = self._ask(shard, lambda queue: queue.totals(PENDING)).values()
        return Waiting(tasks=sum(total.tasks for total in totals), size_bytes=sum(total.size_bytes for total in totals))

    def try_writing(self) -> None:
        """Begin and end a transaction in each shard, writing nothing. Raises as `find`."""
        for shard in range(len(self._queues)):
            self._ask(shard, lambda queue: queue.put_many([], supersede=False))

    def close(self) -> None:
        """Close the connections."""
        for queue in self._queues:
            queue.close()

    def _ask(self, shard: int, question: Callable[[Intake], Result]) -> Result:
        try:
            return question(self._queues[shard])
        except QueueFault as fault:
            code = "no_room" if fault.kind.room_helps else "queue_unreadable"
            raise Rejected(code, f"Shard {shard}: {fault.detail}") from fault
        except ValueError as error:
            raise Rejected("queue_unreadable", f"Shard {shard}: {error}") from error
