"""What can be done with tasks, who may do it, and what a refusal of the worker means: the decisions. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from api.http.parameters import read_flag
from api.queries.sight import Sight
from daemon.access.caller import Caller
from daemon.access.decide import decide
from daemon.errors import Rejected
from daemon.model.grant import Permission
from daemon.model.names import printable
from daemon.model.schema import answer
from daemon.model.task import FINISHED, State, Task
from daemon.model.verbs import BYTES_STILL_THERE, NEWER_EXISTS, NO_SUCH_TASK, VERBS
from daemon.model.view import TASK, describe
from daemon.task_queue import CommandAnswer


@dataclass(frozen=True, slots=True)
class TaskAction:
    """Something that can be done with tasks."""

    #: As addresses, and the worker, call it.
    verb: str
    permission: Permission
    #: Whether it can be had over a newer upload.
    forcible: bool = False

    @property
    def states(self) -> frozenset[State]:
        """The states of tasks that it is for."""
        return frozenset(VERBS[self.verb])

    @property
    def forgets(self) -> frozenset[State]:
        """The states of tasks whose rows it removes: only where that is asked for."""
        return FINISHED if self.verb == "delete" else frozenset()

    def is_reached(self, state: State) -> bool:
        """True when there is nothing left to do: the task is where the action would have brought it."""
        return self.verb != "delete" and state in VERBS[self.verb].values()


#: To hold and to let go is one right.
ACTIONS: Final[Mapping[str, TaskAction]] = {action.verb: action for action in (
    TaskAction("cancel", Permission.CANCEL), TaskAction("hold", Permission.HOLD),
    TaskAction("release", Permission.HOLD, forcible=True), TaskAction("retry", Permission.RETRY, forcible=True),
    TaskAction("delete", Permission.DELETE))}
#: Codes of refusals that are not about the state.
_REASONS: Final = {NEWER_EXISTS: "newer_upload", BYTES_STILL_THERE: "bytes_still_there", NO_SUCH_TASK: "task_not_found"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether somebody may do something with a task."""

    #: The code of the refusal, or None: he may.
    code: str | None
    #: Whether he may know that there is such a task.
    sees: bool


def judge(caller: Caller, permission: Permission, task: Task) -> Verdict:
    """Whether `caller` may do with that task what `permission` is for. Who may act on it, or see it, knows of it."""
    code = decide(caller, permission, task.destination, sender=task.upload.client)
    return Verdict(code, sees=code is None or Sight(caller).sees(task))


#: What `view_of` makes.
TASK_VIEW: Final = {"anyOf": [TASK, answer("TaskState", {key: TASK["properties"][key] for key in ("id", "state")})]}


def view_of(caller: Caller, task: Task) -> dict[str, Any]:
    """A task for who acted on it: who may act and not see is told no more than its state."""
    return describe(task) if Sight(caller).sees(task) else {"id": task.task_id, "state": task.state.label}


def read_force(action: TaskAction, parameters: Mapping[str, str], body: Mapping[str, object]) -> bool:
    """Whether a request wants its action over a newer upload. Raises Rejected."""
    unknown = body.keys() - {"force"}
    if unknown:
        raise Rejected("bad_action", f"There is no key {printable(min(unknown))!r} here.")
    if "force" in parameters and "force" in body:
        raise Rejected("bad_action", "`force` is given twice.")
    force = body.get("force", read_flag(parameters.get("force")) or False)
    if not isinstance(force, bool):
        raise Rejected("bad_action", "`force` is true or false.")
    return check_force(action, force=force)


def check_force(action: TaskAction, *, force: bool) -> bool:
    """`force` itself. Raises Rejected('bad_action') where there is nothing that could be forced."""
    if force and not action.forcible:
        raise Rejected("bad_action", f"`force` does not go with {action.verb}.")
    return force


def refusal_of(action: TaskAction, answer: CommandAnswer) -> Rejected | None:
    """Why the worker did not do it, for who asked for one task; None when it did. Pure."""
    if not answer.refused:
        return None
    code = _REASONS.get(answer.reason or "")
    if code is not None:
        return Rejected(code)
    reason = answer.reason or "not possible"
    states = ", ".join(state.label for state in sorted(action.states))
    return Rejected("wrong_state", f"{reason[0].upper()}{reason[1:]}. What {action.verb} is for: {states}.")


def is_passed_over(answer: CommandAnswer) -> bool:
    """True when the worker left a task as it is because of its state, or because it is not there any more."""
    return bool(answer.refused) and answer.reason != NEWER_EXISTS
