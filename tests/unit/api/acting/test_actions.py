"""What can be done with tasks, and what becomes of it: the decisions, for each case."""

from dataclasses import replace
from typing import Any

import pytest

from api.acting.actions import ACTIONS, is_passed_over, judge, refusal_of, view_of
from api.acting.applying import asked, done, sift
from api.acting.selections import FrozenSelection, Step
from daemon.access.caller import Caller, Link, anonymous
from daemon.model.grant import Grant, Permission
from daemon.model.task import State, Task
from daemon.model.verbs import BYTES_STILL_THERE, NEWER_EXISTS, NO_SUCH_TASK, wrong_state
from daemon.task_queue import CommandAnswer
from tests.support.depot import an_upload


def caller(**keys: object) -> Caller:
    """Somebody with these rights, at c1 alone."""
    return Caller(name="token:x", links=(Link("token:x", Grant.read({"instances": ["c1"], **keys})),))


def task(state: State = State.FAILED, client: str | None = None) -> Task:
    """A task of c1."""
    return Task(order=1, upload=replace(an_upload("/x"), client=client), state=state)


def selection(**fields: Any) -> FrozenSelection:
    """A selection of dead letters to retry."""
    plain = FrozenSelection(id="", owner="token:x", root="token:x", action="retry", force=False, states=[3, 9],
                            made_at=0.0, filter={}, members={0: 9}, size_bytes=0, cut=False)
    return replace(plain, **fields)


@pytest.mark.parametrize(("may", "permission", "code", "sees"), [
    (["read", "cancel"], Permission.CANCEL, None, True), (["read"], Permission.CANCEL, "action_not_allowed", True),
    (["cancel"], Permission.CANCEL, None, True), (["upload"], Permission.CANCEL, "action_not_allowed", False),
    (["read", "save"], Permission.SAVE, None, True), (["admin"], Permission.DELETE, None, True),
])
def test_who_may_neither_act_nor_see_does_not_learn_that_there_is_a_task(
    may: list[str], permission: Permission, code: str | None, sees: bool,
) -> None:
    """Who may act knows of it; who may see is told why he may not act."""
    verdict = judge(caller(may=may), permission, task())
    assert (verdict.code, verdict.sees) == (code, sees)
    elsewhere = judge(caller(may=may, paths=["/y/**"]), permission, task())
    assert elsewhere.code is not None
    assert not elsewhere.sees


def test_own_tasks_alone_count_where_the_grant_says_so() -> None:
    """Also for who may everything else."""
    own = caller(may=["read", "cancel"], own=True)
    assert [judge(own, Permission.CANCEL, task(client=client)).sees for client in ("token:x", "token:y", None)] == [
        True, False, False]


def test_who_may_not_see_is_told_the_state_alone() -> None:
    """Nothing else of a task that he may act on."""
    assert view_of(caller(may=["cancel"]), task()).keys() == {"id", "state"}
    assert "path" in view_of(anonymous(None), task())


@pytest.mark.parametrize(("reason", "code", "passed_over"), [
    (NEWER_EXISTS, "newer_upload", False), (BYTES_STILL_THERE, "bytes_still_there", True),
    (NO_SUCH_TASK, "task_not_found", True), (wrong_state("retry", State.HELD), "wrong_state", True),
])
def test_each_reason_of_the_worker_has_a_code(reason: str, code: str, passed_over: bool) -> None:
    """In bulk, only what a newer upload stands over counts as refused."""
    answer = CommandAnswer(number=1, refused=1, reason=reason)
    refusal = refusal_of(ACTIONS["retry"], answer)
    assert refusal is not None
    assert refusal.code == code
    assert is_passed_over(answer) is passed_over
    assert refusal_of(ACTIONS["retry"], CommandAnswer(number=1, changed=1)) is None


def test_a_batch_is_what_still_fits_and_is_still_allowed() -> None:
    """Members that are gone or moved on are skipped, those without the right refused."""
    tasks = [task(), task(State.DEFERRED), task(State.DELIVERED), task(client="token:y")]
    members = [*(each.task_id for each in tasks), "gone"]
    found = sift(selection(force=True), members, tasks, caller(may=["retry"]), 7.5)
    assert [(command.verb, command.force, command.asked_by, command.asked_at) for command in found.commands] == [
        ("retry", True, "token:x", 7.5)] * 3
    assert (found.skipped, found.refused) == (2, 0)
    nothing = sift(selection(), members, tasks, caller(may=["read"]), 7.5)
    assert (nothing.commands, nothing.skipped, nothing.refused) == ((), 2, 3)
    finished = sift(selection(action="delete", states=[7, 9]), ["a"], [task(State.CANCELLED)], anonymous(None), 7.5)
    assert len(finished.commands) == 1


def test_steps_add_up() -> None:
    """What was asked for counts once it is answered, and only then."""
    step = Step(done=5, changed=3, skipped=1, refused=1)
    waiting = asked(step, sift(selection(), ["gone"], [], caller(may=["retry"]), 1.0), 1.0)
    assert (waiting.done, waiting.skipped, waiting.asked_skipped, waiting.asked_at) == (5, 1, 1, 1.0)
    answers = [CommandAnswer(number=1, changed=1), CommandAnswer(number=2, refused=1, reason=NEWER_EXISTS),
               CommandAnswer(number=3, refused=1, reason=NO_SUCH_TASK)]
    assert done(waiting, 4, answers) == Step(done=9, changed=4, skipped=3, refused=2)
