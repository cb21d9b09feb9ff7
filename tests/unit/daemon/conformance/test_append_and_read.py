"""What whoever puts uploads and asks about them can rely on."""

import time
from typing import Any

import pytest

from daemon.errors import Rejected
from daemon.model.task import FINISHED, PENDING, State
from daemon.model.upload import Upload
from daemon.spool import CheckedSpool
from daemon.task_queue import Change, Intake, PutOutcome, TaskQueue, Total
from tests.support.depot import an_upload, sealed
from tests.unit.daemon.conformance.doors import (
    KEY,
    QueueStore,
    accept,
    bring,
    claim,
    ids,
    several,
    state_of,
    task_of,
)

# --- putting -----------------------------------------------------------------------------------------------


def test_upload_is_queued_as_it_was_put(intake: Intake) -> None:
    """Everything that was accepted comes back."""
    upload = an_upload("/ü", mode=0o640, uid=1, gid=2, mkdirs=True, display_name="ü", idempotency_key="k",
                       client="token:ü")
    [answer] = intake.put_many(sealed(upload), supersede=True)
    assert (answer.outcome, answer.task_id, answer.superseded) == (PutOutcome.ACCEPTED, upload.task_id, {})
    task = task_of(intake, upload)
    assert (task.upload, task.state, task.attempts, task.spooled) == (upload, State.QUEUED, 0, True)


def test_queue_takes_what_the_spool_sealed(intake: Intake, spool: CheckedSpool) -> None:
    """As it is: so one that keeps bytes and rows in one place can make both durable in one commit."""
    uploads = [an_upload(f"/{number}") for number in range(2)]
    batch = [(spool.begin(), upload) for upload in uploads]
    for incoming, _ in batch:
        incoming.write(b"hello")
    taken = [answer for answer in spool.seal_all(batch) if not isinstance(answer, Rejected)]
    assert [answer.outcome for answer in intake.put_many(taken, supersede=True)] == [PutOutcome.ACCEPTED] * 2
    for each in taken:
        each.release()
    for upload in uploads:
        assert task_of(intake, upload).upload == upload
        with spool.open_pending(upload) as source:
            assert source.read(upload.size) == b"hello"


def test_upload_is_there_for_whoever_opens_the_queue_later(queues: QueueStore) -> None:
    """What was put is kept, whoever put it, and whoever looks."""
    uploads = several(3)
    accept(queues.open_intake(), *uploads[:2])
    accept(queues.open(), uploads[2])
    queues.close()
    for opened in (queues.open(), queues.open_intake()):
        assert [task.upload for task in opened.page(limit=9)] == uploads[::-1]


def test_upload_is_put_once_however_often_it_is_tried(intake: Intake) -> None:
    """Trying again what may have failed is right: it is a duplicate of itself."""
    upload = an_upload()
    accept(intake, upload)
    for supersede in (True, False):
        [answer] = intake.put_many(sealed(upload), supersede=supersede)
        assert (answer.outcome, answer.task_id, answer.superseded) == (PutOutcome.DUPLICATE, upload.task_id, {})
    assert len(intake.page(limit=9)) == 1


def test_key_stands_for_the_upload_that_came_with_it_first(intake: Intake, queues: QueueStore) -> None:
    """The same upload again is the same task; a different one is refused, and nothing of it is kept."""
    first = an_upload(idempotency_key="k", data=b"a")
    same, other = an_upload(idempotency_key="k", data=b"a"), an_upload(idempotency_key="k", data=b"b")
    bring(queues.open(), first, State.DELIVERED)
    for upload, outcome in ((same, PutOutcome.DUPLICATE), (other, PutOutcome.MISMATCH)):
        [answer] = intake.put_many(sealed(upload), supersede=True)
        assert (answer.outcome, answer.task_id) == (outcome, first.task_id)
        assert intake.find(upload.task_id) is None


def test_key_stands_for_nothing_of_another_client(intake: Intake) -> None:
    """It neither replays what the other one sent nor is refused for it, whether the uploads are the same or not."""
    for data in (b"a", b"b"):
        uploads = [an_upload(idempotency_key="k", data=data, client=f"token:{data.decode()}{number}") for number in (1, 2)]
        anonymous = an_upload(idempotency_key=f"k{data.decode()}", data=data)
        answers = intake.put_many(sealed(*uploads, anonymous), supersede=False)
        assert [answer.outcome for answer in answers] == [PutOutcome.ACCEPTED] * 3
    [answer] = intake.put_many(sealed(an_upload(idempotency_key="k", data=b"b", client="token:b1")), supersede=False)
    assert answer.outcome is PutOutcome.DUPLICATE
    [answer] = intake.put_many(sealed(an_upload(idempotency_key="k", data=b"a", client="token:b1")), supersede=False)
    assert answer.outcome is PutOutcome.MISMATCH


