import random
from dataclasses import replace

import pytest

from daemon.config import Retry
from daemon.errors import ERRORS, Action, Cause, Scope
from daemon.model.task import State, Task
from tests.support.depot import an_upload
from worker.dispatch.retry import Decision, decide, delay_s, is_too_old

NOW = 1_000_000.0
RETRY = Retry(first_delay_s=1, max_delay_s=300, jitter=0, give_up_after_s=1000, max_attempts=0)
TASK = Task(order=1, upload=an_upload(), state=State.PUSHING, attempts=2, age_base=NOW - 100)


def decided(code: str, *, task: Task = TASK, retry: Retry = RETRY, outage_s: float = 0.0) -> Decision:
    """What becomes of a task whose push ended with `code`."""
    return decide(task, code, "so it is", retry=retry, now=NOW, outage_s=outage_s, rng=random.Random(0))


WAITS = {code: kind for code, kind in ERRORS.items() if kind.action is Action.WAIT}
WAITS_ALONE = [code for code, kind in WAITS.items() if kind.scope is Scope.TASK and kind.cause is not Cause.HERE]


@pytest.mark.parametrize("code", [code for code in WAITS if code not in WAITS_ALONE])
def test_waiting_counts_no_attempt_and_never_ends(code: str) -> None:
    """What is not the task's own failure leaves it as it was, however old it is."""
    ancient = replace(TASK, age_base=0.0)
    assert decided(code, task=ancient, retry=RETRY.model_copy(update={"max_attempts": 1})) == Decision(
        state=State.QUEUED, attempts=2, code=code, message="so it is")


def test_only_a_path_that_a_start_would_hide_waits_alone() -> None:
    """What else has to be waited for concerns a whole instance or remote, or is this side's own."""
    assert WAITS_ALONE == ["hidden_when_stopped"]


@pytest.mark.parametrize(("waited_s", "put_off_s"), [(0, 1), (20, 20), (10_000_000, 300)])
@pytest.mark.parametrize("code", WAITS_ALONE)
def test_task_that_waits_alone_is_put_off_and_neither_counted_nor_older(code: str, waited_s: float, put_off_s: float) -> None:
    """Its lane goes on without it; it is looked at ever less often, and never given up."""
    task = replace(TASK, age_base=0.0, upload=replace(TASK.upload, created_at=NOW - waited_s))
    assert decided(code, task=task, retry=RETRY.model_copy(update={"max_attempts": 1})) == Decision(
        state=State.DEFERRED, attempts=2, code=code, message="so it is", due_at=NOW + put_off_s, ageless_s=put_off_s)


@pytest.mark.parametrize("code", [code for code, kind in ERRORS.items() if kind.action is Action.RETRY])
def test_transient_failure_is_deferred_and_counted(code: str) -> None:
    """The attempt counts, and the next one has its time."""
    assert decided(code) == Decision(state=State.DEFERRED, attempts=3, code=code, message="so it is", due_at=NOW + 4)


@pytest.mark.parametrize("code", [code for code, kind in ERRORS.items() if kind.action is Action.DEAD_LETTER])
def test_permanent_failure_is_a_dead_letter_at_once(code: str) -> None:
    """Trying again cannot help."""
    assert decided(code) == Decision(state=State.FAILED, attempts=3, code=code, message="so it is")


@pytest.mark.parametrize(("age_s", "outage_s", "gives_up"), [
    (1000, 0, False), (1001, 0, True), (5000, 4000, False), (5001, 4000, True), (10_000_000, 10_000_000, False),
])
def test_task_is_given_up_for_its_age_without_the_time_it_had_to_wait(
    age_s: float, outage_s: float, gives_up: bool,
) -> None:
    """A month in which Incus was away makes nothing older."""
    task = replace(TASK, age_base=NOW - age_s)
    assert is_too_old(task, RETRY, NOW, outage_s) is gives_up
    made = decided("connection_lost", task=task, outage_s=outage_s)
    assert made.state is (State.FAILED if gives_up else State.DEFERRED)
    if gives_up:
        assert (made.code, made.message) == ("gave_up", "connection_lost: so it is")


def test_task_is_never_given_up_for_its_age_where_that_is_off() -> None:
    """`give_up_after_s = 0` means never."""
    forever = RETRY.model_copy(update={"give_up_after_s": 0.0})
    assert decided("connection_lost", task=replace(TASK, age_base=0.0), retry=forever).state is State.DEFERRED


@pytest.mark.parametrize(("attempts", "state"), [(0, State.DEFERRED), (3, State.DEFERRED), (4, State.FAILED), (9, State.FAILED)])
def test_task_is_given_up_after_its_attempts(attempts: int, state: State) -> None:
    """The fifth of five attempts is the last."""
    five = RETRY.model_copy(update={"max_attempts": 5})
    assert decided("connection_lost", task=replace(TASK, attempts=attempts), retry=five).state is state


@pytest.mark.parametrize(("attempts", "ceiling_s"), [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (11, 300), (10_000, 300)])
def test_delay_doubles_up_to_its_limit(attempts: int, ceiling_s: float) -> None:
    """Exponential, and never over max_delay_s, however often it failed."""
    assert delay_s(attempts, RETRY, random.Random(0)) == ceiling_s


@pytest.mark.parametrize("jitter", [0.0, 0.3, 1.0])
def test_delay_is_spread_from_below_by_the_jitter(jitter: float) -> None:
    """Jitter 1 spreads over the whole time, jitter 0 not at all, and no delay is over the full one."""
    spread = RETRY.model_copy(update={"jitter": jitter})
    rng = random.Random(1)
    delays = [delay_s(5, spread, rng) for _ in range(2000)]
    assert 16 * (1 - jitter) <= min(delays) <= 16 * (1 - jitter) + 0.1
    assert 16 - 0.1 <= max(delays) <= 16
