"""Why one task is not delivered yet: a pure function of what is known."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from daemon.errors import Action, Scope
from daemon.explain.explanation import Explanation
from daemon.explain.facts import COUNTED, Ahead, ServiceFacts
from daemon.explain.words import (
    hint_of,
    kind_of,
    place_trouble,
    pushing_to,
    service_trouble,
    task_unblocks,
    title_of,
)
from daemon.model.task import PENDING, State, Task
from daemon.state.activity import Pushing

_FINISHED: Final = {
    State.DELIVERED: "It is in the instance.",
    State.SUPERSEDED: "A newer upload to the same path took its place.",
    State.CANCELLED: "A person cancelled it.",
}
_NOTHING: Final = "Nothing has to be done."


def explain_task(
    task: Task, now: float, service: ServiceFacts, ahead: Ahead, *, name: str, others: bool = True,
) -> Explanation:
    """Explain how a task stands. `name` is its instance as people write it: `[remote:][project/]instance`.

    Without `others` nothing is told of any other task but how many come before it: for who may not see these.
    """
    if task.state in _FINISHED:
        return Explanation(stuck=False, summary=_FINISHED[task.state], since=task.updated_at)
    if task.state is State.FAILED:
        return _dead_letter(task)
    if task.state is State.HELD:
        return _held(task)
    pushing = pushing_to(service, task.destination.instance_key)
    if not others:
        pushing = tuple(file for file in pushing if file.task_id == task.task_id)
    found = (service_trouble(service, now) or _pushed(task, pushing) or _place(task, service, name)
             or _own(task, service) or _behind(ahead, others=others)
             or _turn(task, ahead, service, others=others))
    return replace(found, pushing=pushing, waiting=ahead.tasks)


def _dead_letter(task: Task) -> Explanation:
    return Explanation(
        stuck=True, summary=f"It failed, and is kept until a person decides. {title_of(task.error_code)}".strip(),
        since=task.updated_at, code=task.error_code, message=task.error_message,
        hint=hint_of(task.error_code, task.error_message),
        unblocks=f"A person: incus-courier tasks retry {task.task_id} tries it again, tasks delete gives it up.")


def _held(task: Task) -> Explanation:
    kind, title = kind_of(task.error_code), title_of(task.error_code)
    # What would have been tried again is not why it is held.
    before = "When it was last tried: " if title and (kind is None or kind.action is not Action.DEAD_LETTER) else ""
    return Explanation(
        stuck=False, summary=f"It is held back. {before}{title}".strip(), since=task.updated_at,
        code=task.error_code, message=task.error_message, hint=hint_of(task.error_code, task.error_message),
        unblocks=f"A person: incus-courier tasks release {task.task_id}")


def _pushed(task: Task, pushing: Sequence[Pushing]) -> Explanation | None:
    if task.state is not State.PUSHING:
        return None
    mine = any(file.task_id == task.task_id for file in pushing)
    return Explanation(
        stuck=False, summary="It is being pushed now." if mine else "It is in the worker's hands: one of the next.",
        since=task.updated_at, unblocks=_NOTHING)


def _place(task: Task, service: ServiceFacts, name: str) -> Explanation | None:
    """The whole remote or the whole instance waits. The task is put off besides, perhaps for longer."""
    found = place_trouble(task.destination, service, name)
    if found is None or task.due_at is None:
        return found
    return replace(found, next_try_at=max(task.due_at, found.next_try_at or 0.0))


def _own(task: Task, service: ServiceFacts) -> Explanation | None:
    """The task's own last error."""
    kind = kind_of(task.error_code)
    told = service.activity
    # Where the worker could not name all instances that are left alone, this may be one of them.
    unsure = told is not None and told.more_blocked > 0 and kind is not None and kind.scope is not Scope.TASK
    if task.state is not State.DEFERRED and not unsure:
        return None
    waits = kind is not None and kind.action is Action.WAIT
    how = "It waits for something." if waits else "It did not work, and is tried again."
    return Explanation(
        stuck=True, summary=f"{how} {title_of(task.error_code)}".strip(),
        since=task.history[0].at if task.history else task.upload.created_at, code=task.error_code,
        message=task.error_message, hint=hint_of(task.error_code, task.error_message), unblocks=task_unblocks(task),
        next_try_at=task.due_at)


def _behind(ahead: Ahead, *, others: bool) -> Explanation | None:
    """An older task of its path."""
    blocker = ahead.blocker
    if blocker is None:
        return None
    which = f"an older upload to the same path ({blocker.task_id})" if others else "an older upload to the same path"
    if blocker.left_part and blocker.state not in PENDING - {State.HELD}:
        return Explanation(
            stuck=False, summary=f"It waits for {which}: what its push left in the instance is removed first.",
            since=blocker.updated_at, unblocks="It goes on by itself when that is done.")
    return Explanation(
        stuck=blocker.state is State.DEFERRED, summary=f"It waits for {which}, which comes first.",
        since=blocker.updated_at, code=blocker.error_code, message=blocker.error_message if others else None,
        hint=hint_of(blocker.error_code, blocker.error_message),
        unblocks="It goes on by itself when that one is done.", next_try_at=blocker.due_at)


def _turn(task: Task, ahead: Ahead, service: ServiceFacts, *, others: bool) -> Explanation:
    """Nothing is in the way but its turn, and that of other instances."""
    number = f"{COUNTED} or more" if ahead.tasks >= COUNTED else str(ahead.tasks)
    before = f"{number} of its instance come before it." if ahead.tasks else "It is the next one of its instance."
    told = service.activity
    if others and told is not None and told.lanes > 1 and not pushing_to(service, task.destination.instance_key):
        before += f" The worker has {told.lanes} instances in hand."
    return Explanation(stuck=False, summary=f"It waits for its turn. {before}", since=task.upload.created_at,
                       unblocks=_NOTHING)
