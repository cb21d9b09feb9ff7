import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from daemon import seam
from daemon.errors import QueueFault
from daemon.task import State, Upload
from daemon.task_queue import Answer, Change, Command, Outcome, Selection, Settlement, TaskQueue
from daemon.task_queue.schema import BULK_BYTES
from tests.support.depot import Depot, an_upload

KEY = "local/default/c1"


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    seam.arm("")


def hand_back(depot: Depot) -> None:
    """Queue again what is claimed."""
    depot.queue.resume(supersede=False)


# --- putting -----------------------------------------------------------------------------------------------


def test_upload_is_put_once_however_often_it_is_tried(depot: Depot) -> None:
    """Putting a row whose outcome was unknown again is right: it is a duplicate of itself."""
    upload = depot.accept()
    for supersede in (True, False):
        [answer] = depot.queue.put_many([upload], supersede=supersede)
        assert (answer.outcome, answer.task_id, answer.superseded) == (Outcome.DUPLICATE, upload.task_id, [])
    assert len(depot.queue.page(limit=10)) == 1


def test_newer_upload_replaces_those_that_still_wait(depot: Depot) -> None:
    """Queued and deferred older ones of the same path are superseded; one that is being pushed, held or failed is not."""
    uploads = {}
    for state in (State.HELD, State.FAILED, State.DEFERRED, State.PUSHING, State.QUEUED):
        uploads[state] = an_upload("/f")
        depot.put(uploads[state], supersede=False)
        depot.queue.durable.execute("UPDATE tasks_v1 SET status = ? WHERE task_id = ?", (state, uploads[state].task_id))
    elsewhere = depot.accept("/g")
    [answer] = depot.queue.put_many([an_upload("/f")], supersede=True)
    assert set(answer.superseded) == {uploads[State.DEFERRED].task_id, uploads[State.QUEUED].task_id}
    assert [depot.state(uploads[state]) for state in (State.HELD, State.FAILED, State.PUSHING)] == [
        State.HELD, State.FAILED, State.PUSHING]
    assert depot.state(elsewhere) is State.QUEUED


def test_uploads_of_one_transaction_replace_one_another(depot: Depot) -> None:
    """Of several to one path in one transaction only the last is to be delivered."""
    uploads = [an_upload("/f") for _ in range(3)]
    answers = depot.queue.put_many(uploads, supersede=True)
    assert [sorted(answer.superseded) for answer in answers] == [[], [], [uploads[0].task_id, uploads[1].task_id]]
    assert depot.task(uploads[0]).error_message == f"Replaced by {uploads[2].task_id}."


def test_failed_transaction_keeps_none_of_its_uploads(depot: Depot) -> None:
    """All or nothing, and that it was nothing is known."""
    seam.arm("queue.insert=EIO@2")
    with pytest.raises(QueueFault) as caught:
        depot.queue.put_many([an_upload("/a"), an_upload("/b")], supersede=True)
    assert caught.value.certainly_failed
    assert depot.queue.page(limit=10) == []
    assert depot.queue.tallies() == []


# --- idempotency keys --------------------------------------------------------------------------------------


def test_key_stands_for_its_first_upload(depot: Depot) -> None:
    """The same upload with the same key is answered with the first one's id, and nothing is kept of it."""
    first = depot.accept(idempotency_key="k")
    [answer] = depot.queue.put_many([an_upload(idempotency_key="k")], supersede=True)
    assert (answer.outcome, answer.task_id) == (Outcome.DUPLICATE, first.task_id)
    assert depot.state(first) is State.QUEUED


@pytest.mark.parametrize("other", [an_upload("/other", idempotency_key="k"), an_upload(data=b"other", idempotency_key="k"),
                                   an_upload(mode=0o600, idempotency_key="k"), an_upload(idempotency_key="k", mkdirs=True)])
def test_key_is_refused_for_another_upload(depot: Depot, other: Upload) -> None:
    """Any difference in what would be done is a mismatch."""
    depot.accept(idempotency_key="k")
    [answer] = depot.queue.put_many([other], supersede=True)
    assert answer.outcome is Outcome.MISMATCH
    assert depot.queue.find(other.task_id) is None


