"""What whoever follows tasks can rely on."""

from dataclasses import replace

from daemon.model.task import Attempt, State
from daemon.task_queue import Change, Follow, Position, Settlement, TaskQueue
from tests.support.depot import an_upload
from tests.unit.daemon.conformance.doors import (
    KEY,
    LATER_S,
    QueueStore,
    accept,
    bring,
    claim,
    several,
    task_of,
)


def told(queue: Follow, after: Position) -> list[tuple[str, State]]:
    """The events after a position, of which none is missing."""
    happened = queue.happened(after, 99)
    assert not happened.lost
    return [(event.task_id, event.state) for event in happened.events]


def test_each_change_of_a_state_is_told_once_and_in_order(queues: QueueStore) -> None:
    """Whoever makes it: an upload, a worker, a person. The API learns of it, too."""
    queue, intake = queues.open(), queues.open_intake()
    start, beat = intake.position(), intake.beat()
    first, second = accept(queue, an_upload("/1"), an_upload("/2"))
    assert claim(queue) == [first.task_id, second.task_id]
    queue.settle([Settlement(order=task_of(queue, first).order, state=State.DEFERRED, due_at=1.0, error_code="timeout")])
    queue.promote_due(2.0, 9)
    queue.settle([Settlement(order=task_of(queue, second).order, state=State.DELIVERED)])
    queue.change([Change(task=task_of(queue, first), state=State.CANCELLED)])
    everything = [(first.task_id, State.QUEUED), (second.task_id, State.QUEUED), (first.task_id, State.PUSHING),
                  (second.task_id, State.PUSHING), (first.task_id, State.DEFERRED), (first.task_id, State.QUEUED),
                  (second.task_id, State.DELIVERED), (first.task_id, State.CANCELLED)]
    assert told(intake, start) == everything
    assert intake.happened(start, 99).events[4].code == "timeout"
    assert intake.beat() != beat
    page = intake.happened(start, 3)
    assert [*((event.task_id, event.state) for event in page.events), *told(intake, page.position)] == everything
    assert told(intake, intake.position()) == []


def test_position_that_cannot_be_gone_on_from_says_so(queue: TaskQueue) -> None:
    """One of another database, one of the future, and one whose next event is forgotten."""
    start = queue.position()
    accept(queue, *several(4))
    for position in (replace(start, epoch="other"), replace(start, seq=start.seq + 5)):
        happened = queue.happened(position, 9)
        assert (happened.lost, happened.events, happened.position) == (True, (), queue.position())
    assert queue.forget_events(before=0.0, keep_most=3, limit=9) == 1
    assert queue.happened(start, 9).lost
    assert len(told(queue, replace(start, seq=start.seq + 1))) == 3
    assert queue.forget_events(before=LATER_S, keep_most=9, limit=2) == 2
    assert queue.forget_events(before=LATER_S, keep_most=9, limit=2) == 1
    assert told(queue, queue.position()) == []


def test_numbers_that_a_crash_may_have_taken_back_are_not_given_again(queues: QueueStore, queue: TaskQueue) -> None:
    """Who read the last event before it misses nothing that comes after."""
    accept(queue, *several(2))
    last = queue.position()
    queues.restart_machine()
    queue.leave_numbers_out()
    [upload] = accept(queue, an_upload("/new"))
    assert told(queue, last) == told(queue, replace(last, seq=last.seq + 9)) == [(upload.task_id, State.QUEUED)]


def test_api_that_is_first_after_a_restart_gives_no_number_again(queues: QueueStore) -> None:
    """It takes uploads before the worker is there; numbers are left out once, whoever comes first."""
    queue = queues.open()
    accept(queue, *several(2))
    last = queue.position()
    queues.restart_machine()
    intake = queues.open_intake()
    [upload] = accept(intake, an_upload("/new"))
    read = intake.position()
    assert told(queue, last) == told(queue, replace(last, seq=last.seq + 9)) == [(upload.task_id, State.QUEUED)]
    queue.leave_numbers_out()
    accept(intake, an_upload("/more"))
    assert intake.position().seq == read.seq + 1


def test_first_events_of_all_may_be_taken_back_too(queues: QueueStore, queue: TaskQueue) -> None:
    """Their numbers are not given again either."""
    start = queue.position()
    queues.restart_machine()
    [upload] = accept(queue, an_upload())
    assert told(queue, start) == told(queue, replace(start, seq=start.seq + 5)) == [(upload.task_id, State.QUEUED)]


def test_restart_of_the_machine_makes_nobody_miss_something_when_all_events_are_forgotten(
    queues: QueueStore, queue: TaskQueue,
) -> None:
    """Nothing has happened since, so nothing is missing; nor are those of before the restart forgotten sooner."""
    accept(queue, *several(2))
    last = queue.position()
    for _ in range(3):
        queues.restart_machine()
        queue.leave_numbers_out()
    assert queue.forget_events(before=0.0, keep_most=2, limit=9) == 0
    assert queue.forget_events(before=0.0, keep_most=1, limit=9) == 1
    assert queue.forget_events(before=LATER_S, keep_most=9, limit=9) == 1
    [upload] = accept(queue, an_upload("/new"))
    assert told(queue, last) == [(upload.task_id, State.QUEUED)]


def test_tasks_are_told_with_their_events(queues: QueueStore) -> None:
    """As they stand when that is asked; those that are not there any more are left out."""
    queue, intake = queues.open(), queues.open_intake()
    start = intake.position()
    first, second = bring(queue, an_upload("/1"), State.DELIVERED), bring(queue, an_upload("/2"), State.PUSHING)
    queue.unspool([task_of(queue, first).order])
    assert queue.clear_finished(LATER_S, 0, 9) == 1
    happened = intake.happened(start, 99, tasks=True)
    assert len(happened.events) == 5
    assert {task_id: task.state for task_id, task in happened.tasks.items()} == {second.task_id: State.PUSHING}
    assert not intake.happened(start, 99).tasks


def test_last_attempts_are_kept_with_the_task(queues: QueueStore, queue: TaskQueue) -> None:
    """Oldest first, a bounded number of them, and what was settled without one adds none."""
    upload = bring(queue, an_upload(), State.PUSHING)
    order = task_of(queue, upload).order
    attempts = [Attempt(at=float(number), duration_s=0.5, code="timeout", message="ü" * 9)
                for number in range(queues.attempts_kept + 2)]
    for attempt in attempts:
        queue.settle([Settlement(order=order, state=State.QUEUED, attempt=attempt)])
        assert queue.claim(KEY, 1) != []
    assert task_of(queue, upload).history == tuple(attempts[2:])
    queue.settle([Settlement(order=order, state=State.QUEUED)])
    assert queue.claim(KEY, 1)[0].history == tuple(attempts[2:])
    done = Attempt(at=99.0, duration_s=0.1, way="sftp", mode=0o640, uid=0, gid=5, elsewhere=True, identity="1-2")
    queue.settle([Settlement(order=order, state=State.DELIVERED, attempt=done)])
    assert task_of(queue, upload).history[-2:] == (attempts[-1], done)


def test_tasks_are_found_together(queue: TaskQueue) -> None:
    """Those that are there."""
    first, second = accept(queue, *several(2))
    found = queue.find_all([first.task_id, an_upload().task_id, second.task_id])
    assert {task.upload for task in found} == {first, second}
