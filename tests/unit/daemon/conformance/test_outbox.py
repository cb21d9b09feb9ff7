"""What whoever tells webhooks can rely on."""

from dataclasses import replace

from daemon.model.task import State
from daemon.task_queue import Intake, Notice, NoticeResult, NoticeState, Outbox, TaskQueue
from tests.support.depot import an_upload
from tests.unit.daemon.conformance.doors import LATER_S, QueueStore, accept, bring, several


def a_notice(number: int, webhook: str = "ci") -> Notice:
    """A notice whose id says its number."""
    return Notice(message_id=f"msg_{number:06d}", webhook=webhook, type="task.delivered", task_id=None, body="{}",
                  created_at=float(number), due_at=float(number), updated_at=float(number))


def untold(queue: Outbox) -> list[tuple[str, State]]:
    """The events that webhooks have not been told."""
    happened = queue.untold(99)
    assert happened is not None
    assert not happened.lost
    return [(event.task_id, event.state) for event in happened.events]


def ids_of(notices: list[Notice]) -> list[str]:
    """Their ids."""
    return [notice.message_id for notice in notices]


def failed(notice: Notice, state: NoticeState = NoticeState.PENDING, due_at: float = 50.0) -> NoticeResult:
    """One more try that did not work."""
    return NoticeResult(notice=notice, state=state, due_at=due_at, status=500, detail="no")


def test_what_webhooks_are_to_be_told_is_kept_until_they_are(queues: QueueStore) -> None:
    """Also over a new start, and however old it is; where nothing is to be told, nothing is kept."""
    queue = queues.open()
    accept(queue, *several(2))
    assert queue.untold(9) is None
    assert queue.forget_events(before=LATER_S, keep_most=0, limit=9) == 2
    queue.follow_for_webhooks(True)
    [upload] = accept(queue, an_upload("/x"))
    queue.follow_for_webhooks(True)
    assert queue.forget_events(before=LATER_S, keep_most=0, limit=9) == 0
    queues.close()
    queue = queues.open()
    queue.leave_numbers_out()
    [later] = accept(queue, an_upload("/y"))
    assert untold(queue) == [(upload.task_id, State.QUEUED), (later.task_id, State.QUEUED)]
    first = queue.untold(1)
    assert first is not None
    queue.tell([a_notice(1)], first.position)
    assert untold(queue) == [(later.task_id, State.QUEUED)]
    assert queue.forget_events(before=LATER_S, keep_most=0, limit=9) == 1
    queue.follow_for_webhooks(False)
    assert queue.untold(9) is None
    assert queue.forget_events(before=LATER_S, keep_most=0, limit=9) == 1


def test_notices_wait_for_their_time_and_are_counted(queue: TaskQueue) -> None:
    """Those that have waited longest come first; a late answer to an earlier try changes nothing."""
    queue.post([a_notice(2), a_notice(1), a_notice(3, "other"), a_notice(1)])
    first, second = queue.due_notices("ci", 2.0, 9)
    assert ids_of([first, second]) == ["msg_000001", "msg_000002"]
    assert ids_of(queue.due_notices("ci", 1.5, 9)) == ["msg_000001"]
    assert (queue.next_notice_at("ci"), queue.next_notice_at("none")) == (1.0, None)
    queue.settle_notices([failed(first), failed(second, NoticeState.FAILED)], 9.0)
    queue.settle_notices([failed(first, due_at=99.0)], 9.5)
    assert queue.due_notices("ci", 40.0, 9) == []
    [again] = queue.due_notices("ci", 50.0, 9)
    assert (again.attempts, again.status, again.detail) == (1, 500, "no")
    standing, other = queue.webhook_standings()
    assert (standing.pending, standing.delivered, standing.failed) == (1, 0, 1)
    assert (standing.last_at, standing.last_status, standing.last_detail) == (9.5, 500, "no")
    assert (other.name, other.pending) == ("other", 1)


def test_notices_are_listed_and_sent_again(queues: QueueStore) -> None:
    """By the API as by the lock's holder: one of them however it stands, or all that were given up."""
    queue, intake = queues.open(), queues.open_intake()
    queue.post([a_notice(number) for number in range(1, 6)])
    due = queue.due_notices("ci", 9.0, 9)
    queue.settle_notices([failed(notice, state) for notice, state in zip(due, [
        NoticeState.DELIVERED, NoticeState.FAILED, NoticeState.FAILED, NoticeState.FAILED], strict=False)], 9.0)
    assert ids_of(intake.notices("ci", None, None, 2)) == ["msg_000005", "msg_000004"]
    assert ids_of(intake.notices("ci", NoticeState.FAILED, "msg_000004", 9)) == ["msg_000003", "msg_000002"]
    assert intake.replay("ci", "msg_000001") == 1
    assert intake.replay("other", "msg_000002") == 0
    assert intake.replay("ci", None) == 3
    found = intake.find_notice("msg_000002")
    assert found is not None
    assert (found.state, found.attempts) == (NoticeState.PENDING, 0)
    assert len(queue.due_notices("ci", LATER_S, 9)) == 5
    assert intake.find_notice("msg_none") is None


def test_webhook_is_disabled_until_it_is_enabled(queues: QueueStore, intake: Intake) -> None:
    """With the reason; what it is told meanwhile is kept, and due as soon as it is enabled."""
    intake.disable("ci", "410")
    intake.post([replace(a_notice(1), due_at=LATER_S)])
    queues.close()
    queue = queues.open()
    [standing] = queue.webhook_standings()
    assert (standing.disabled_why, standing.disabled_at is not None, standing.pending) == ("410", True, 1)
    queue.disable("ci", None)
    assert queue.webhook_standings()[0].disabled_at is None
    assert len(queue.due_notices("ci", LATER_S - 1, 9)) == 1


def test_outbox_is_bounded(queue: TaskQueue) -> None:
    """The oldest are given up, and the oldest of those forgotten; of another webhook nothing is."""
    queue.post([*(a_notice(number) for number in range(9)), a_notice(99, "other")])
    assert queue.give_up_notices("ci", 6, 2, "too many") == 2
    assert queue.give_up_notices("ci", 6, 9, "too many") == 1
    assert queue.give_up_notices("ci", 6, 9, "too many") == 0
    given_up = queue.notices("ci", NoticeState.FAILED, None, 9)
    assert ids_of(given_up) == ["msg_000002", "msg_000001", "msg_000000"]
    assert given_up[0].detail == "too many"
    assert queue.forget_notices("ci", NoticeState.FAILED, "msg_000001", 9, 9) == 1
    assert queue.forget_notices("ci", NoticeState.FAILED, "", 1, 9) == 1
    assert [(standing.pending, standing.failed) for standing in queue.webhook_standings()] == [(6, 1), (1, 0)]


def test_what_is_told_is_told_with_how_far_or_not_at_all(queue: TaskQueue) -> None:
    """A notice that was put already, after a commit whose end nobody saw, is not put twice."""
    queue.follow_for_webhooks(True)
    bring(queue, an_upload(), State.DELIVERED)
    happened = queue.untold(9)
    assert happened is not None
    for _ in range(2):
        queue.tell([a_notice(1)], happened.position)
    assert untold(queue) == []
    assert len(queue.due_notices("ci", 9.0, 9)) == 1