def test_key_that_is_refused_rolls_back_none_of_its_neighbours(depot: Depot) -> None:
    """Uploads that happen to share a transaction do not share a fate."""
    depot.accept(idempotency_key="k")
    uploads = [an_upload("/a"), an_upload("/b", idempotency_key="k"), an_upload("/c", idempotency_key="other")]
    answers = depot.queue.put_many(uploads, supersede=True)
    assert [answer.outcome for answer in answers] == [Outcome.ACCEPTED, Outcome.MISMATCH, Outcome.ACCEPTED]
    assert depot.queue.find(uploads[1].task_id) is None


def test_key_is_unique_across_shards(depot: Depot) -> None:
    """Another instance's shard knows the key too."""
    depot.accept(idempotency_key="k")
    with TaskQueue(depot.layout, 1) as other:
        [answer] = other.put_many([an_upload(instance="c2", idempotency_key="k")], supersede=True)
    assert answer.outcome is Outcome.MISMATCH


def test_key_whose_upload_is_lost_stands_for_the_next(depot: Depot) -> None:
    """A repeat is acknowledged only if the first one is finished or its bytes are there."""
    first = depot.accept(idempotency_key="k")
    depot.spool.remove([first])
    again = an_upload(idempotency_key="k")
    [answer] = depot.queue.put_many([again], supersede=True)
    assert (answer.outcome, answer.task_id) == (Outcome.ACCEPTED, again.task_id)


def test_key_of_a_finished_upload_still_stands_for_it(depot: Depot) -> None:
    """After the delivery and the removal of the bytes a repeat is still a repeat."""
    first = depot.accept(idempotency_key="k")
    depot.settle(first, State.DELIVERED)
    depot.spool.remove([first])
    [answer] = depot.queue.put_many([an_upload(idempotency_key="k")], supersede=True)
    assert (answer.outcome, answer.task_id) == (Outcome.DUPLICATE, first.task_id)


def test_key_goes_with_its_row(depot: Depot) -> None:
    """When a finished row is cleared its key can be used again."""
    first = depot.accept(idempotency_key="k")
    depot.settle(first, State.DELIVERED)
    depot.queue.unspool([depot.task(first).order])
    assert depot.queue.clear_finished(time.time() + 1, 0, 10) == 1
    [answer] = depot.queue.put_many([an_upload("/other", idempotency_key="k")], supersede=True)
    assert answer.outcome is Outcome.ACCEPTED


# --- claiming ----------------------------------------------------------------------------------------------


def test_claim_gives_tasks_in_the_order_of_acceptance(depot: Depot) -> None:
    """The oldest first, up to the limit, and each once."""
    uploads = [depot.accept(f"/{number}") for number in range(5)]
    assert [task.task_id for task in depot.claim(limit=3)] == [upload.task_id for upload in uploads[:3]]
    assert [task.task_id for task in depot.claim(limit=3)] == [upload.task_id for upload in uploads[3:]]
    assert depot.claim() == []


@pytest.mark.parametrize("state", [State.QUEUED, State.PUSHING, State.DEFERRED])
def test_claim_leaves_a_task_alone_while_an_older_one_of_its_path_is_to_be_pushed(depot: Depot, state: State) -> None:
    """Two of one path are never pushed at once, nor the newer before the older."""
    older, newer = depot.accept("/f"), an_upload("/f")
    depot.put(newer, supersede=False)
    other = depot.accept("/g")
    depot.queue.durable.execute("UPDATE tasks_v1 SET status = ? WHERE task_id = ?", (state, older.task_id))
    claimed = {task.task_id for task in depot.claim()}
    assert claimed == {other.task_id} | ({older.task_id} if state is State.QUEUED else set())


@pytest.mark.parametrize("state", [State.HELD, State.FAILED, State.DELIVERED, State.SUPERSEDED, State.CANCELLED])
def test_claim_waits_for_no_older_one_that_will_not_be_pushed(depot: Depot, state: State) -> None:
    """A dead letter or a held upload does not keep newer ones of its path from being delivered."""
    older, newer = depot.accept("/f"), an_upload("/f")
    depot.put(newer, supersede=False)
    depot.queue.durable.execute("UPDATE tasks_v1 SET status = ? WHERE task_id = ?", (state, older.task_id))
    assert [task.task_id for task in depot.claim()] == [newer.task_id]


