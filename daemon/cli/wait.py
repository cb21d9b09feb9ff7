"""`incus-courier wait`: until it is known what became of tasks, or until nothing waits for an instance.

Exit codes: EXIT_OK when all is delivered, EXIT_FAILED when something is not, EXIT_UNDECIDED when that is not known in
time.
"""

import time
from collections.abc import Iterable, Sequence
from typing import Final

from daemon.model.seat import Seat, TaskFilter, Values
from daemon.model.task import OUTCOMES, PENDING, State
from daemon.process.exit_status import EXIT_FAILED, EXIT_OK, EXIT_UNDECIDED
from daemon.process.output import flush, say, say_json, warn

#: For how long one question waits at most, and is asked again while the service is away, in seconds.
_LONGEST_S: Final = 60.0
#: Between two looks at what waits for an instance, in seconds.
_LOOK_S: Final = 0.5
#: Dead letters of an instance that are told from those of before.
_MOST_FAILED: Final = 1000
_DECIDED: Final = frozenset(state.label for state in OUTCOMES)


class Clock:
    """How much time is left."""

    def __init__(self, timeout_s: float | None) -> None:
        """None: there is no end."""
        self._end = float("inf") if timeout_s is None else time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        """In seconds; never less than none."""
        return max(0.0, self._end - time.monotonic())


def wait_for_tasks(seat: Seat, task_ids: Sequence[str], *, timeout_s: float | None, as_json: bool) -> int:
    """Wait until it is known of each of these tasks what became of it, and print that as it is known."""
    clock = Clock(timeout_s)
    outcomes = [_wait_for(seat, task_id, clock, as_json=as_json) for task_id in task_ids]
    return exit_code(outcomes)


def exit_code(states: Iterable[str | None]) -> int:
    """What the command ends with when tasks ended in these states; None: there is no such task. Pure."""
    found = set(states)
    if found - {State.DELIVERED.label} - _UNDECIDED:
        return EXIT_FAILED
    return EXIT_UNDECIDED if found & _UNDECIDED else EXIT_OK


_UNDECIDED: Final[frozenset[str | None]] = frozenset(state.label for state in PENDING)


def _wait_for(seat: Seat, task_id: str, clock: Clock, *, as_json: bool) -> str | None:
    while True:
        task = seat.find(task_id, min(_LONGEST_S, clock.left_s))
        if task is None:
            warn(f"{task_id}: there is no such task")
            return None
        if task["state"] in _DECIDED or not clock.left_s:
            break
    if as_json:
        say_json(task)
    else:
        say(_sentence(task, seat.name_of(task)))
    flush()
    return str(task["state"])


def _sentence(task: Values, name: str) -> str:
    error = task["error"] or {}
    reason = f": {error['code']}: {error['message'] or ''}".rstrip(": ") if error else ""
    return f"{task['id']}  {task['state']}  {name}{task['path']}{reason}"


def wait_for_instance(seat: Seat, instance: str, *, timeout_s: float | None, as_json: bool) -> int:
    """Wait until nothing waits for an instance; what became a dead letter meanwhile is a failure."""
    clock = Clock(timeout_s)
    before = _failed(seat, instance, clock)
    while (waiting := _waits(seat, instance, clock)) and clock.left_s:
        time.sleep(min(_LOOK_S, clock.left_s))
    failed = sorted(task_id for task_id, _ in _failed(seat, instance, clock) - before)
    code = EXIT_FAILED if failed else EXIT_UNDECIDED if waiting else EXIT_OK
    if as_json:
        say_json({"instance": instance, "waiting": waiting, "failed": failed})
    else:
        for task_id in failed:
            say(f"{task_id}  failed; see: incus-courier explain {task_id}")
        say(f"{instance}: {'something still waits' if waiting else 'nothing waits'}")
    return code


def _waits(seat: Seat, instance: str, clock: Clock) -> bool:
    return bool(_search(seat, TaskFilter(instance=instance, states=PENDING), 1, clock))


def _failed(seat: Seat, instance: str, clock: Clock) -> set[tuple[str, str]]:
    """The newest dead letters, each with when it became one."""
    found = _search(seat, TaskFilter(instance=instance, states=frozenset({State.FAILED})), _MOST_FAILED, clock)
    return {(task["id"], task["updated_at"]) for task in found}


def _search(seat: Seat, wanted: TaskFilter, limit: int, clock: Clock) -> list[Values]:
    found: list[Values] = []
    after: str | None = None
    while len(found) < limit:
        some = seat.search(wanted, after, limit - len(found), min(_LONGEST_S, clock.left_s))
        found += some.tasks
        after = some.after
        if after is None:
            break
    return found
