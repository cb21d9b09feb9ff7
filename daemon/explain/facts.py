"""What is known, besides the task itself: of its service, and of the tasks around it."""

from dataclasses import dataclass
from typing import Final

from daemon.model.task import PENDING, State, Task
from daemon.model.upload import first_id_of
from daemon.state.activity import Activity
from daemon.task_queue import Read, Standing

#: So many tasks that come before one are counted.
COUNTED: Final = 200
#: So many tasks of an instance are looked at in each way.
_SAMPLE: Final = 20
#: States of a task that has its turn before later ones.
_AHEAD: Final = frozenset({State.QUEUED, State.PUSHING})


@dataclass(frozen=True, kw_only=True)
class ServiceFacts:
    """How the part of the service stands that has the task: one shard, its database, its worker."""

    shard: int
    #: The process id of the worker; 0 when that cannot be told, None when none runs.
    worker: int | None
    #: Since when it runs, in seconds since the epoch.
    worker_since: float | None = None
    #: What it told last; None when it has told nothing.
    activity: Activity | None = None
    #: When the last worker that there was told something, where none runs.
    last_at: float | None = None
    #: Why the queue cannot be used: an error's code, and what it said.
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """The tasks that come before one."""

    #: How many tasks of its instance, up to `COUNTED`.
    tasks: int = 0
    #: One of its path that it waits for: older and not finished, or finished with a part file that may be left.
    blocker: Task | None = None


def tasks_ahead(queue: Read, task: Task) -> Ahead:
    """What comes before a task that waits. Looks at a bounded number of tasks. Raises QueueFault."""
    if task.state not in {State.QUEUED, State.DEFERRED}:
        return Ahead()
    before = queue.page(
        states=_AHEAD, instance_key=task.destination.instance_key, before=task.task_id, limit=COUNTED)
    return Ahead(tasks=len(before), blocker=queue.blocker(task))


def oldest_of(queue: Read, standing: Standing) -> list[Task]:
    """Some tasks of an instance, oldest first: those that have waited longest, those put off, dead letters.

    Raises QueueFault.
    """
    key, found = standing.instance_key, dict[str, Task]()
    before = None if standing.oldest_at is None else first_id_of(standing.oldest_at + 1.0)
    for states, limit_id in ((PENDING | {State.FAILED}, before), (frozenset({State.DEFERRED}), None),
                             (frozenset({State.FAILED}), None), (frozenset({State.QUEUED}), None)):
        if any(state in standing.totals for state in states):
            page = queue.page(states=states, instance_key=key, before=limit_id, limit=_SAMPLE)
            found |= {task.task_id: task for task in page}
    return [found[task_id] for task_id in sorted(found)]
