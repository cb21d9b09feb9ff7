"""When a push is tried again and when it is given up: pure functions of their arguments."""

import random
from dataclasses import dataclass

from daemon.config import Retry
from daemon.errors import ERRORS, Action, Cause, Scope
from daemon.model.task import State, Task


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What becomes of a task whose push did not work."""

    state: State
    attempts: int
    code: str
    message: str
    due_at: float | None = None
    #: So many seconds more do not count towards its age.
    ageless_s: float = 0.0


def delay_s(attempts: int, retry: Retry, rng: random.Random) -> float:
    """How long to wait after the `attempts`-th failure: exponential, capped, with jitter from below.

    jitter 1 draws from the whole range down to 0 (full jitter), jitter 0 always waits the full time.
    """
    return _up_to(retry.first_delay_s * 2.0 ** min(attempts - 1, 60), retry, rng)


def wait_s(waited_s: float, retry: Retry, rng: random.Random) -> float:
    """How long one task waits before it is looked at again, when it has waited for so long: as long again, as above."""
    return _up_to(max(retry.first_delay_s, waited_s), retry, rng)


def _up_to(ceiling_s: float, retry: Retry, rng: random.Random) -> float:
    return float(min(retry.max_delay_s, ceiling_s)) * (1.0 - retry.jitter * rng.random())


def decide(
    task: Task, code: str, message: str, *, retry: Retry, now: float, outage_s: float, rng: random.Random,
) -> Decision:
    """Decide what becomes of a task whose push ended with the error `code`.

    A wait counts no attempt, and makes nothing older. A task that waits alone is put off, so that those that need not
    wait go on; where all of an instance or a remote waits, that is seen to elsewhere. A retry is given up when the task
    is older than `give_up_after_s`, not counting the time its remote was away (`outage_s` in all), or has used its
    attempts.
    """
    kind = ERRORS[code]
    if kind.action is Action.WAIT:
        if kind.scope is not Scope.TASK or kind.cause is Cause.HERE:
            return Decision(state=State.QUEUED, attempts=task.attempts, code=code, message=message)
        put_off_s = wait_s(now - task.upload.created_at, retry, rng)
        return Decision(state=State.DEFERRED, attempts=task.attempts, code=code, message=message,
                        due_at=now + put_off_s, ageless_s=put_off_s)
    attempts = task.attempts + 1
    if kind.action is not Action.RETRY:
        return Decision(state=State.FAILED, attempts=attempts, code=code, message=message)
    due_at = now + delay_s(attempts, retry, rng)
    if is_too_old(task, retry, now, outage_s) or (retry.max_attempts and attempts >= retry.max_attempts):
        return Decision(state=State.FAILED, attempts=attempts, code="gave_up", message=f"{code}: {message}")
    return Decision(state=State.DEFERRED, attempts=attempts, code=code, message=message, due_at=due_at)


def is_too_old(task: Task, retry: Retry, now: float, outage_s: float) -> bool:
    """True when the task is to be given up for its age."""
    return bool(retry.give_up_after_s) and now - outage_s - task.age_base > retry.give_up_after_s
