"""What a worker can rely on while it pushes."""

import pytest

from daemon.model.task import Attempt, State
from daemon.model.upload import Upload
from daemon.task_queue import BULK_BYTES, Change, Settlement, TaskQueue
from tests.support.depot import an_upload, sealed
from tests.unit.daemon.conformance.doors import (
    KEY,
    LATER_S,
    QueueStore,
    accept,
    bring,
    claim,
    ids,
    several,
    state_of,
    task_of,
)

# --- claiming ----------------------------------------------------------------------------------------------


def test_tasks_are_claimed_in_the_order_of_acceptance_and_each_once(queue: TaskQueue) -> None:
    """The oldest first, up to the limit."""
    uploads = accept(queue, *several(5))
    assert claim(queue, 3) == ids(uploads[:3])
    assert claim(queue, 3) == ids(uploads[3:])
    assert claim(queue) == []
    assert queue.doubtful_claims() == []
    assert {state_of(queue, upload) for upload in uploads} == {State.PUSHING}


def test_small_tasks_and_bulky_ones_are_claimed_apart(queue: TaskQueue) -> None:
    """A task of BULK_BYTES is bulky."""
    small, bulky = accept(queue, an_upload("/a", size=BULK_BYTES - 1), an_upload("/b", size=BULK_BYTES))
    assert [task.upload for task in queue.claim(KEY, 9, bulk=True)] == [bulky]
    assert [task.upload for task in queue.claim(KEY, 9)] == [small]


@pytest.mark.parametrize(("share", "number"), [(0.0, 0), (0.5, 2), (0.99, 4)])
def test_claim_begins_where_it_is_told_to(queue: TaskQueue, share: float, number: int) -> None:
    """Not with the oldest, but with one that is so far on the way to the newest."""
    uploads = accept(queue, *several(5))
    assert [task.upload for task in queue.claim(KEY, 1, share=share)] == [uploads[number]]


@pytest.mark.parametrize("state", [state for state in State if state is not State.SUPERSEDED])
def test_task_waits_while_an_older_one_of_its_path_is_to_be_pushed(queue: TaskQueue, state: State) -> None:
    """Two of one path are never pushed at once, nor the newer before the older."""
    older, newer = bring(queue, an_upload("/f"), state), an_upload("/f")
    accept(queue, newer)
    blocker = queue.blocker(task_of(queue, newer))
    waits = state in {State.QUEUED, State.PUSHING, State.DEFERRED}
    assert (blocker is not None and blocker.task_id == older.task_id) is waits
    expected = {State.QUEUED: [older.task_id], State.PUSHING: [], State.DEFERRED: []}.get(state, [newer.task_id])
    assert claim(queue) == expected


def test_instances_with_queued_tasks_are_told_in_the_order_of_their_keys(queue: TaskQueue) -> None:
    """Page by page; one whose tasks are all being pushed is not among them."""
    accept(queue, *(an_upload(instance=f"c{number}") for number in (3, 1, 4, 2)))
    queue.claim("local/default/c2", 9)
    keys = [f"local/default/c{number}" for number in (1, 3, 4)]
    assert queue.ready_instances("", 9) == keys
    assert queue.ready_instances("", 2) == keys[:2]
    assert queue.ready_instances(keys[0], 9) == keys[1:]
    assert queue.ready_instances(keys[2], 9) == []


def test_instances_that_are_asked_about_are_told_in_the_order_of_the_question(queue: TaskQueue) -> None:
    """Those with queued tasks, however many there are."""
    keys = [f"local/default/c{number}" for number in range(200)]
    accept(queue, *(an_upload(instance=f"c{number}") for number in range(0, 200, 2)))
    queue.claim(keys[0], 9)
    assert queue.ready_among(keys[::-1]) == keys[198:0:-2]
    assert queue.ready_among([]) == []


def test_newest_tasks_tell_their_instances(queue: TaskQueue) -> None:
    """Those after the last one that was seen, the newest first, each once."""
    first, *_, newest = accept(queue, *(an_upload(instance=instance) for instance in "abcbd"))
    keys = [f"local/default/{instance}" for instance in "dbc"]
    last = task_of(queue, newest).order
    assert queue.arrivals(task_of(queue, first).order, 10) == (last, keys)
    assert queue.arrivals(task_of(queue, first).order, 2) == (last, keys[:2])
    assert queue.arrivals(last, 10) == (last, [])


