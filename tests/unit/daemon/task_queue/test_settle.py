"""How a push ends in the queue."""

import time

import pytest

from daemon.model.task import State
from daemon.task_queue import Change, Settlement
from tests.support.depot import Depot, an_upload


def hand_back(depot: Depot) -> None:
    """Queue again what is claimed."""
    depot.queue.resume(supersede=False)


def test_settlement_counts_for_claimed_tasks_only(depot: Depot) -> None:
    """What a late runner has to say about a task that is no longer its own is not heard."""
    upload = depot.accept()
    depot.queue.settle([Settlement(order=depot.task(upload).order, state=State.DELIVERED, attempts=1)])
    assert depot.state(upload) is State.QUEUED


@pytest.mark.parametrize(("state", "compares"), [(State.QUEUED, True), (State.DEFERRED, True), (State.DELIVERED, False)])
def test_comparison_that_could_not_be_made_yet_is_still_a_comparison(depot: Depot, state: State, compares: bool) -> None:
    """The file may be as it was delivered, and its bytes may be gone from the spool."""
    upload = depot.accept()
    depot.settle(upload, State.DELIVERED)
    depot.queue.recheck_unsynced()
    [task] = depot.claim()
    depot.queue.settle([Settlement(order=task.order, state=state, due_at=4e9)])
    assert depot.task(upload).recheck is compares


def test_settlement_of_an_overtaken_task_that_is_not_through_supersedes_it(depot: Depot) -> None:
    """A newer upload that came while the older was being pushed replaces it, unless it was delivered."""
    older = depot.accept("/f")
    [task] = depot.claim()
    newer = depot.accept("/f")
    settled = depot.queue.settle([Settlement(order=task.order, state=State.DEFERRED, attempts=1, due_at=4e9)])
    assert settled.superseded == {task.order}
    assert depot.state(older) is State.SUPERSEDED
    assert [task.task_id for task in depot.claim()] == [newer.task_id]


def test_settlement_keeps_an_overtaken_task_where_all_are_to_be_delivered(depot: Depot) -> None:
    """With `deliver-all` the older is tried again, and the newer waits."""
    older = depot.accept("/f")
    [task] = depot.claim()
    depot.put(an_upload("/f"), supersede=False)
    settled = depot.queue.settle([Settlement(order=task.order, state=State.QUEUED)], supersede=False)
    assert settled.finished == set()
    assert [task.task_id for task in depot.claim()] == [older.task_id]


def test_settlement_without_a_count_leaves_the_attempts(depot: Depot) -> None:
    """Handing a task back is no attempt."""
    upload = depot.accept()
    depot.settle(upload, State.DEFERRED, due_at=1.0)
    depot.queue.promote_due(2.0, 10)
    [task] = depot.claim()
    depot.queue.settle([Settlement(order=task.order, state=State.QUEUED)])
    assert depot.task(upload).attempts == 1


@pytest.mark.parametrize(("wish", "settled", "becomes"), [
    (State.CANCELLED, State.QUEUED, State.CANCELLED), (State.CANCELLED, State.DEFERRED, State.CANCELLED),
    (State.CANCELLED, State.FAILED, State.CANCELLED), (State.CANCELLED, State.DELIVERED, State.DELIVERED),
    (State.HELD, State.QUEUED, State.HELD), (State.HELD, State.DEFERRED, State.HELD),
    (State.HELD, State.FAILED, State.FAILED), (State.HELD, State.DELIVERED, State.DELIVERED),
    (State.HELD, State.CANCELLED, State.CANCELLED),
])
def test_wish_for_a_task_that_is_pushed_is_granted_unless_it_is_too_late(
    depot: Depot, wish: State, settled: State, becomes: State,
) -> None:
    """What a person asks for while a task is pushed survives however the push ends, short of a delivery."""
    upload = depot.accept()
    [task] = depot.claim()
    depot.queue.change([Change(task=task, state=wish, when_settled=True)])
    depot.reopen()
    depot.queue.settle([Settlement(order=task.order, state=settled, attempts=1, due_at=4e9)])
    assert depot.state(upload) is becomes
    assert becomes is settled or depot.task(upload).due_at is None


@pytest.mark.parametrize("wish", [State.CANCELLED, State.HELD])
def test_wish_survives_the_death_of_the_worker(depot: Depot, wish: State) -> None:
    """A cancelled task is not delivered after all because the worker was killed."""
    upload = depot.accept()
    [task] = depot.claim()
    depot.queue.change([Change(task=task, state=wish, when_settled=True)])
    depot.reopen()
    assert depot.queue.resume(supersede=True) == 1
    assert depot.state(upload) is wish
    hand_back(depot)
    assert depot.claim() == []


def test_wish_is_for_the_push_during_which_it_was_made(depot: Depot) -> None:
    """A wish that came too late does not meet the task a second time."""
    upload = depot.accept()
    [task] = depot.claim()
    depot.queue.change([Change(task=task, state=State.HELD, when_settled=True)])
    depot.queue.settle([Settlement(order=task.order, state=State.FAILED, attempts=1)])
    depot.queue.change([Change(task=depot.task(upload), state=State.QUEUED)])
    depot.settle(upload, State.DEFERRED, due_at=4e9)
    assert depot.state(upload) is State.DEFERRED


@pytest.mark.parametrize("died", [False, True])
def test_task_is_superseded_after_its_push_when_the_newer_upload_is_cleared_by_then(depot: Depot, died: bool) -> None:
    """What becomes of a task does not depend on how long finished ones are listed."""
    older = depot.accept()
    [task] = depot.claim()
    newer = depot.accept()
    depot.queue.change([Change(task=depot.task(newer), state=State.CANCELLED)])
    depot.queue.unspool([depot.task(newer).order])
    assert depot.queue.clear_finished(time.time() + 1, 0, 10) == 1
    if died:
        depot.queue.resume(supersede=True)
    else:
        depot.queue.settle([Settlement(order=task.order, state=State.QUEUED)], supersede=True)
    assert depot.state(older) is State.SUPERSEDED