def _settled(depot: Depot, state: State) -> None:
    depot.queue.settle([Settlement(order=task.order, state=state) for task in depot.claim()], supersede=False)


def _changed(depot: Depot, upload: Upload, state: State, *, anew: bool = False) -> None:
    depot.queue.change([Change(task=depot.task(upload), state=state, anew=anew)])


def _deferred_and_retried(depot: Depot, upload: Upload) -> None:
    _settled(depot, State.DEFERRED)
    _changed(depot, upload, State.QUEUED, anew=True)


def _released(depot: Depot, upload: Upload) -> None:
    _changed(depot, upload, State.HELD)
    _changed(depot, upload, State.QUEUED, anew=True)


LEAVE: dict[str, Callable[[Depot, Upload], object]] = {
    "delivered": lambda depot, _: _settled(depot, State.DELIVERED),
    "failed": lambda depot, _: _settled(depot, State.FAILED),
    "held": lambda depot, upload: _changed(depot, upload, State.HELD),
    "cancelled": lambda depot, upload: _changed(depot, upload, State.CANCELLED),
    "given up": lambda depot, _: depot.queue.give_up(depot.queue.aged(KEY, 4e9, 1), "down"),
    "retried by force": _deferred_and_retried,
    "released by force": _released,
    "buried": lambda depot, upload: depot.queue.bury(depot.task(upload).order, State.QUEUED, "bytes_missing", "gone"),
    "dropped": lambda depot, upload: depot.queue.drop(depot.task(upload).order),
    "mended": lambda depot, upload: depot.queue.mend(depot.task(upload).order, KEY, upload, State.FAILED, None, None),
}


@pytest.mark.parametrize("way", LEAVE)
def test_next_of_a_path_can_be_claimed_however_the_one_before_left(depot: Depot, way: str) -> None:
    """Nothing waits for what is not to be pushed any more, or comes after it now; and the order stays."""
    first, *others = [an_upload("/f") for _ in range(4)]
    for upload in (first, *others):
        depot.put(upload, supersede=False)
    LEAVE[way](depot, first)
    for upload in others:
        assert [task.task_id for task in depot.claim()] == [upload.task_id]
        depot.queue.settle([Settlement(order=depot.task(upload).order, state=State.DELIVERED)], supersede=False)


def test_next_of_a_path_can_be_claimed_although_others_of_it_left_before(depot: Depot) -> None:
    """Those in the middle may go first: the order of the others stays."""
    uploads = [an_upload("/f") for _ in range(6)]
    depot.queue.put_many(uploads, supersede=False)
    for number in (2, 1, 4):
        _changed(depot, uploads[number], State.CANCELLED)
    for number in (0, 3, 5):
        assert [task.task_id for task in depot.claim()] == [uploads[number].task_id]
        depot.queue.settle([Settlement(order=depot.task(uploads[number]).order, state=State.DELIVERED)], supersede=False)


def test_upload_that_is_found_without_a_row_goes_before_those_that_wait_for_its_path(depot: Depot) -> None:
    """All of a path are claimed in the order of their ids, whichever row was lost."""
    uploads = [an_upload("/f") for _ in range(4)]
    depot.queue.put_many(uploads, supersede=False)
    depot.queue.drop(depot.task(uploads[1]).order)
    depot.queue.restore([(uploads[1], State.QUEUED)], supersede=False)
    for upload in uploads:
        assert [task.task_id for task in depot.claim()] == [upload.task_id]
        depot.queue.settle([Settlement(order=depot.task(upload).order, state=State.DELIVERED)], supersede=False)


def test_new_worker_lets_go_what_waits_for_a_row_that_is_lost(depot: Depot) -> None:
    """A row whose path was damaged before it went keeps nothing waiting for ever."""
    lost, waiting = an_upload("/f"), an_upload("/f")
    depot.queue.put_many([lost, waiting], supersede=False)
    depot.queue.durable.execute("UPDATE tasks_v1 SET target = x'00' WHERE task_id = ?", (lost.task_id,))
    depot.queue.drop(1)
    depot.queue.resume(supersede=False)
    assert [task.task_id for task in depot.claim()] == [waiting.task_id]


