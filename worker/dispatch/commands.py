"""What people ask of tasks: decided by pure functions, done by the worker, answered in the same transaction."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from daemon.log import log
from daemon.model.task import FINISHED, State, Task
from daemon.model.verbs import BYTES_STILL_THERE, NEWER_EXISTS, NO_SUCH_TASK, VERBS, wrong_state
from daemon.spool import Mark, SetMark
from daemon.task_queue import Change, Command, CommandAnswer, Execute, Selection
from worker.dispatch.marks import mark
from worker.dispatch.scheduler import Lanes

#: Tasks changed in one turn of the main loop.
_SLICE: Final = 200


@dataclass(frozen=True)
class Refused:
    """Why a person's wish cannot be granted."""

    reason: str


@dataclass(frozen=True)
class Forget:
    """The row of a finished task is to be deleted."""


def decide(
    verb: str, state: State, *, newer_exists: bool, force: bool, spooled: bool = True,
) -> State | Refused | Forget:
    """What `verb` does to a task in `state`: the state that it leads to, or why it does not apply."""
    if verb == "delete" and state in FINISHED:
        return Refused(BYTES_STILL_THERE) if spooled else Forget()
    target = VERBS[verb].get(state)
    if target is None:
        return Refused(wrong_state(verb, state))
    if target is State.QUEUED and state in {State.FAILED, State.HELD} and newer_exists and not force:
        return Refused(NEWER_EXISTS)
    return target


def states_of(command: Command) -> list[State]:
    """The states whose tasks a command's selection is worked off for, in order."""
    applies = set(VERBS.get(command.verb, {}))
    wanted = set(command.selection.states) if command.selection else set()
    if command.verb == "delete" and wanted:
        applies |= FINISHED
    return sorted(applies & wanted if wanted else applies)


class Commands:
    """Works off the commands in the queue, a slice in each turn. Only the main loop uses it."""

    def __init__(self, queue: Execute, spool: SetMark, lanes: Lanes) -> None:
        self._queue = queue
        self._spool = spool
        self._lanes = lanes
        #: How far the first command's selection has been worked off: a state, and a task id in it.
        self._cursor = (0, "")
        #: Tasks that no runner has any more, and whose change could not be written yet.
        self._taken: set[str] = set()

    def work(self) -> bool:
        """Do a slice of what was asked for; return True if there may be more. Raises QueueFault."""
        commands = self._queue.commands(_SLICE)
        if not commands:
            return False
        first = commands[0]
        if first.verb not in VERBS:
            self._answer_all([first], "there is no such command")
        elif first.selection is not None:
            self._work_selection(first, first.selection)
        else:
            self._work_singles(list(_distinct_singles(commands)))
        return True

    def _work_singles(self, commands: list[Command]) -> None:
        found = [(command, self._find(command)) for command in commands]
        self._answer_all([command for command, task in found if task is None], NO_SUCH_TASK)
        self._apply([(command, task) for command, task in found if task], done=True)

    def _find(self, command: Command) -> Task | None:
        try:
            return self._queue.find(command.task_id or "")
        except ValueError:
            return None

    def _work_selection(self, command: Command, selection: Selection) -> None:
        states = states_of(command)
        index, after = self._cursor
        if command.verb == "flush" and selection.instance_key:
            self._lanes.health.try_again([selection.instance_key])
        if index >= len(states):
            self._cursor = (0, "")
            self._answer_all([command], None if states else f"{command.verb} does not apply to tasks in these states")
            return
        tasks, more = self._queue.select(selection, states[index], after, _SLICE)
        self._apply([(command, task) for task in tasks], done=False)
        self._cursor = (index, more) if more is not None else (index + 1, "")

    def _answer_all(self, commands: list[Command], reason: str | None) -> None:
        """Commands that change nothing (more) are done."""
        if commands:
            answers = [CommandAnswer(number=command.number, refused=int(reason is not None), reason=reason)
                       for command in commands]
            self._queue.change([], answers)
        for command in commands if reason else ():
            _log_refused(command, command.task_id, reason)

    def _apply(self, wishes: list[tuple[Command, Task]], *, done: bool) -> None:
        """Do what is wished for each task. The commands are answered; they are `done` or have more tasks."""
        changes, refused, forgotten = [], [], []
        #: Paths over whose newest upload an older one goes: what comes after it in this slice is older than that.
        overtaken: set[bytes] = set()
        for command, task in wishes:
            target = task.destination.digest
            newer = target in overtaken or self._queue.newer_exists(target, task.order)
            decision = decide(command.verb, task.state, newer_exists=newer, force=command.force, spooled=task.spooled)
            if isinstance(decision, Refused):
                refused.append((command, task, decision.reason))
            elif isinstance(decision, State):
                changes.append((command, change := self._change(task, decision, anew=newer and command.force)))
                overtaken.update([target] if change.anew else ())
            else:
                forgotten.append((command, task))
        self._queue.delete_rows(task.order for _, task in forgotten)
        granted = [command for command, _ in (*changes, *forgotten)]
        self._queue.change([change for _, change in changes], list(_answers(granted, refused, done=done)))
        self._taken.clear()
        self._tell(changes, refused)

    def _change(self, task: Task, state: State, *, anew: bool) -> Change:
        running = task.state is State.PUSHING and not self._take_back(task)
        lane = self._lanes.find(task.destination)
        if running and lane is not None:
            lane.interrupt(task.task_id, cancelled=state is State.CANCELLED)
        if state is State.HELD:
            mark(self._spool, task, Mark.HELD)
        elif state is State.QUEUED and task.state is not State.DEFERRED:
            mark(self._spool, task, Mark.PENDING)
        return Change(task=task, state=state, anew=anew and state is State.QUEUED, when_settled=running)

    def _take_back(self, task: Task) -> bool:
        """Take a claimed task out of its lane, if no runner has begun it."""
        lane = self._lanes.find(task.destination)
        if task.task_id not in self._taken and lane is not None and lane.take_back(task.task_id):
            self._taken.add(task.task_id)
        return task.task_id in self._taken

    def _tell(self, changes: list[tuple[Command, Change]], refused: list[tuple[Command, Task, str]]) -> None:
        for command, change in changes:
            log("task.commanded", task_id=change.task.task_id, verb=command.verb, asked_by=command.asked_by,
                state=change.state.label, client=change.task.upload.client,
                traceparent=change.task.upload.traceparent)
        for command, task, reason in refused:
            _log_refused(command, task.task_id, reason, task.upload.client)
        retried = {change.task.destination.instance_key for command, change in changes if command.verb == "retry"}
        self._lanes.health.try_again(retried)


def _distinct_singles(commands: Iterable[Command]) -> Iterator[Command]:
    """The first commands about one task each, up to one that is about the same task as another before it."""
    seen: set[str | None] = set()
    for command in commands:
        if command.selection is not None or command.verb not in VERBS or command.task_id in seen:
            return
        seen.add(command.task_id)
        yield command


def _answers(
    granted: list[Command], refused: list[tuple[Command, Task, str]], *, done: bool,
) -> Iterator[CommandAnswer]:
    for command in granted:
        yield CommandAnswer(number=command.number, changed=1, done=done)
    for command, _, reason in refused:
        yield CommandAnswer(number=command.number, refused=1, reason=reason, done=done)


def _log_refused(command: Command, task_id: str | None, reason: str | None, client: str | None = None) -> None:
    log("task.command_refused", task_id=task_id, verb=command.verb, asked_by=command.asked_by, reason=reason,
        client=client)
