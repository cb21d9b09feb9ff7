"""What people ask of tasks: decided by pure functions, done by the worker, acknowledged in the same transaction."""

from dataclasses import dataclass
from typing import Final

from daemon.logs import log
from daemon.spool import Mark, Spool
from daemon.task import FINISHED, State, Task
from daemon.task_queue import Command, Selection, TaskQueue
from worker.lanes import Lanes

#: Tasks changed in one turn of the main loop.
_SLICE: Final = 200

#: The states in which a verb applies, and the state it leads to.
VERBS: Final[dict[str, dict[State, State]]] = {
    "retry": {State.FAILED: State.QUEUED, State.DEFERRED: State.QUEUED},
    "cancel": {State.QUEUED: State.CANCELLED, State.DEFERRED: State.CANCELLED, State.HELD: State.CANCELLED},
    "hold": {State.QUEUED: State.HELD, State.DEFERRED: State.HELD},
    "release": {State.HELD: State.QUEUED},
    "delete": {State.FAILED: State.CANCELLED},
    "flush": {State.DEFERRED: State.QUEUED},
}


@dataclass(frozen=True)
class Refused:
    """Why a person's wish cannot be granted."""

    reason: str


def decide(verb: str, state: State, *, newer_exists: bool, force: bool) -> State | Refused:
    """The state that `verb` leads to from `state`, or why it does not apply."""
    target = VERBS[verb].get(state)
    if target is None:
        return Refused(f"cannot {verb} a task that is {state.label}")
    revives = target is State.QUEUED and state in {State.FAILED, State.HELD}
    if revives and newer_exists and not force:
        if state is State.HELD:
            return State.SUPERSEDED
        return Refused("a newer upload to the same path exists; --force delivers the older bytes over it")
    return target


class Commands:
    """Works off the commands in the queue, a slice in each turn. Only the main loop uses it."""

    def __init__(self, queue: TaskQueue, spool: Spool, lanes: Lanes) -> None:
        self._queue = queue
        self._spool = spool
        self._lanes = lanes
        #: How far the first command's selection has been worked off.
        self._after_order = 0

    def work(self) -> bool:
        """Do a slice of what was asked for; return True if there is more. Raises QueueFault."""
        commands = self._queue.commands(_SLICE)
        if not commands:
            return False
        if commands[0].selection is not None:
            self._work_selection(commands[0])
            return True
        singles = [command for command in commands if command.selection is None]
        self._apply([(command, task) for command in singles if (task := self._find(command))], singles)
        return True

    def _work_selection(self, command: Command) -> None:
        selection = command.selection or Selection()
        if command.verb == "flush" and selection.instance_key:
            self._lanes.try_again(lambda lane: lane.key == selection.instance_key)
        tasks = self._queue.select(selection, self._after_order, _SLICE)
        finished = len(tasks) < _SLICE
        self._apply([(command, task) for task in tasks], [command] if finished else [])
        self._after_order = 0 if finished else tasks[-1].order

    def _find(self, command: Command) -> Task | None:
        task = self._queue.find(command.task_id or "")
        if task is None:
            _refuse(command, command.task_id or "", "there is no such task")
        return task

    def _apply(self, wishes: list[tuple[Command, Task]], done: list[Command]) -> None:
        changes = []
        forgotten = []
        for command, task in wishes:
            if command.verb == "delete" and task.state in FINISHED and not task.spooled:
                forgotten.append(task.order)
                continue
            state = self._state_for(command, task)
            if state is None:
                continue
            newer = self._queue.newer_exists(task.destination.target, task.order)
            decision = decide(command.verb, state, newer_exists=newer, force=command.force)
            if isinstance(decision, Refused):
                _refuse(command, task.task_id, decision.reason)
                continue
            self._mark(task, decision)
            changes.append((task, decision))
            log("task.commanded", task_id=task.task_id, verb=command.verb, asked_by=command.asked_by,
                state=decision.label)
        self._queue.delete_rows(forgotten)
        self._queue.change(changes, done)

    def _state_for(self, command: Command, task: Task) -> State | None:
        """The state to decide on; None when a runner was told instead.

        A claimed task that no runner has begun counts as queued. One that is being pushed is cancelled by its
        runner, before its rename.
        """
        if task.state is not State.PUSHING or command.verb not in {"cancel", "hold"}:
            return task.state
        lane = self._lanes.lane(task.destination)
        if lane.take_back(task.task_id):
            return State.QUEUED
        if command.verb == "hold":
            return State.PUSHING
        lane.cancel(task.task_id)
        return None

    def _mark(self, task: Task, state: State) -> None:
        marks = {State.QUEUED: Mark.PENDING, State.HELD: Mark.HELD}
        if state in marks and (task.state in {State.FAILED, State.HELD} or state is State.HELD):
            self._spool.mark(task.upload, marks[state])


def _refuse(command: Command, task_id: str, reason: str) -> None:
    log("task.command_refused", task_id=task_id, verb=command.verb, asked_by=command.asked_by, reason=reason)