def test_claim_takes_small_and_bulky_ones_apart(depot: Depot) -> None:
    """What is asked for is what comes, so that large files never stand in the way of small ones."""
    small, bulky = an_upload("/small"), an_upload("/bulky", size=BULK_BYTES)
    depot.queue.put_many([bulky, small], supersede=True)
    assert [task.task_id for task in depot.queue.claim(KEY, 10)] == [small.task_id]
    assert [task.task_id for task in depot.queue.claim(KEY, 10, bulk=True)] == [bulky.task_id]


def test_claim_keeps_the_order_of_a_path_across_small_and_bulky_ones(depot: Depot) -> None:
    """A small newer one waits for a bulky older one."""
    bulky, small = an_upload("/f", size=BULK_BYTES), an_upload("/f")
    depot.queue.put_many([bulky, small], supersede=False)
    assert depot.queue.claim(KEY, 10) == []
    assert len(depot.queue.claim(KEY, 10, bulk=True)) == 1


@pytest.mark.parametrize("damage", [
    "data = '{'", "data = ''", "data = x'ff'", "data = 7", "data = json_set(data, '$.size', 6)",
    "data = json_set(data, '$.destination.path', '/etc/shadow')", "data = json_set(data, '$.destination.instance', 'c2')",
    "data = json_set(data, '$.task_id', '01a203a8-e1df-7146-a9da-9cb36be98e81')", "target = x'00'", "size = 6",
    "data = json_set(data, '$.mode', 99999)", "data = json_set(data, '$.surprise', 1)", "attempts = 'many'",
    "due_at = 1e15", "due_at = 'soon'", "age_base = 'x'", "age_base = -1e300",
])
def test_row_that_is_damaged_is_a_dead_letter_and_holds_up_no_other(depot: Depot, damage: str) -> None:
    """Whoever can write rows cannot have anything delivered that its columns do not say; the worker goes on."""
    damaged, well = depot.accept("/damaged"), depot.accept("/well")
    depot.queue.durable.execute(f"UPDATE tasks_v1 SET {damage} WHERE task_id = ?", (damaged.task_id,))
    assert [task.task_id for task in depot.claim()] == [well.task_id]
    [(status, code)] = depot.queue.read("SELECT status, error_code FROM tasks_v1 WHERE task_id = ?", (damaged.task_id,))
    assert (status, code) == (State.FAILED, "invalid_row")


def test_row_that_is_damaged_is_left_out_of_every_list(depot: Depot) -> None:
    """No question of a worker or a person fails for one bad row."""
    for state in (State.DELIVERED, State.FAILED, State.DEFERRED):
        upload = depot.accept(f"/{state.label}")
        depot.queue.durable.execute("UPDATE tasks_v1 SET status = ?, data = '{' WHERE task_id = ?", (state, upload.task_id))
    assert depot.queue.page(limit=10) == []
    assert depot.queue.unspoolable(10) == []
    assert depot.queue.old_dead_letters(4e9, 10) == []
    assert depot.queue.aged(KEY, 4e9, 10) == []
    assert depot.queue.select(Selection(), State.FAILED, "", 10) == ([], None)
    with pytest.raises(ValueError, match="not an upload"):
        depot.queue.find(upload.task_id)


# --- part files that may be left ---------------------------------------------------------------------------


def with_parts(depot: Depot) -> list[str]:
    """The ids of the tasks whose part files are to be removed, instance by instance."""
    found: list[str] = []
    key = depot.queue.next_with_parts("")
    while key is not None:
        found += [task.task_id for task in depot.queue.left_parts(key, 10)]
        key = depot.queue.next_with_parts(key)
    return found


OPEN = {State.QUEUED, State.PUSHING, State.DEFERRED}


