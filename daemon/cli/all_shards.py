"""Every shard of a state directory at once, for commands that people give. Nothing is made that is not there."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

from daemon.cli.typed import check_id
from daemon.config import Config
from daemon.errors import CannotStart, QueueFault
from daemon.model.task import Task
from daemon.state import shard_count
from daemon.state.layout import Layout
from daemon.task_queue import FoundTasks, Operate, TaskQuestion, open_existing


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

    def search(self, question: TaskQuestion, before: str | None, limit: int) -> FoundTasks:
        """Up to `limit` tasks of all shards, newest first, with ids under `before`. Raises QueueFault."""
        return joined([queue.search(question, before, limit) for queue in self.queues.values()], limit)


def joined(found: Sequence[FoundTasks], limit: int) -> FoundTasks:
    """The newest of what was found in several shards, down to where all of them were looked through. Pure."""
    floor = max((one.next_before for one in found if one.next_before is not None), default="")
    # While tasks move to another number of shards, one may be in two of them.
    tasks = {task.task_id: task for one in found for task in one.tasks if task.task_id >= floor}
    page = [tasks[task_id] for task_id in sorted(tasks, reverse=True)[:limit]]
    return FoundTasks(tuple(page), page[-1].task_id if page and len(page) < len(tasks) else floor or None)


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