@pytest.mark.parametrize("state", [State.QUEUED, State.PUSHING, State.DEFERRED, State.HELD, State.FAILED])
def test_key_of_an_upload_whose_bytes_are_lost_stands_for_the_next(
    intake: Intake, queues: QueueStore, state: State,
) -> None:
    """A repeat is a repeat only as long as the first one can be delivered."""
    first = bring(queues.open(), an_upload(idempotency_key="k"), state)
    again = an_upload(idempotency_key="k")
    assert intake.put_many(sealed(again), supersede=False)[0].task_id == first.task_id
    queues.spool.lost.add(first.task_id)
    assert intake.put_many(sealed(again), supersede=False)[0].outcome is PutOutcome.ACCEPTED


@pytest.mark.parametrize("state", sorted(PENDING | {State.FAILED} | FINISHED - {State.SUPERSEDED}))
def test_newer_upload_replaces_what_waits_for_its_path(intake: Intake, queues: QueueStore, state: State) -> None:
    """Queued and deferred ones are superseded; one that is being pushed, held, failed or finished is not."""
    queue = queues.open()
    older, elsewhere = bring(queue, an_upload("/f", client="token:a"), state), an_upload("/g")
    accept(queue, elsewhere)
    [answer] = intake.put_many(sealed(an_upload("/f")), supersede=True)
    replaced = state in {State.QUEUED, State.DEFERRED}
    assert answer.superseded == ({older.task_id: "token:a"} if replaced else {})
    assert state_of(queue, older) is (State.SUPERSEDED if replaced else state)
    assert state_of(queue, elsewhere) is State.QUEUED


def test_uploads_that_are_put_together_replace_one_another(intake: Intake) -> None:
    """Of several to one path only the last is to be delivered, and the answers are in the order of the uploads."""
    uploads = [an_upload("/f") for _ in range(3)]
    answers = intake.put_many(sealed(*uploads), supersede=True)
    assert [answer.task_id for answer in answers] == ids(uploads)
    assert sorted(task_id for answer in answers for task_id in answer.superseded) == sorted(ids(uploads[:2]))
    assert [state_of(intake, upload) for upload in uploads] == [State.SUPERSEDED, State.SUPERSEDED, State.QUEUED]


def test_uploads_replace_nothing_where_all_are_to_be_delivered(intake: Intake) -> None:
    """Without `supersede` each is delivered, one after the other."""
    uploads = [an_upload("/f") for _ in range(3)]
    answers = intake.put_many(sealed(*uploads), supersede=False)
    assert [answer.superseded for answer in answers] == [{}, {}, {}]
    assert {state_of(intake, upload) for upload in uploads} == {State.QUEUED}


def test_nothing_can_be_put(intake: Intake) -> None:
    """Whoever only tries whether the queue takes anything leaves nothing."""
    assert intake.put_many(sealed(), supersede=True) == []
    assert intake.page(limit=9) == []


# --- reading -----------------------------------------------------------------------------------------------


def test_upload_that_was_never_put_is_not_found(intake: Intake) -> None:
    """Neither in an empty queue nor in another."""
    assert intake.find(an_upload().task_id) is None
    accept(intake, an_upload())
    assert intake.find(an_upload().task_id) is None


def test_page_is_of_what_was_asked_for_newest_first(intake: Intake, queues: QueueStore) -> None:
    """By state and by instance, before an id, and no more than were asked for."""
    queue = queues.open()
    queued, held = several(4), [an_upload("/held"), an_upload("/held", instance="c2")]
    accept(queue, *queued)
    for upload in held:
        bring(queue, upload, State.HELD)

    def page(**question: Any) -> list[str]:
        return [task.task_id for task in intake.page(**{"limit": 9, **question})]

    assert page() == ids([*queued, *held])[::-1]
    assert page(limit=2) == ids(held)[::-1]
    assert page(before=held[0].task_id) == ids(queued)[::-1]
    assert page(states=frozenset({State.HELD})) == ids(held)[::-1]
    assert page(states=frozenset({State.HELD, State.QUEUED}), instance_key=KEY) == ids([*queued, held[0]])[::-1]
    assert page(instance_key="local/default/c2", before=held[1].task_id) == []