@pytest.mark.parametrize("state", State)
def test_part_file_of_a_push_that_a_dead_worker_had_begun_is_removed_unless_it_is_pushed_again(
    depot: Depot, state: State,
) -> None:
    """Whatever the task becomes without another attempt, its part file is not forgotten."""
    upload = depot.accept()
    depot.accept("/never-claimed", instance="c2")
    depot.claim()
    depot.reopen()
    depot.queue.resume(supersede=True)
    depot.queue.durable.execute("UPDATE tasks_v1 SET status = ?", (state,))
    assert with_parts(depot) == ([] if state in OPEN else [upload.task_id])


def test_part_file_of_a_task_that_was_overtaken_while_no_worker_ran_is_removed(depot: Depot) -> None:
    """It is superseded at the next start, and the newer one has no part file."""
    older = depot.accept("/f")
    depot.claim()
    depot.accept("/f")
    depot.queue.resume(supersede=True)
    assert with_parts(depot) == [older.task_id]


@pytest.mark.parametrize(("parts", "left"), [
    ((None,), False), ((True,), True), ((True, None), True), ((True, False), False), ((False, True), True)])
def test_part_file_is_remembered_until_an_attempt_ends_without_one(
    depot: Depot, parts: tuple[bool | None, ...], left: bool,
) -> None:
    """An attempt that never came to the part file does not tell whether an earlier one left it."""
    upload = depot.accept()
    for part in parts:
        [task] = depot.claim()
        depot.queue.settle([Settlement(order=task.order, state=State.QUEUED, part=part)])
    depot.queue.change([Change(task=depot.task(upload), state=State.CANCELLED)])
    assert with_parts(depot) == ([upload.task_id] if left else [])


def test_part_file_that_was_removed_is_forgotten(depot: Depot) -> None:
    """Each is looked for once, instance by instance, the oldest first."""
    uploads = [depot.accept(f"/{number}", instance=f"c{2 - number // 2}") for number in range(4)]
    depot.queue.durable.execute("UPDATE tasks_v1 SET status = 4, part = 1")
    order = [uploads[number].task_id for number in (2, 3, 0, 1)]
    assert with_parts(depot) == order
    for number in range(4):
        [task] = [depot.task(upload) for upload in uploads if upload.task_id == order[number]]
        depot.queue.forget_part(task.order)
        assert with_parts(depot) == order[number + 1:]


def test_claims_that_a_crash_of_the_machine_may_have_undone_may_have_left_part_files(depot: Depot) -> None:
    """The oldest of each instance, small and bulky ones, count as begun."""
    uploads = [an_upload(f"/{number}", size=1 if number < 3 else BULK_BYTES) for number in range(6)]
    depot.queue.put_many(uploads, supersede=False)
    depot.queue.suspect_claims(2)
    depot.queue.durable.execute("UPDATE tasks_v1 SET status = 7")
    assert with_parts(depot) == [uploads[number].task_id for number in (0, 1, 3, 4)]


# --- settling ----------------------------------------------------------------------------------------------


def test_settlement_counts_for_claimed_tasks_only(depot: Depot) -> None:
    """What a late runner has to say about a task that is no longer its own is not heard."""
    upload = depot.accept()
    depot.queue.settle([Settlement(order=depot.task(upload).order, state=State.DELIVERED, attempts=1)])
    assert depot.state(upload) is State.QUEUED


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


# --- changing ----------------------------------------------------------------------------------------------


def test_change_is_not_made_when_the_task_has_left_its_state(depot: Depot) -> None:
    """What was decided about one state does not happen to another."""
    upload = depot.accept("/f")
    task = depot.task(upload)
    depot.accept("/f")
    assert depot.state(upload) is State.SUPERSEDED
    assert depot.queue.change([Change(task=task, state=State.HELD)]) == 0
    assert depot.state(upload) is State.SUPERSEDED


def test_retried_task_begins_anew(depot: Depot) -> None:
    """After a person's retry it has all its attempts and its whole time again."""
    upload = depot.accept(created_at=1000.0)
    depot.settle(upload, State.FAILED)
    depot.queue.change([Change(task=depot.task(upload), state=State.QUEUED)])
    task = depot.task(upload)
    assert task.attempts == 0
    assert task.age_base > 1e9


