"""What whoever tidies up can rely on."""

import time
from collections.abc import Callable

import pytest

from daemon.model.task import State
from daemon.task_queue import BULK_BYTES, Change, Settlement, TaskQueue
from tests.support.depot import an_upload
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


def parts_of(queue: TaskQueue) -> list[str]:
    """The tasks that may have left a part file, instance by instance."""
    found: list[str] = []
    key = ""
    while (key := queue.next_with_parts(key) or "") != "":
        found += [task.task_id for task in queue.left_parts(key, 9)]
    return found


def test_bytes_of_finished_tasks_are_let_go_of_oldest_first(queue: TaskQueue) -> None:
    """Of delivered and cancelled ones, not of those that are still wanted."""
    finished = [bring(queue, upload, state) for upload, state in zip(
        several(3), (State.DELIVERED, State.CANCELLED, State.DELIVERED), strict=True)]
    for state in (State.FAILED, State.HELD, State.QUEUED):
        bring(queue, an_upload(f"/{state.label}"), state)
    assert [task.upload for task in queue.unspoolable(2)] == finished[:2]
    queue.unspool(task.order for task in queue.unspoolable(2))
    assert [task.upload for task in queue.unspoolable(9)] == finished[2:]
    assert [task_of(queue, upload).spooled for upload in finished] == [False, False, True]


def test_bytes_of_a_path_are_not_let_go_of_before_older_ones_that_were_passed_over(queue: TaskQueue) -> None:
    """A rebuild would find the older upload without the newer."""
    older, other, newer = (bring(queue, an_upload(path), State.DELIVERED) for path in ("/path", "/other", "/path"))
    after = task_of(queue, older).order
    assert [task.upload for task in queue.unspoolable(9, after)] == [other]
    assert [task.upload for task in queue.unspoolable(9)] == [older, other, newer]
    queue.unspool([after])
    assert [task.upload for task in queue.unspoolable(9, after)] == [other, newer]


def test_finished_tasks_are_forgotten_by_age_and_by_number(queue: TaskQueue) -> None:
    """In small steps; one that still has its bytes stays."""
    uploads = [bring(queue, upload, State.DELIVERED) for upload in several(6)]
    queue.unspool(task_of(queue, upload).order for upload in uploads[:5])
    assert queue.clear_finished(before=0.0, keep_most=4, limit=9) == 2
    assert queue.clear_finished(before=0.0, keep_most=4, limit=9) == 0
    assert queue.clear_finished(before=LATER_S, keep_most=9, limit=2) == 2
    assert queue.clear_finished(before=LATER_S, keep_most=9, limit=2) == 1
    assert [task.upload for task in queue.page(limit=9)] == [uploads[5]]


def test_dead_letters_can_be_found_by_their_age(queue: TaskQueue) -> None:
    """Only those that failed before then, and no other tasks."""
    dead = [bring(queue, upload, State.FAILED) for upload in several(2)]
    bring(queue, an_upload("/held"), State.HELD)
    assert queue.old_dead_letters(time.time() - 100, 9) == []
    assert {task.task_id for task in queue.old_dead_letters(LATER_S, 9)} == set(ids(dead))
    assert len(queue.old_dead_letters(LATER_S, 1)) == 1


def test_age_stands_still_while_nothing_can_be_delivered_there(queue: TaskQueue) -> None:
    """Time in which no worker ran, the remote was away or the instance was waited for does not count."""
    [before] = accept(queue, an_upload("/before", created_at=1000.0))
    queue.add_outages({"": 1.0, "local": 10.0, KEY: 50.0})
    queue.add_outages({KEY: 50.0, "eu": 1000.0, "local/default/c2": 1000.0})
    [after] = accept(queue, an_upload("/after", created_at=1000.0))
    assert queue.outage_s(before.destination) == 111.0
    assert task_of(queue, before).age_base - task_of(queue, after).age_base == 111.0


