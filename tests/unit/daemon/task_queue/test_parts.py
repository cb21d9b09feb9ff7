"""Part files that a killed push may have left in an instance."""

import pytest

from daemon.model.task import State
from daemon.task_queue import BULK_BYTES, Change, Settlement
from tests.support import rows
from tests.support.depot import Depot, an_upload, sealed


def with_parts(depot: Depot, limit: int = 10) -> list[str]:
    """The ids of the tasks whose part files are to be removed, instance by instance."""
    found: list[str] = []
    key = depot.queue.next_with_parts("")
    while key is not None:
        found += [task.task_id for task in depot.queue.left_parts(key, limit)]
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
    rows.write(depot.queue, status=state)
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
    rows.write(depot.queue, status=4, part=1)
    order = [uploads[number].task_id for number in (2, 3, 0, 1)]
    assert with_parts(depot) == order
    for number in range(4):
        [task] = [depot.task(upload) for upload in uploads if upload.task_id == order[number]]
        depot.queue.forget_part(task.order)
        assert with_parts(depot) == order[number + 1:]


def test_claims_that_a_crash_of_the_machine_may_have_undone_may_have_left_part_files(depot: Depot) -> None:
    """The oldest of each instance, small and bulky ones, count as begun."""
    uploads = [an_upload(f"/{number}", size=1 if number < 3 else BULK_BYTES) for number in range(6)]
    depot.queue.put_many(sealed(*uploads), supersede=False)
    depot.queue.suspect_claims(2)
    rows.write(depot.queue, status=7)
    assert with_parts(depot) == [uploads[number].task_id for number in (0, 1, 3, 4)]


def test_newer_upload_is_not_claimed_before_the_part_file_of_an_older_one_is_gone(depot: Depot) -> None:
    """A rename of the older that was given up, but not lost, finds nothing to put over the newer."""
    older = depot.accept("/f")
    [task] = depot.claim()
    newer, other = depot.accept("/f"), depot.accept("/g")
    depot.queue.settle([Settlement(order=task.order, state=State.DEFERRED, part=True)])
    assert depot.state(older) is State.SUPERSEDED
    assert [task.task_id for task in depot.claim()] == [other.task_id]
    depot.queue.forget_part(task.order)
    assert [task.task_id for task in depot.claim()] == [newer.task_id]


def test_question_for_part_files_changes_nothing(depot: Depot) -> None:
    """Whoever asks may ask again: also a row that cannot be read is forgotten only by whoever says so."""
    depot.accept()
    depot.claim()
    rows.write(depot.queue, status=State.FAILED, part=1, data="{")
    changes = depot.queue.quick.total_changes
    assert with_parts(depot) == []
    assert depot.queue.quick.total_changes == changes
    assert depot.queue.next_with_parts("") is not None


def test_part_file_of_a_damaged_row_keeps_nothing_waiting(depot: Depot) -> None:
    """Nobody can say where it is: it is looked for no more, and the others are, however many are damaged."""
    damaged, well = [depot.accept("/f", size=number) for number in (1, 2)]
    depot.claim()
    rows.write(depot.queue, status=State.FAILED, part=1)
    rows.damage(depot.queue, damaged.task_id)
    newer = depot.accept("/f")
    assert depot.claim() == []
    assert with_parts(depot, limit=1) == []
    depot.queue.forget_unreadable_parts(damaged.destination.instance_key, 1)
    assert with_parts(depot, limit=1) == [well.task_id]
    depot.queue.forget_part(depot.task(well).order)
    assert [task.task_id for task in depot.claim()] == [newer.task_id]