def test_forced_task_comes_after_what_overtook_it(depot: Depot) -> None:
    """It counts as accepted just now, so that neither a crash nor another failure takes the person's word back."""
    older = depot.failed("/f")
    newer = depot.accept("/f")
    depot.queue.change([Change(task=depot.task(older), state=State.QUEUED, anew=True)])
    assert depot.task(older).order > depot.task(newer).order
    assert not depot.queue.newer_exists(older.destination.target, depot.task(older).order)
    assert [task.task_id for task in depot.claim()] == [newer.task_id]
    depot.reopen()
    depot.queue.resume(supersede=True)
    assert depot.state(older) is State.QUEUED
    assert depot.state(newer) is State.SUPERSEDED


def test_forced_task_makes_way_for_the_next_upload(depot: Depot) -> None:
    """What is accepted after a forced retry is newer than it."""
    older = depot.failed("/f")
    depot.queue.change([Change(task=depot.task(older), state=State.QUEUED, anew=True)])
    latest = depot.accept("/f")
    assert depot.task(latest).order > depot.queue.newest_order() - 1
    assert depot.state(older) is State.SUPERSEDED


def test_newer_upload_is_remembered_after_its_row_is_cleared(depot: Depot) -> None:
    """As long as an older dead letter is there, it is known that its path has moved on."""
    older = depot.failed("/f")
    newer = depot.accept("/f")
    depot.settle(newer, State.DELIVERED)
    depot.queue.unspool([depot.task(newer).order])
    depot.queue.clear_finished(time.time() + 1, 0, 10)
    assert depot.queue.find(newer.task_id) is None
    assert depot.queue.newer_exists(older.destination.target, depot.task(older).order)


# --- commands ----------------------------------------------------------------------------------------------


def test_commands_come_in_the_order_in_which_they_were_given(depot: Depot) -> None:
    """Each has a number, and is there until it is answered."""
    given = [Command(verb="hold", task_id="a", asked_by="me"), Command(verb="retry", force=True, selection=Selection(
        instance_key=KEY, states=(State.FAILED, State.DEFERRED), accepted_before=7.0, up_to_order=9))]
    numbers = depot.queue.ask(given)
    depot.reopen()
    found = depot.queue.commands(10)
    assert [command.number for command in found] == numbers
    assert [replace(command, number=0, asked_at=0.0) for command in found] == given
    assert depot.queue.pending_commands() == 2


def test_answers_add_up_and_the_first_reason_stays(depot: Depot) -> None:
    """A command about many tasks is answered in slices."""
    [number] = depot.queue.ask([Command(verb="retry", selection=Selection())])
    depot.queue.change([], [Answer(number=number, changed=2, done=False),
                            Answer(number=number, refused=1, reason="first", done=False)])
    assert not depot.queue.answers([number])[number].done
    depot.queue.change([], [Answer(number=number, refused=1, reason="second")])
    assert depot.queue.answers([number, 99]) == {
        number: Answer(number=number, changed=2, refused=2, reason="first", done=True)}
    assert depot.queue.commands(10) == []


def test_answers_are_forgotten_after_a_while(depot: Depot) -> None:
    """Only commands that were done go."""
    done, open_ = depot.queue.ask([Command(verb="retry", task_id="a"), Command(verb="hold", task_id="b")])
    depot.queue.change([], [Answer(number=done)])
    depot.queue.forget_answers(time.time() - 100)
    assert set(depot.queue.answers([done, open_])) == {done, open_}
    depot.queue.forget_answers(time.time() + 100)
    assert set(depot.queue.answers([done, open_])) == {open_}


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"states": 7}', '{"states": [99]}', '{"surprise": 1, "states": []}'])
def test_command_that_cannot_be_read_has_no_verb(depot: Depot, text: str) -> None:
    """A damaged command is refused by name, and stops nothing."""
    depot.queue.ask([Command(verb="cancel", selection=Selection())])
    depot.queue.durable.execute("UPDATE commands SET filter = ?", (text,))
    assert [command.verb for command in depot.queue.commands(10)] == [""]


