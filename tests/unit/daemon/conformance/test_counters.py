"""What is counted for good: by whoever does it, once, and for as long as the queue is there."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from daemon.model.counters import END_TO_END_SECONDS, PUSH_SECONDS, buckets
from daemon.model.task import Attempt, State, Task
from daemon.task_queue import Change, Intake, Notice, NoticeResult, NoticeState, Settlement, TaskQueue
from tests.support.depot import an_upload, sealed
from tests.unit.daemon.conformance.doors import KEY, LATER_S, QueueStore, accept, bring, task_of


def sums(queue: Intake | TaskQueue) -> dict[tuple[str, str], float]:
    """All counters, but for those of events."""
    return {(each.name, each.labels): each.value for each in queue.counters() if each.name != "events_total"}


def finished(queue: TaskQueue, state: State) -> float:
    """How many tasks came into that state."""
    return sums(queue).get(("tasks_finished_total", f"state={state.label}"), 0)


def delivery(task: Task, **values: Any) -> Settlement:
    """What a push that took 20 ms leads to."""
    made = Settlement(order=task.order, state=State.DELIVERED, attempts=1, upload=task.upload,
                      attempt=Attempt(at=time.time(), duration_s=0.02))
    return replace(made, **values)


def test_uploads_are_counted_once_with_their_bytes(intake: Intake) -> None:
    """A duplicate is no upload; each that is replaced is finished."""
    first, second = an_upload("/x", b"12345"), an_upload("/x", b"123")
    intake.put_many(sealed(first), supersede=True)
    intake.put_many(sealed(first, second), supersede=True)
    assert sums(intake) == {("uploads_total", ""): 2, ("upload_bytes_total", ""): 8,
                            ("tasks_finished_total", "state=superseded"): 1}


def test_pushes_are_counted_by_what_they_led_to_and_what_was_delivered_by_bytes_and_time(queue: TaskQueue) -> None:
    """A push that does not count as an attempt is not counted, and a settlement that comes again changes nothing."""
    accept(queue, *(an_upload(f"/{number}", created_at=time.time() - 100) for number in range(5)))
    delivered, failed, deferred, waiting, late = queue.claim(KEY, 9)
    error = Attempt(at=time.time(), duration_s=2.0, code="io_error")
    settlements = [delivery(delivered), delivery(failed, state=State.FAILED, attempt=replace(error, code="gave_up")),
                   delivery(deferred, state=State.DEFERRED, attempt=error, due_at=LATER_S),
                   delivery(waiting, state=State.QUEUED, attempt=None)]
    queue.settle(settlements, supersede=False)
    queue.settle([*settlements, delivery(late)], supersede=False)
    found = sums(queue)
    assert {key: value for key, value in found.items() if key[0].endswith("_total") and "upload" not in key[0]} == {
        ("attempts_total", "code=,outcome=delivered"): 2, ("attempts_total", "code=gave_up,outcome=failed"): 1,
        ("attempts_total", "code=io_error,outcome=deferred"): 1, ("delivered_bytes_total", ""): 10,
        ("tasks_finished_total", "state=delivered"): 2, ("tasks_finished_total", "state=failed"): 1}
    assert found["push_seconds_count", ""] == 4
    assert found["push_seconds_sum", ""] == pytest.approx(4.04)
    assert dict(buckets(PUSH_SECONDS, found)) | {"0.01": 0, "0.025": 2, "1": 2, "2.5": 4, "+Inf": 4} == dict(
        buckets(PUSH_SECONDS, found))
    assert dict(buckets(END_TO_END_SECONDS, found))["60"] == 0
    assert dict(buckets(END_TO_END_SECONDS, found))["300"] == found["end_to_end_seconds_count", ""] == 2


def by_a_person(queue: TaskQueue) -> None:
    """Cancel a task that waits."""
    [upload] = accept(queue, an_upload())
    change = Change(task=task_of(queue, upload), state=State.CANCELLED)
    assert [queue.change([change]), queue.change([change])] == [1, 0]


def by_a_wish(queue: TaskQueue) -> None:
    """Cancel a task that is being pushed by a worker that dies."""
    upload = bring(queue, an_upload(), State.PUSHING)
    queue.change([Change(task=task_of(queue, upload), state=State.CANCELLED, when_settled=True)])
    assert finished(queue, State.CANCELLED) == 0
    queue.resume(supersede=True)


def by_its_age(queue: TaskQueue) -> None:
    """Give up a task."""
    [upload] = accept(queue, an_upload())
    task = task_of(queue, upload)
    queue.give_up([task], "too old")
    queue.give_up([task], "too old")


@pytest.mark.parametrize(("end", "state"), [
    (by_a_person, State.CANCELLED), (by_a_wish, State.CANCELLED), (by_its_age, State.FAILED)])
def test_tasks_are_counted_as_they_finish(queue: TaskQueue, end: Callable[[TaskQueue], None], state: State) -> None:
    """However they do."""
    end(queue)
    assert finished(queue, state) == 1


def test_sums_go_on_when_tasks_are_forgotten_and_the_queue_is_opened_again(queues: QueueStore) -> None:
    """None goes back."""
    queue = queues.open()
    upload = bring(queue, an_upload(), State.DELIVERED)
    before = queue.counters()
    queue.unspool([task_of(queue, upload).order])
    assert queue.clear_finished(LATER_S, 0, 9) == 1
    queue.forget_events(LATER_S, 0, 99)
    queues.close()
    assert queues.open().counters() == before


def test_events_are_counted_and_those_whose_numbers_are_left_out_are_not(queue: TaskQueue) -> None:
    """Each change of a state is one."""
    def events() -> float:
        return next(each.value for each in queue.counters() if each.name == "events_total")

    bring(queue, an_upload(), State.DELIVERED)
    assert events() == 3
    queue.leave_numbers_out(in_any_case=True)
    assert events() == 3
    accept(queue, an_upload())
    assert events() == 4


def test_tries_to_send_messages_are_counted(queue: TaskQueue) -> None:
    """By how each ended; one that is written about another try is not."""
    notice = Notice(message_id="msg_1", webhook="hook", type="task.delivered", task_id=None, body="{}", created_at=1.0)
    queue.post([notice])
    for state in (NoticeState.PENDING, NoticeState.DELIVERED):
        result = NoticeResult(notice=queue.find_notice("msg_1") or notice, state=state, due_at=1.0, status=200, detail=None)
        queue.settle_notices([result], 2.0)
        queue.settle_notices([result], 2.0)
    assert sums(queue) == {("webhook_attempts_total", "outcome=deferred"): 1,
                           ("webhook_attempts_total", "outcome=delivered"): 1}