def test_deferred_task_can_be_claimed_when_its_time_has_come(queue: TaskQueue) -> None:
    """The earliest first, as many as are asked for."""
    uploads = several(3)
    accept(queue, *uploads)
    tasks = queue.claim(KEY, 3)
    queue.settle([Settlement(order=task.order, state=State.DEFERRED, due_at=100.0 - number)
                  for number, task in enumerate(tasks)])
    assert queue.next_due_at() == 98.0
    assert queue.promote_due(97.0, 9) == 0
    assert queue.promote_due(99.0, 1) == 1
    assert claim(queue) == [uploads[2].task_id]
    assert queue.promote_due(100.0, 9) == 2
    assert claim(queue) == ids(uploads[:2])
    assert queue.next_due_at() is None


def test_deferred_tasks_of_an_instance_can_be_claimed_before_their_time(queue: TaskQueue) -> None:
    """Of this instance alone, the oldest first, as many as are asked for."""
    uploads = [bring(queue, upload, State.DEFERRED) for upload in [*several(3), an_upload(instance="c2")]]
    assert queue.release_instance(KEY, 2) == 2
    assert claim(queue) == ids(uploads[:2])
    assert queue.release_instance(KEY, 9) == 1
    assert queue.release_instance(KEY, 9) == 0
    assert state_of(queue, uploads[3]) is State.DEFERRED


def test_task_that_is_due_too_late_can_be_claimed(queue: TaskQueue) -> None:
    """The clock was set back since it was put off."""
    upload = bring(queue, an_upload(), State.DEFERRED)
    assert queue.release_late(LATER_S, 9) == 0
    assert queue.release_late(LATER_S - 1, 9) == 1
    assert claim(queue) == [upload.task_id]


# --- settling ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.QUEUED, State.DEFERRED, State.HELD, State.DELIVERED, State.CANCELLED, State.FAILED])
def test_settlement_is_kept(queues: QueueStore, queue: TaskQueue, state: State) -> None:
    """Where the task stands, how often it was tried, what went wrong, when it is tried again."""
    upload = bring(queue, an_upload(), State.PUSHING)
    settled = queue.settle([Settlement(
        order=task_of(queue, upload).order, state=state, attempts=3, error_code="stalled", error_message="it stalled",
        due_at=7.0, spooled=False)])
    assert (settled.superseded, settled.cancelled, settled.held) == (frozenset(), frozenset(), frozenset())
    queues.close()
    task = task_of(queues.open(), upload)
    assert (task.state, task.attempts, task.error_code, task.error_message, task.due_at, task.spooled) == (
        state, 3, "stalled", "it stalled", 7.0, False)


def test_settlement_without_a_count_leaves_the_attempts(queue: TaskQueue) -> None:
    """Handing a task back is no attempt."""
    upload = bring(queue, an_upload(), State.DEFERRED)
    queue.release_instance(KEY, 9)
    [task] = queue.claim(KEY, 9)
    queue.settle([Settlement(order=task.order, state=State.QUEUED)])
    assert task_of(queue, upload).attempts == 1


def test_settlement_counts_for_claimed_tasks_only(queue: TaskQueue) -> None:
    """What a late runner has to say about a task that is no longer its own is not heard."""
    [upload] = accept(queue, an_upload())
    queue.settle([Settlement(order=task_of(queue, upload).order, state=State.DELIVERED, attempts=1)])
    assert state_of(queue, upload) is State.QUEUED


@pytest.mark.parametrize("supersede", [True, False])
@pytest.mark.parametrize("state", [State.QUEUED, State.DEFERRED, State.DELIVERED, State.FAILED])
def test_overtaken_task_is_superseded_when_it_is_not_through(queue: TaskQueue, state: State, supersede: bool) -> None:
    """A newer upload that came meanwhile replaces it, unless all are to be delivered."""
    older, newer = bring(queue, an_upload("/f"), State.PUSHING), an_upload("/f")
    queue.put_many(sealed(newer), supersede=supersede)
    order = task_of(queue, older).order
    settled = queue.settle([Settlement(order=order, state=state, due_at=LATER_S)], supersede=supersede)
    replaced = supersede and state in {State.QUEUED, State.DEFERRED}
    assert settled.finished == ({order} if replaced else set())
    assert state_of(queue, older) is (State.SUPERSEDED if replaced else state)