def test_selection_goes_through_a_state_in_pages(depot: Depot) -> None:
    """Each page goes on where the last one ended, and the end is told."""
    uploads = [depot.accept(f"/{number}") for number in range(5)]
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        tasks, after = depot.queue.select(Selection(instance_key=KEY), State.QUEUED, after, 2)
        seen += [task.task_id for task in tasks]
    assert seen == [upload.task_id for upload in uploads]


def test_selection_is_of_what_was_there_and_is_old_enough(depot: Depot) -> None:
    """Neither what came after the command nor what is too young is meant."""
    old = depot.accept("/old", task_id="01000000-0000-7000-8000-000000000000")
    order = depot.queue.newest_order()
    depot.accept("/new")

    def chosen(selection: Selection) -> list[str]:
        return [task.task_id for task in depot.queue.select(selection, State.QUEUED, "", 10)[0]]

    assert chosen(Selection(up_to_order=order)) == [old.task_id]
    assert chosen(Selection(accepted_before=time.time() - 60)) == [old.task_id]
    assert chosen(Selection(accepted_before=0.0)) == []
    assert len(chosen(Selection())) == 2


# --- clocks ------------------------------------------------------------------------------------------------


def test_age_stands_still_while_nothing_can_be_delivered_there(depot: Depot) -> None:
    """Time in which no worker ran, the remote was away or the instance was waited for does not count."""
    before = depot.accept("/before", created_at=1000.0)
    for clock, seconds in (("", 1.0), ("local", 10.0), (KEY, 100.0), ("eu", 1000.0), ("local/default/c2", 1000.0)):
        depot.queue.add_outage(clock, seconds)
    after = depot.accept("/after", created_at=1000.0)
    assert depot.queue.outage_s(before.destination) == 111.0
    assert depot.task(before).age_base - depot.task(after).age_base == 111.0


# --- what is finished --------------------------------------------------------------------------------------


def test_finished_rows_are_cleared_by_age_and_by_number(depot: Depot) -> None:
    """The oldest go first, in small steps; what still has its bytes stays."""
    uploads = [depot.accept(f"/{number}") for number in range(6)]
    for upload in uploads:
        depot.settle(upload, State.DELIVERED)
    depot.queue.unspool(depot.task(upload).order for upload in uploads[:5])
    assert depot.queue.clear_finished(before=0.0, keep_most=4, limit=10) == 2
    assert depot.queue.clear_finished(before=0.0, keep_most=4, limit=10) == 0
    assert depot.queue.clear_finished(before=time.time() + 1, keep_most=100, limit=2) == 2
    assert depot.queue.clear_finished(before=time.time() + 1, keep_most=100, limit=2) == 1
    assert [task.task_id for task in depot.queue.page(limit=10)] == [uploads[5].task_id]
    assert [(tally.state, tally.tasks) for tally in depot.queue.tallies()] == [(State.DELIVERED, 1)]


def test_recheck_is_of_deliveries_that_may_not_have_reached_the_disk(depot: Depot) -> None:
    """Only those with bytes left, and only the newest of a path."""
    gone, overtaken, newest = depot.accept("/gone"), depot.accept("/f"), None
    for upload in (gone, overtaken):
        depot.settle(upload, State.DELIVERED)
    newest = depot.accept("/f")
    depot.settle(newest, State.DELIVERED)
    depot.queue.unspool([depot.task(gone).order])
    assert depot.queue.recheck_unsynced() == 1
    assert depot.state(newest) is State.QUEUED
    assert depot.task(newest).recheck
    assert {depot.state(gone), depot.state(overtaken)} == {State.DELIVERED}


# --- the database ------------------------------------------------------------------------------------------


def test_database_of_a_later_version_is_refused(depot: Depot) -> None:
    """An older program does not write into what it does not understand."""
    depot.queue.durable.execute("PRAGMA user_version = 99")
    with pytest.raises(QueueFault, match="version 99"):
        depot.reopen()