def test_page_of_a_client_has_what_it_sent_and_nothing_else(intake: Intake, queues: QueueStore) -> None:
    """In whatever state, and narrowed by instance and state as any page is."""
    queue = queues.open()
    accept(queue, an_upload("/anonymous"), an_upload("/other", client="token:b"))
    first, held, last = (an_upload("/1", client="token:a"), an_upload("/2", client="token:a"),
                         an_upload("/3", client="token:a", instance="c2"))
    bring(queue, first, State.DELIVERED)
    bring(queue, held, State.HELD)
    accept(queue, last)

    def page(**question: Any) -> list[str]:
        return [task.task_id for task in intake.page(**{"limit": 9, "client": "token:a", **question})]

    assert page() == ids([last, held, first])
    assert page(before=last.task_id, limit=1) == [held.task_id]
    assert page(instance_key=KEY) == ids([held, first])
    assert page(states=frozenset({State.DELIVERED, State.QUEUED})) == ids([last, first])
    assert page(instance_key=KEY, states=frozenset({State.HELD})) == [held.task_id]
    assert page(client="token:c") == page(client="") == []


@pytest.mark.parametrize("state", State)
def test_pending_tasks_are_counted_for_the_client_that_sent_them(
    intake: Intake, queues: QueueStore, state: State,
) -> None:
    """As long as they are pending, and again when a person has a dead letter tried once more."""
    queue = queues.open()
    if state is State.SUPERSEDED:
        accept(queue, an_upload("/f", client="token:a"), an_upload("/f", client="token:b"), supersede=True)
    else:
        bring(queue, an_upload("/f", client="token:a"), state)
    assert intake.client_pending("token:a") == (Total(1, 5) if state in PENDING else Total())
    accept(queue, an_upload("/g", b"123", client="token:a"), an_upload("/h", client="token:c"), an_upload("/i"))
    if state is State.FAILED:
        [task] = queue.page(states=frozenset({state}), limit=9)
        queue.change([Change(task=task, state=State.QUEUED)])
    counted = state in PENDING | {State.FAILED}
    assert intake.client_pending("token:a") == (Total(2, 8) if counted else Total(1, 3))
    queue.delete_rows([task.order for task in queue.page(client="token:a", limit=9)])
    queue.compact()
    assert (intake.client_pending("token:a"), intake.client_pending("token:c")) == (Total(), Total(1, 5))


def test_pending_tasks_of_all_under_a_client_are_counted_with_its_own(intake: Intake, queues: QueueStore) -> None:
    """Those of others whose names only begin alike are not."""
    names = ["token:a", "token:a/x", "token:a/x/y", "token:a/\U0010fffd", "token:a-b", "token:a0", "token:a.", "token:", "token:A/x"]
    accept(queues.open(), *(an_upload(f"/{number}", client=name) for number, name in enumerate(names)))
    pending = [intake.pending_under(name).tasks for name in ("token:a", "token:a/x", "token:a/x/y", "token:a0", "token:a/", "token:b")]
    assert pending == [4, 2, 1, 1, 0, 0]
    assert intake.pending_under("token:a") == Total(4, 20)


def test_totals_count_tasks_and_bytes_of_the_states_that_are_asked_for(intake: Intake, queues: QueueStore) -> None:
    """Of all instances together; a state without tasks is there too."""
    queue = queues.open()
    bring(queue, an_upload(data=b"12345"), State.DELIVERED)
    accept(queue, an_upload("/a", data=b"12"), an_upload(instance="c2", data=b"123"))
    assert intake.totals(frozenset({State.QUEUED, State.HELD})) == {State.QUEUED: Total(2, 5), State.HELD: Total()}


def test_standing_counts_the_tasks_of_an_instance_by_state(queue: TaskQueue) -> None:
    """What was moved from one state to another is counted where it is now; an instance without tasks has no counts."""
    bring(queue, an_upload(data=b"12345"), State.DELIVERED)
    accept(queue, an_upload("/a", data=b"12"), an_upload("/b", data=b"123"), an_upload(instance="c2", data=b""))
    first, none, second = queue.standings([KEY, "local/default/c3", "local/default/c2"])
    assert (first.instance_key, first.totals) == (KEY, {State.DELIVERED: Total(1, 5), State.QUEUED: Total(2, 5)})
    assert second.totals == {State.QUEUED: Total(1, 0)}
    assert (none.instance_key, none.totals, none.oldest_at) == ("local/default/c3", {}, None)


