"""What whoever follows tasks can rely on."""

from dataclasses import replace

from daemon.model.task import Attempt, State
from daemon.task_queue import Change, Follow, Position, Settlement, TaskQueue
from daemon.task_queue.sqlite.history import MOST_KEPT
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


def test_numbers_that_a_crash_may_have_taken_back_are_not_given_again(queue: TaskQueue) -> None:
    """Who read the last event before it misses nothing that comes after."""
    accept(queue, *several(2))
    last = queue.position()
    queue.leave_numbers_out()
    [upload] = accept(queue, an_upload("/new"))
    assert told(queue, last) == told(queue, replace(last, seq=last.seq + 9)) == [(upload.task_id, State.QUEUED)]


def test_last_attempts_are_kept_with_the_task(queue: TaskQueue) -> None:
    """Oldest first, a bounded number of them, and what was settled without one adds none."""
    upload = bring(queue, an_upload(), State.PUSHING)
    order = task_of(queue, upload).order
    attempts = [Attempt(at=float(number), duration_s=0.5, code="timeout", message="ü" * 9)
                for number in range(MOST_KEPT + 2)]
    for attempt in attempts:
        queue.settle([Settlement(order=order, state=State.QUEUED, attempt=attempt)])
        assert queue.claim(KEY, 1) != []
    assert task_of(queue, upload).history == tuple(attempts[2:])
    queue.settle([Settlement(order=order, state=State.QUEUED)])
    assert queue.claim(KEY, 1)[0].history == tuple(attempts[2:])
    done = Attempt(at=99.0, duration_s=0.1, way="sftp", mode=0o640, uid=0, gid=5)
    queue.settle([Settlement(order=order, state=State.DELIVERED, attempt=done)])
    assert task_of(queue, upload).history[-2:] == (attempts[-1], done)


def test_tasks_are_found_together(queue: TaskQueue) -> None:
    """Those that are there."""
    first, second = accept(queue, *several(2))
    found = queue.find_all([first.task_id, an_upload().task_id, second.task_id])
    assert {task.upload for task in found} == {first, second}
