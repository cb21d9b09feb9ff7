"""The reading side of the queue: tasks and counts of all shards, on connections of its own.

Every method blocks on the disk: call it from a thread. A reader never waits for a writer.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from heapq import nlargest
from typing import Final, TypeVar

from api.queries.sight import Sight
from api.queries.task_query import Looked, Question, merge
from daemon.errors import QueueFault, Rejected
from daemon.explain import Ahead, oldest_of, tasks_ahead
from daemon.model.counters import Key
from daemon.model.task import FINISHED, PENDING, State, Task
from daemon.model.upload import Upload, bucket_of
from daemon.spool import Receive, Room
from daemon.state.layout import Layout
from daemon.task_queue import (
    MOST_LOOKED_AT,
    ActionRecord,
    Command,
    CommandAnswer,
    FoundTasks,
    Happened,
    Intake,
    Notice,
    NoticeState,
    Position,
    Standing,
    TaskQuestion,
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
#: Tasks that a search looks at in one place at least, of however many places.
LEAST_LOOKED_AT: Final = 500

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


@dataclass(frozen=True, kw_only=True)
class ShardCounts:
    """What is counted in one shard."""

    totals: dict[State, Total]
    #: When its oldest task that is not finished was accepted, in seconds since the epoch.
    oldest_at: float | None
    #: The sums that only grow.
    counters: dict[Key, float]


def free_bytes(spool: Room) -> int:
    """Room for uploads on the disk. Raises Rejected('storage_failed')."""
    try:
        return spool.free_bytes()
    except OSError as error:
        raise Rejected("storage_failed", f"The spool: {error.strerror}.") from error


def _unfinished(standing: Standing) -> int:
    return sum(total.tasks for state, total in standing.totals.items() if state not in FINISHED)


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

    def newest(self, question: Question, sight: Sight) -> Iterator[Looked]:
        """All tasks that are asked for and seen, newest first, read as they are taken. Raises as `find`.

        Between them comes how far it was looked, where others were passed over: each step takes a bounded time.
        """
        places = self._places(question, sight)
        most = max(LEAST_LOOKED_AT, MOST_LOOKED_AT // max(1, len(places)))
        walks = [self._walk(shard, wanted, question.after, most) for shard, wanted in places]
        return (one if isinstance(one, str) or sight.sees(one) else one.task_id for one in merge(walks))

    def _places(self, question: Question, sight: Sight) -> list[tuple[int, TaskQuestion]]:
        """The shards, and what is to be looked for in each, so that no more is read than may be seen."""
        client = question.client or sight.sender
        if sight.sender not in {None, client}:
            return []
        return [(shard, TaskQuestion(states=question.states, instance_key=key, client=client, path=question.path,
                                     error=question.error, since=question.since, until=question.until))
                for shard in question.shards(len(self._queues)) for key in self._instances(shard, question, sight)]

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

    def _walk(self, shard: int, wanted: TaskQuestion, before: str | None, most: int) -> Iterator[Looked]:
        while True:
            found = self._look(shard, wanted, before, STEP, most)
            yield from found.tasks
            if found.next_before is None:
                return
            before = found.next_before
            yield before

    def _look(self, shard: int, wanted: TaskQuestion, before: str | None, limit: int, most: int) -> FoundTasks:
        return self._ask(shard, lambda queue: queue.search(wanted, before, limit, most))

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

    def busiest(self, limit: int) -> tuple[int, list[str]]:
        """How many instances have tasks that are not finished, and up to `limit` of these, those with most first.

        Raises as `find`, and so do all down to `totals`.
        """
        found = [self._ask(shard, lambda queue: queue.busiest(limit)) for shard in range(len(self._queues))]
        standings = self.standings([key for _, keys in found for key in keys])
        first = nlargest(limit, standings, key=_unfinished)
        return sum(number for number, _ in found), [standing.instance_key for standing in first]

    def count(self, shard: int) -> ShardCounts:
        """What is counted in a shard."""
        return self._ask(shard, lambda queue: ShardCounts(
            totals=queue.totals(frozenset(State)), oldest_at=queue.oldest_at(),
            counters={(counter.name, counter.labels): counter.value for counter in queue.counters()}))

    def ranked(self, shard: int, limit: int, after: tuple[int, str] | None) -> tuple[int, list[tuple[str, int]]]:
        """A shard's instances in the order of what waits for them (`Survey.ranked`)."""
        return self._ask(shard, lambda queue: queue.ranked(limit, after))

    def oldest_of(self, standing: Standing) -> list[Task]:
        """Some tasks of an instance, oldest first (`daemon.explain`)."""
        return self._ask(self.shard_of(standing.instance_key), lambda queue: oldest_of(queue, standing))

    def ahead_of(self, task: Task) -> Ahead:
        """The tasks that come before one (`daemon.explain`)."""
        return self._ask(self.shard_of(task.destination.instance_key), lambda queue: tasks_ahead(queue, task))

    def shard_of(self, instance_key: str) -> int:
        """The shard of an instance. Asks nobody."""
        return bucket_of(instance_key) % self.shards

    def standings(self, instance_keys: Sequence[str]) -> list[Standing]:
        """How each of these instances stands, in the same order."""
        return self._by_instance(instance_keys, lambda queue, keys: queue.standings(keys))

    def ages(
        self, instance_keys: Sequence[str], bounds_s: Sequence[float], now: float, most: int,
    ) -> list[tuple[int, ...]]:
        """For each of these instances, how many of its tasks that are not finished are how old (`Survey.ages`)."""
        return self._by_instance(instance_keys, lambda queue, keys: queue.ages(keys, bounds_s, now, most))

    def oldest_at(self) -> float | None:
        """When the oldest task that is not finished was accepted (seconds since the epoch), or None."""
        found = (self._ask(shard, lambda queue: queue.oldest_at()) for shard in range(len(self._queues)))
        return min((at for at in found if at is not None), default=None)

    def totals(self, states: frozenset[State]) -> dict[State, Total]:
        """How many tasks, and of how many bytes, are in each of these states."""
        found = [self._ask(shard, lambda queue: queue.totals(states)) for shard in range(len(self._queues))]
        return {state: Total(sum(each[state].tasks for each in found), sum(each[state].size_bytes for each in found))
                for state in states}

    def actions(self, before: str | None, limit: int, by: str | None = None) -> list[ActionRecord]:
        """Up to `limit` actions, newest first, with ids under `before`; with `by` those of that name alone.

        One of which several shards have parts is one. Raises as `find`.
        """
        whole: dict[str, ActionRecord] = {}
        for shard in range(len(self._queues)):
            for part in self._ask(shard, lambda queue: queue.actions(before, limit, by)):
                known = whole.get(part.action_id)
                whole[part.action_id] = part if known is None else known + part
        return [whole[action_id] for action_id in sorted(whole, reverse=True)[:limit]]

    def _by_instance(
        self, instance_keys: Sequence[str], question: Callable[[Intake, Sequence[str]], Sequence[Result]],
    ) -> list[Result]:
        """The answers to a question about instances, each asked where it is, in their order."""
        homes: dict[int, list[str]] = {}
        for key in instance_keys:
            homes.setdefault(self.shard_of(key), []).append(key)
        answers: dict[str, Result] = {}
        for shard, keys in homes.items():
            answers |= zip(keys, self._ask_about(shard, keys, question), strict=True)
        return [answers[key] for key in instance_keys]

    def _ask_about(
        self, shard: int, keys: Sequence[str], question: Callable[[Intake, Sequence[str]], Sequence[Result]],
    ) -> Sequence[Result]:
        return self._ask(shard, lambda queue: question(queue, keys))

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