def test_standings_of_many_instances_come_in_the_order_that_was_asked_for(queue: TaskQueue) -> None:
    """However many are asked for at once."""
    accept(queue, *(an_upload(instance=f"c{number}") for number in range(150)))
    keys = [f"local/default/c{number}" for number in reversed(range(150))]
    assert [standing.instance_key for standing in queue.standings(keys)] == keys


def test_oldest_is_of_those_that_are_not_finished(queue: TaskQueue) -> None:
    """A dead letter counts, what was delivered does not: for an instance, and for all."""
    for age_s, state in ((300, State.DELIVERED), (200, State.FAILED), (100, State.QUEUED)):
        bring(queue, an_upload(f"/{age_s}", created_at=time.time() - age_s), state)
    bring(queue, an_upload(instance="c2", created_at=time.time() - 400), State.DELIVERED)
    first, second = queue.standings([KEY, "local/default/c2"])
    assert (first.oldest_at, second.oldest_at) == (queue.oldest_at(), None)
    assert first.oldest_at is not None
    assert round(time.time() - first.oldest_at, -2) == 200


def test_busiest_instances_are_those_with_most_tasks_that_are_not_finished(queue: TaskQueue) -> None:
    """With them comes how many there are; those that everything was delivered to are not counted."""
    accept(queue, an_upload(instance="c1"), an_upload("/a", instance="c2"), an_upload(instance="c3"))
    bring(queue, an_upload("/b", instance="c2"), State.FAILED)
    for path in ("/a", "/b", "/c"):
        bring(queue, an_upload(path, instance="c4"), State.DELIVERED)
    assert queue.busiest(2) == (3, ["local/default/c2", "local/default/c1"])
    assert queue.busiest(9)[1][2:] == ["local/default/c3"]


def test_instances_are_ranked_by_what_waits_and_read_from_any_place_on(queue: TaskQueue) -> None:
    """Dead letters wait for a person: who has these alone comes last. Of equal ones the names decide."""
    accept(queue, an_upload(instance="c1"), an_upload("/a", instance="c2"), an_upload("/b", instance="c2"), an_upload(instance="c3"))
    bring(queue, an_upload("/b", instance="c4"), State.FAILED)
    bring(queue, an_upload("/b", instance="c5"), State.DELIVERED)
    ranks = [("local/default/c2", 2), ("local/default/c1", 1), ("local/default/c3", 1), ("local/default/c4", 0)]
    assert queue.ranked(9) == (4, ranks)
    assert queue.ranked(2, (2, "local/default/c2")) == (3, ranks[1:3])
    assert queue.ranked(9, (1, "local/default/c1")) == (2, ranks[2:])
    assert queue.ranked(9, (0, "local/default/c4")) == (0, [])


def test_no_instance_is_busy_when_nothing_waits(queue: TaskQueue) -> None:
    """None is counted then, nor named."""
    assert (queue.busiest(9), queue.instance_keys("", 9), queue.oldest_at()) == ((0, []), [], None)


def test_instances_are_read_page_after_page_in_the_order_of_their_keys(intake: Intake, queues: QueueStore) -> None:
    """Each once, also those whose tasks are all finished."""
    queue = queues.open()
    for name in ("b", "a", "c"):
        bring(queue, an_upload(instance=name), State.DELIVERED)
    accept(queue, an_upload("/a", instance="b"))
    keys = [f"local/default/{name}" for name in "abc"]
    assert [intake.instance_keys(after, 2) for after in ("", keys[1], keys[2])] == [keys[:2], keys[2:], []]


def test_putting_and_claiming_see_each_other(queues: QueueStore, queue: TaskQueue) -> None:
    """What the API puts is claimed by the worker, and the API sees that."""
    api, upload = queues.open_intake(), an_upload()
    accept(api, upload)
    assert claim(queue) == [upload.task_id]
    assert state_of(api, upload) is State.PUSHING


def test_queue_may_be_closed_again(queues: QueueStore) -> None:
    """Closing twice is no error."""
    for opened in (queues.open(), queues.open_intake()):
        opened.close()
        opened.close()


def test_uploads_of_one_instance_leave_those_of_others_alone(intake: Intake) -> None:
    """The same path in another instance, project or remote is another destination."""
    uploads: list[Upload] = [an_upload("/f"), an_upload("/f", instance="c2"), an_upload("/f", project="p"),
                             an_upload("/f", remote="eu")]
    intake.put_many(sealed(*uploads), supersede=True)
    assert {state_of(intake, upload) for upload in uploads} == {State.QUEUED}