def test_waiting_tasks_that_have_grown_old_are_given_up(queue: TaskQueue) -> None:
    """Queued and deferred ones of one instance become dead letters with their reason."""
    old = [bring(queue, an_upload(f"/{state.label}", created_at=1000.0), state) for state in (State.DEFERRED, State.QUEUED)]
    accept(queue, an_upload("/young"), an_upload("/other", created_at=1000.0, instance="c2"))
    aged = queue.aged(KEY, 2000.0, 9)
    assert {task.task_id for task in aged} == set(ids(old))
    queue.give_up(aged, "it was down for too long")
    for upload in old:
        task = task_of(queue, upload)
        assert (task.state, task.error_code, task.error_message, task.due_at) == (
            State.FAILED, "gave_up", "it was down for too long", None)


def test_fact_is_remembered(queues: QueueStore, queue: TaskQueue) -> None:
    """The last value counts; what was never said is not known."""
    queue.remember("boot_id", "a")
    queue.remember("boot_id", "b")
    queues.close()
    queue = queues.open()
    assert (queue.fact("boot_id"), queue.fact("alive_at")) == ("b", None)


@pytest.mark.parametrize("tidy", [lambda queue: queue.compact(), lambda queue: queue.reuse_room()])
def test_tidying_the_disk_changes_nothing_else(
    queues: QueueStore, queue: TaskQueue, tidy: Callable[[TaskQueue], None],
) -> None:
    """Whoever looks finds what was there before, also while somebody else has the queue open."""
    other = queues.open_intake()
    uploads = accept(other, *several(3))
    tidy(queue)
    assert [task.upload for task in queue.page(limit=9)] == [task.upload for task in other.page(limit=9)] == uploads[::-1]


# --- part files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "looked_for"), [
    (State.FAILED, True), (State.HELD, True), (State.CANCELLED, True), (State.QUEUED, False), (State.DEFERRED, False),
])
def test_part_file_is_looked_for_where_the_task_is_not_pushed_any_more(
    queue: TaskQueue, state: State, looked_for: bool,
) -> None:
    """The next attempt of a task that is pushed again deals with it by itself."""
    upload = bring(queue, an_upload(), State.PUSHING)
    queue.settle([Settlement(order=task_of(queue, upload).order, state=state, part=True, due_at=LATER_S)])
    assert parts_of(queue) == ([upload.task_id] if looked_for else [])


def test_part_file_that_was_removed_is_forgotten(queue: TaskQueue) -> None:
    """Instance by instance, the oldest first."""
    uploads = [bring(queue, an_upload(f"/{number}", instance=f"c{2 - number // 2}"), State.PUSHING) for number in range(4)]
    queue.settle([Settlement(order=task_of(queue, upload).order, state=State.HELD, part=True) for upload in uploads])
    order = [uploads[number] for number in (2, 3, 0, 1)]
    assert parts_of(queue) == ids(order)
    for upload in order:
        queue.forget_unreadable_parts(upload.destination.instance_key, 9)
        queue.forget_part(task_of(queue, upload).order)
        assert upload.task_id not in parts_of(queue)
    assert parts_of(queue) == []


def test_newer_upload_waits_until_the_part_file_of_an_older_one_is_gone(queue: TaskQueue) -> None:
    """A rename of the older that was given up, but not lost, finds nothing to put over the newer."""
    older = bring(queue, an_upload("/f"), State.PUSHING)
    newer, other = accept(queue, an_upload("/f"), an_upload("/g"))
    order = task_of(queue, older).order
    queue.settle([Settlement(order=order, state=State.DEFERRED, part=True)])
    assert state_of(queue, older) is State.SUPERSEDED
    assert claim(queue) == [other.task_id]
    blocker = queue.blocker(task_of(queue, newer))
    assert blocker is not None
    assert blocker.task_id == older.task_id
    queue.forget_part(order)
    assert queue.blocker(task_of(queue, newer)) is None
    assert claim(queue) == [newer.task_id]


def test_claims_that_a_crash_of_the_machine_may_have_undone_may_have_left_part_files(queue: TaskQueue) -> None:
    """The oldest of each instance, small and bulky ones, count as begun."""
    uploads = accept(queue, *(an_upload(f"/{number}", size=1 if number < 3 else BULK_BYTES) for number in range(6)))
    queue.suspect_claims(2)
    queue.change([Change(task=task_of(queue, upload), state=State.CANCELLED) for upload in uploads])
    assert parts_of(queue) == [uploads[number].task_id for number in (0, 1, 3, 4)]