@pytest.mark.parametrize(("wish", "state", "becomes"), [
    (State.CANCELLED, State.QUEUED, State.CANCELLED), (State.CANCELLED, State.DEFERRED, State.CANCELLED),
    (State.CANCELLED, State.FAILED, State.CANCELLED), (State.CANCELLED, State.DELIVERED, State.DELIVERED),
    (State.HELD, State.QUEUED, State.HELD), (State.HELD, State.DEFERRED, State.HELD),
    (State.HELD, State.FAILED, State.FAILED), (State.HELD, State.DELIVERED, State.DELIVERED),
])
def test_wish_for_a_task_that_is_pushed_is_granted_unless_it_is_too_late(
    queues: QueueStore, queue: TaskQueue, wish: State, state: State, becomes: State,
) -> None:
    """What a person asks for while a task is pushed is kept until the push ends, short of a delivery."""
    upload = bring(queue, an_upload(), State.PUSHING)
    task = task_of(queue, upload)
    assert queue.change([Change(task=task, state=wish, when_settled=True)]) == 1
    queues.close()
    queue = queues.open()
    settled = queue.settle([Settlement(order=task.order, state=state, attempts=1, due_at=LATER_S)])
    assert state_of(queue, upload) is becomes
    otherwise = {State.CANCELLED: settled.cancelled, State.HELD: settled.held}.get(becomes, frozenset())
    assert otherwise == (frozenset() if becomes is state else {task.order})


# --- taking up what a worker left --------------------------------------------------------------------------


@pytest.mark.parametrize("wish", [None, State.CANCELLED, State.HELD])
def test_task_that_a_dead_worker_pushed_is_queued_again_unless_a_person_wished_otherwise(
    queues: QueueStore, queue: TaskQueue, wish: State | None,
) -> None:
    """Only what was being pushed; a cancelled task is not delivered after all because the worker was killed."""
    upload = bring(queue, an_upload("/f"), State.PUSHING)
    [waiting] = accept(queue, an_upload("/g"))
    if wish is not None:
        queue.change([Change(task=task_of(queue, upload), state=wish, when_settled=True)])
    queues.close()
    queue = queues.open()
    assert [task.upload for task in queue.left_pushing()] == ([upload] if wish is None else [])
    assert queue.resume(supersede=True) == 1
    assert queue.left_pushing() == []
    assert state_of(queue, upload) is (wish or State.QUEUED)
    assert state_of(queue, waiting) is State.QUEUED


@pytest.mark.parametrize("supersede", [True, False])
def test_task_that_a_dead_worker_pushed_makes_way_for_a_newer_one(queue: TaskQueue, supersede: bool) -> None:
    """Unless all are to be delivered."""
    older = bring(queue, an_upload("/f"), State.PUSHING)
    accept(queue, an_upload("/f"))
    queue.resume(supersede=supersede)
    assert state_of(queue, older) is (State.SUPERSEDED if supersede else State.QUEUED)


def test_delivery_elsewhere_is_looked_at_again_after_a_crash_there(queue: TaskQueue) -> None:
    """Of that instance, or that remote, and no other; what is on this machine stays as it is."""
    def deliver(path: str, where: str, *, elsewhere: bool, identity: str | None = "i") -> Upload:
        remote, instance = where.split(":")
        upload = bring(queue, an_upload(path, remote=remote, instance=instance), State.PUSHING)
        queue.settle([Settlement(order=task_of(queue, upload).order, state=State.DELIVERED, attempts=1,
                                 attempt=Attempt(at=99.0, duration_s=0.1, elsewhere=elsewhere, identity=identity))])
        return upload

    here, far = deliver("/here", "local:c1", elsewhere=False), deliver("/far", "local:c1", elsewhere=True)
    other, eu = deliver("/other", "local:c11", elsewhere=True), deliver("/eu", "eu:c1", elsewhere=True)
    stopped = deliver("/stopped", "local:c1", elsewhere=True, identity=None)
    assert queue.recheck_unsynced("local/default/c1") == 1
    assert (state_of(queue, far), task_of(queue, far).recheck) == (State.QUEUED, True)
    assert {state_of(queue, each) for each in (here, other, eu, stopped)} == {State.DELIVERED}
    assert queue.recheck_unsynced("local/") == 1
    assert queue.recheck_unsynced("e/") == 0
    assert queue.recheck_unsynced("eu/") == 1
    assert {state_of(queue, each) for each in (other, eu)} == {State.QUEUED}


def test_delivery_that_may_not_have_reached_the_disk_is_looked_at_again(queue: TaskQueue) -> None:
    """Only one whose bytes are left, and only the newest of its path."""
    gone, overtaken, newest = (bring(queue, an_upload(path), State.DELIVERED) for path in ("/gone", "/f", "/f"))
    queue.unspool([task_of(queue, gone).order])
    assert queue.recheck_unsynced() == 1
    assert (state_of(queue, newest), task_of(queue, newest).recheck) == (State.QUEUED, True)
    assert {state_of(queue, gone), state_of(queue, overtaken)} == {State.DELIVERED}
