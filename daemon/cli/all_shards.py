"""Every shard of a state directory at once, for commands that people give. Nothing is made that is not there."""

import heapq
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import groupby, islice

from daemon.cli.filters import check_id
from daemon.config import Config
from daemon.errors import CannotStart, QueueFault
from daemon.model.task import State, Task
from daemon.state import shard_count
from daemon.state.layout import Layout
from daemon.task_queue import Operate, open_existing


class DamagedRow(Exception):
    """Raised for a task whose row cannot be read."""


class AllShards:
    """The queues of all shards that can be opened."""

    def __init__(self, number: int, queues: dict[int, Operate], faults: dict[int, QueueFault]) -> None:
        #: How many shards there are.
        self.number = number
        self.queues = queues
        #: What is wrong with those that could not be opened.
        self.faults = faults

    def unread(self) -> list[str]:
        """What to say of the shards that could not be opened."""
        return [f"shard {shard} cannot be read: {fault.detail}" for shard, fault in self.faults.items()]

    def find(self, task_id: str) -> tuple[int, Task] | None:
        """The task of that id and its shard, or None. Raises DamagedRow and QueueFault."""
        for shard, queue in self.queues.items():
            try:
                task = queue.find(task_id)
            except ValueError as error:
                raise DamagedRow(f"its row is damaged: {error}") from error
            if task is not None:
                return shard, task
        return None

    def page(
        self, *, states: frozenset[State], instance_key: str | None, client: str | None, before: str | None,
        limit: int,
    ) -> list[Task]:
        """Up to `limit` tasks of all shards, newest first, with ids under `before`. Raises QueueFault."""
        pages = [queue.page(states=states, instance_key=instance_key, client=client, before=before, limit=limit)
                 for queue in self.queues.values()]
        merged = heapq.merge(*pages, key=lambda task: task.task_id, reverse=True)
        # While tasks move to another number of shards, one may be in two of them.
        return list(islice((next(same) for _, same in groupby(merged, key=lambda task: task.task_id)), limit))


def look_up(shards: AllShards, task_id: str, *, missing: str = "there is no such task") -> tuple[int, Task] | str:
    """The task of that id and its shard, or why it cannot be had: `missing` where there is none. Raises QueueFault."""
    wrong = check_id(task_id)
    if wrong:
        return wrong
    try:
        return shards.find(task_id) or missing
    except DamagedRow as error:
        return str(error)


@contextmanager
def open_all(config: Config) -> Iterator[AllShards]:
    """Open the queue of every shard. Raises CannotStart when there is no state."""
    layout = existing(config)
    with ExitStack() as opened:
        queues: dict[int, Operate] = {}
        faults: dict[int, QueueFault] = {}
        shards = shards_of(layout, config)
        for shard in shards:
            try:
                queue = open_existing(layout, shard)
            except QueueFault as fault:
                faults[shard] = fault
                continue
            if queue is not None:
                queues[shard] = opened.enter_context(closing(queue))
        yield AllShards(len(shards), queues, faults)


def existing(config: Config) -> Layout:
    """The state directory of this configuration. Raises CannotStart when the service never ran there."""
    layout = Layout(config.state.path)
    if not layout.queue.is_dir():
        raise CannotStart("no_state", f"{layout.directory}: there is no state of this service")
    return layout


def shards_of(layout: Layout, config: Config) -> range:
    """The shards that there are: as many as are in force, whatever is configured. Raises CannotStart."""
    found = shard_count.read(layout)
    if found is None:
        return range(config.queue.shards)
    return range(max(found.in_force, found.moving_to or 0))