def test_file_that_is_no_database_is_closed_when_it_is_refused(depot: Depot) -> None:
    """Opening a damaged shard again and again holds no descriptor."""
    database = depot.layout.database(0)
    depot.queue.close()
    database.write_bytes(b"no database" * 1000)
    with pytest.raises(QueueFault) as fault:
        TaskQueue(depot.layout, 0)
    with os.scandir("/proc/self/fd") as fds:
        held = [os.readlink(fd.path) for fd in fds]
    assert str(database) not in held, fault


def test_checkpoint_is_no_error_while_somebody_reads(depot: Depot) -> None:
    """Somebody who looks at the database with SQLite's own tools only puts off the shrinking of the log."""
    reader = sqlite3.connect(depot.layout.database(0), isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM tasks_v1").fetchall()
    depot.accept()
    depot.queue.checkpoint()
    reader.close()
    depot.queue.checkpoint()
    assert (depot.layout.shard(0) / "data.db-wal").stat().st_size == 0


def test_row_holds_its_upload_as_json(depot: Depot) -> None:
    """No row can run code: there is no pickle in it."""
    upload = depot.accept()
    [(data,)] = depot.queue.read("SELECT data FROM tasks_v1")
    assert json.loads(data)["task_id"] == upload.task_id


# --- asking ------------------------------------------------------------------------------------------------


def test_page_is_newest_first_whatever_is_asked_for(depot: Depot) -> None:
    """By instance, by state, by both or by nothing: the same order, and pages that fit together."""
    uploads = [depot.accept(f"/{number}", instance=f"c{number % 2}") for number in range(8)]
    for upload in uploads[:4]:
        depot.queue.durable.execute("UPDATE tasks_v1 SET status = 9 WHERE task_id = ?", (upload.task_id,))
    everything = [upload.task_id for upload in reversed(uploads)]
    for states in (frozenset(), frozenset({State.FAILED}), frozenset({State.FAILED, State.QUEUED})):
        for key in (None, "local/default/c1"):
            wanted = [task.task_id for task in depot.queue.page(states=states, instance_key=key, limit=100)]
            assert wanted == [task_id for task_id in everything if task_id in wanted]
            first = depot.queue.page(states=states, instance_key=key, limit=2)
            rest = depot.queue.page(states=states, instance_key=key, before=first[-1].task_id, limit=100)
            assert [task.task_id for task in (*first, *rest)] == wanted
    assert [task.task_id for task in depot.queue.page(limit=100)] == everything


def test_page_is_full_although_rows_in_it_are_damaged(depot: Depot) -> None:
    """Damaged rows do not make a page look like the last one."""
    uploads = [depot.accept(f"/{number}") for number in range(10)]
    for upload in uploads[3:9]:
        depot.queue.durable.execute("UPDATE tasks_v1 SET data = '{' WHERE task_id = ?", (upload.task_id,))
    assert [task.task_id for task in depot.queue.page(limit=3)] == [
        uploads[9].task_id, uploads[2].task_id, uploads[1].task_id]
    assert len(depot.queue.page(states=frozenset({State.QUEUED}), instance_key=KEY, limit=100)) == 4


def test_questions_of_people_read_and_sort_no_more_than_they_show(depot: Depot) -> None:
    """A page of ten costs the same with a million tasks: every one comes from an index in its own order."""
    depot.accept()
    statements: set[str] = set()
    depot.queue.quick.set_trace_callback(statements.add)
    for key in (None, KEY):
        for states in (frozenset(), frozenset({State.QUEUED})):
            depot.queue.page(states=states, instance_key=key, before="z", limit=10)
        depot.queue.select(Selection(instance_key=key, accepted_before=4e9, up_to_order=9), State.QUEUED, "", 10)
    depot.queue.oldest_at(KEY)
    depot.queue.pending_commands()
    depot.queue.commands(10)
    depot.queue.quick.set_trace_callback(None)
    plans = {text: [step[3] for step in depot.queue.read(f"EXPLAIN QUERY PLAN {text}")] for text in statements}
    assert len(plans) > 6
    assert [(text, plan) for text, plan in plans.items() if any("B-TREE" in step for step in plan)] == []
    scans = {step for plan in plans.values() for step in plan if step.startswith("SCAN")}
    assert scans <= {"SCAN commands USING INDEX commands_open", "SCAN commands USING COVERING INDEX commands_open"}


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
