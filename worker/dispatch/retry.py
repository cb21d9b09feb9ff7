"""When a push is tried again and when it is given up: pure functions of their arguments."""

import random
from dataclasses import dataclass

from daemon.config import Retry
from daemon.errors import ERRORS, Action
from daemon.model.task import State, Task


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What becomes of a task whose push did not work."""

    state: State
    attempts: int
    code: str
    message: str
    due_at: float | None = None


def delay_s(attempts: int, retry: Retry, rng: random.Random) -> float:
    """How long to wait after the `attempts`-th failure: exponential, capped, with jitter from below.

    jitter 1 draws from the whole range down to 0 (full jitter), jitter 0 always waits the full time.
    """
    ceiling = float(min(retry.max_delay_s, retry.first_delay_s * 2.0 ** min(attempts - 1, 60)))
    return ceiling * (1.0 - retry.jitter * rng.random())


def decide(
    task: Task, code: str, message: str, *, retry: Retry, now: float, outage_s: float, rng: random.Random,
) -> Decision:
    """Decide what becomes of a task whose push ended with the error `code`.

    A wait counts no attempt. A retry is given up when the task is older than `give_up_after_s`, not counting the
    time its remote was away (`outage_s` in all), or has used its attempts.
    """
    action = ERRORS[code].action
    if action is Action.WAIT:
        return Decision(state=State.QUEUED, attempts=task.attempts, code=code, message=message)
    attempts = task.attempts + 1
    if action is not Action.RETRY:
        return Decision(state=State.FAILED, attempts=attempts, code=code, message=message)
    due_at = now + delay_s(attempts, retry, rng)
    if is_too_old(task, retry, now, outage_s) or (retry.max_attempts and attempts >= retry.max_attempts):
        return Decision(state=State.FAILED, attempts=attempts, code="gave_up", message=f"{code}: {message}")
    return Decision(state=State.DEFERRED, attempts=attempts, code=code, message=message, due_at=due_at)


def is_too_old(task: Task, retry: Retry, now: float, outage_s: float) -> bool:
    """True when the task is to be given up for its age."""
    return bool(retry.give_up_after_s) and now - outage_s - task.age_base > retry.give_up_after_s
