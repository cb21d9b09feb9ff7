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
class Snapshot:
    """What was waiting, and how much room there was, at one moment."""

    pending_tasks: int
    pending_bytes: int
    free_bytes: int


def free_bytes(spool: Room) -> int:
    """Room for uploads on the disk. Raises Rejected('storage_failed')."""
    try:
        return spool.free_bytes()
    except OSError as error:
        raise Rejected("storage_failed", f"The spool: {error.strerror}.") from error


class Reader:
    """Reads all shards."""

    def __init__(self, layout: Layout, spool: Receive, shards: int) -> None:
        self._spool = spool
        self._queues = [open_intake(layout, shard, spool) for shard in range(shards)]
        #: Tasks and bytes that were pending in each shard when it could last be read.
        self._pending = [(0, 0)] * shards

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
            states=question.states, instance_key=question.instance_key, before=before, limit=STEP))

    def snapshot(self) -> Snapshot:
        """The counts of the backlog and the room on the disk. Raises Rejected('storage_failed').

        A shard that cannot be read counts as when it last could be: it turns its own uploads away, and no other's.
        """
        for shard in range(len(self._queues)):
            with suppress(Rejected):
                self._pending[shard] = self._count(shard)
        return Snapshot(
            pending_tasks=sum(tasks for tasks, _ in self._pending),
            pending_bytes=sum(size_bytes for _, size_bytes in self._pending),
            free_bytes=free_bytes(self._spool))

    def _count(self, shard: int) -> tuple[int, int]:
        tallies = [tally for tally in self._ask(shard, lambda queue: queue.tallies()) if tally.state in PENDING]
        return sum(tally.tasks for tally in tallies), sum(tally.size_bytes for tally in tallies)

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
