"""The reading side of the queue: tasks and counts of all shards, on connections of its own.

Every method blocks on the disk: call it from a thread. A reader never waits for a writer.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from api.queries.task_query import Question, merge
from daemon.errors import QueueFault, Rejected
from daemon.model.task import PENDING, Task
from daemon.spool import Receive, Room
from daemon.state.layout import Layout
from daemon.task_queue import Intake, open_intake

#: Tasks that are in memory of each shard while a page is made.
STEP: Final = 64

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

    def find(self, task_id: str) -> Task | None:
        """The task of that id, or None. Raises Rejected('queue_unreadable' or 'no_room')."""
        for shard in range(len(self._queues)):
            task = self._ask(shard, lambda queue: queue.find(task_id))
            if task is not None:
                return task
        return None

    def newest(self, question: Question) -> Iterator[Task]:
        """All tasks that are asked for, newest first, read as they are taken. Raises as `find`."""
        return merge([self._walk(shard, question) for shard in question.shards(len(self._queues))])

    def _walk(self, shard: int, question: Question) -> Iterator[Task]:
        before = question.after
        while tasks := self._step(shard, question, before):
            yield from tasks
            before = tasks[-1].task_id

    def _step(self, shard: int, question: Question, before: str | None) -> list[Task]:
        return self._ask(shard, lambda queue: queue.page(
            states=question.states, instance_key=question.instance_key, client=question.client, before=before,
            limit=STEP))

    def waiting(self) -> Waiting:
        """What waits now. A shard that cannot be read counts as when it last could be.

        So it turns its own uploads away, and no other's.
        """
        for shard in range(len(self._queues)):
            with suppress(Rejected):
                self._pending[shard] = self._count(shard)
        return sum(self._pending, Waiting())

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
