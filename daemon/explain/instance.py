"""Why what waits for one instance is not delivered yet: a pure function of what is known."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from daemon.errors import Action
from daemon.explain.explanation import Explanation
from daemon.explain.facts import Ahead, ServiceFacts
from daemon.explain.task import explain_task
from daemon.explain.words import (
    hint_of,
    instance_unblocks,
    kind_of,
    place_trouble,
    pushing_to,
    service_trouble,
    title_of,
)
from daemon.model.task import PENDING, State, Task
from daemon.model.upload import Destination
from daemon.task_queue import Standing

#: An instance's key is `remote/project/instance`.
_SLASHES: Final = 2
#: States of tasks that are put off by nothing of their own.
_READY: Final = frozenset({State.QUEUED, State.PUSHING})
#: What a sentence about one task begins with.
_ALONE: Final = re.compile(r"\AIt\b")


def explain_instance(
    standing: Standing, oldest: Sequence[Task], now: float, service: ServiceFacts, *, name: str, others: bool = True,
) -> Explanation:
    """Explain how an instance stands: what keeps all of it waiting, or else what the tasks say that wait for it.

    `oldest` are some of its tasks, oldest first (`oldest_of`). `name` is the instance as people write it. Without
    `others` nothing is told of single tasks: for who may not see these.
    """
    waiting = sum(standing.totals[state].tasks for state in PENDING & standing.totals.keys())
    failed = standing.totals[State.FAILED].tasks if State.FAILED in standing.totals else 0
    if service.code is not None:
        # What waits cannot be told.
        return service_trouble(service, now) or Explanation(stuck=True, summary="")
    if waiting:
        found = _whole(standing, oldest, now, service, name) or _single(oldest, now, service, name, others=others)
        told = found.summary if waiting == 1 else _ALONE.sub("One of them", found.summary)
        found = replace(found, summary=f"{_tasks(waiting)} {_be(waiting, 'waits', 'wait')}. {told}".strip())
    else:
        found = Explanation(stuck=False, summary="" if failed else "Nothing waits for it.")
    if failed:
        found = _with_dead_letters(found, failed, oldest, name, others=others)
    return replace(found, pushing=pushing_to(service, standing.instance_key) if others else (), waiting=waiting)


def _whole(
    standing: Standing, oldest: Sequence[Task], now: float, service: ServiceFacts, name: str,
) -> Explanation | None:
    """What keeps all of it waiting; nothing where persons hold all of it."""
    if not standing.totals.keys() & PENDING - {State.HELD}:
        return None
    trouble = service_trouble(service, now)
    if trouble is not None or standing.instance_key.count("/") != _SLASHES:
        return trouble
    remote, project, instance = standing.instance_key.split("/")
    found = place_trouble(Destination(remote, project, instance, "/"), service, name)
    due = [task.due_at for task in oldest if task.due_at is not None]
    if found is None or not due or standing.totals.keys() & _READY:
        return found
    # All of them are put off besides, perhaps for longer.
    return replace(found, next_try_at=max(min(due), found.next_try_at or 0.0))


def _single(
    oldest: Sequence[Task], now: float, service: ServiceFacts, name: str, *, others: bool,
) -> Explanation:
    """What one of the tasks says: the oldest that is stuck, or else that nobody holds, or else of all."""
    waiting = [task for task in oldest if task.state in PENDING]
    told = [explain_task(task, now, service, Ahead(), name=name, others=others) for task in waiting]
    if not told:
        return Explanation(stuck=False, summary="")
    at = min(range(len(told)), key=lambda number: (not told[number].stuck, waiting[number].state is State.HELD))
    found = replace(told[at], task_id=waiting[at].task_id if others else None,
                    message=told[at].message if others else None)
    if waiting[at].state is State.DEFERRED and (kind := kind_of(found.code)) and kind.action is not Action.WAIT:
        return replace(found, unblocks=instance_unblocks(kind.code, name))
    return found if others else replace(found, unblocks="")


def _with_dead_letters(
    found: Explanation, failed: int, oldest: Sequence[Task], name: str, *, others: bool,
) -> Explanation:
    """Say of the dead letters, too; where nothing else is stuck, what is the matter with the newest of them."""
    dead = f"{_tasks(failed)} failed, and {_be(failed, 'is', 'are')} kept until a person decides."
    last = next((task for task in reversed(oldest) if task.state is State.FAILED), None)
    if found.stuck or last is None:
        return replace(found, stuck=True, summary=f"{found.summary} {dead}".strip())
    return replace(
        found, stuck=True, summary=f"{found.summary} {dead} {title_of(last.error_code)}".strip(),
        since=last.updated_at, task_id=last.task_id if others else None, code=last.error_code,
        message=last.error_message if others else None, hint=hint_of(last.error_code, last.error_message),
        unblocks=f"A person: incus-courier tasks retry --state failed --instance {shlex.quote(name)}")


def _tasks(number: int) -> str:
    return f"{number} {_be(number, 'task', 'tasks')}"


def _be(number: int, one: str, many: str) -> str:
    return one if number == 1 else many
