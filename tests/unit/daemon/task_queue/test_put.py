"""What an upload finds when it is put into a queue, and what a key stands for."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from daemon import failpoints
from daemon.errors import QueueFault
from daemon.model.task import State
from daemon.model.upload import Upload
from daemon.task_queue import PutOutcome, open_intake
from daemon.task_queue.sqlite.queue import SqliteQueue
from tests.support import rows
from tests.support.depot import Depot, an_upload, new_id, sealed


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def test_upload_is_put_once_however_often_it_is_tried(depot: Depot) -> None:
    """Putting a row whose outcome was unknown again is right: it is a duplicate of itself."""
    upload = depot.accept()
    for supersede in (True, False):
        [answer] = depot.queue.put_many(sealed(upload), supersede=supersede)
        assert (answer.outcome, answer.task_id, answer.superseded) == (PutOutcome.DUPLICATE, upload.task_id, {})
    assert len(depot.queue.page(limit=10)) == 1


@pytest.mark.parametrize(("looks", "certain"), [(0, True), (1, False)])
def test_put_says_what_is_certain_when_the_disk_is_gone(
    depot: Depot, monkeypatch: pytest.MonkeyPatch, looks: int, certain: bool,
) -> None:
    """Nothing was put where it is gone before; after the commit nobody can tell."""
    answers = iter([False] * looks)

    def replaced(_queue: SqliteQueue) -> bool:
        for answer in answers:
            return answer
        raise QueueFault("queue_failed", "The queue: Input/output error.")

    with closing(open_intake(depot.layout, depot.queue.shard, depot.spool)) as intake:
        intake.put_many(sealed(an_upload("/f")), supersede=True)
        monkeypatch.setattr(SqliteQueue, "replaced", replaced)
        with pytest.raises(QueueFault) as caught:
            intake.put_many(sealed(an_upload("/g")), supersede=True)
    assert caught.value.certainly_failed is certain


def test_disk_that_is_gone_is_told_as_a_fault_of_the_queue(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only the names of its files are looked at."""
    def fail(_path: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("daemon.task_queue.sqlite.base.inode", fail)
    with pytest.raises(QueueFault) as caught:
        depot.queue.replaced()
    assert caught.value.code == "queue_failed"


def test_newer_upload_replaces_those_that_still_wait(depot: Depot) -> None:
    """Queued and deferred older ones of the same path are superseded; one that is being pushed, held or failed is not."""
    uploads = {}
    for state in (State.HELD, State.FAILED, State.DEFERRED, State.PUSHING, State.QUEUED):
        uploads[state] = an_upload("/f")
        depot.put(uploads[state], supersede=False)
        rows.write(depot.queue, uploads[state].task_id, status=state)
    elsewhere = depot.accept("/g")
    [answer] = depot.queue.put_many(sealed(an_upload("/f")), supersede=True)
    assert set(answer.superseded) == {uploads[State.DEFERRED].task_id, uploads[State.QUEUED].task_id}
    assert [depot.state(uploads[state]) for state in (State.HELD, State.FAILED, State.PUSHING)] == [
        State.HELD, State.FAILED, State.PUSHING]
    assert depot.state(elsewhere) is State.QUEUED


def test_uploads_of_one_transaction_replace_one_another(depot: Depot) -> None:
    """Of several to one path in one transaction only the last is to be delivered."""
    uploads = [an_upload("/f") for _ in range(3)]
    answers = depot.queue.put_many(sealed(*uploads), supersede=True)
    assert [sorted(answer.superseded) for answer in answers] == [[], [], [uploads[0].task_id, uploads[1].task_id]]
    assert depot.task(uploads[0]).error_message == f"Replaced by {uploads[2].task_id}."


def test_failed_transaction_keeps_none_of_its_uploads(depot: Depot) -> None:
    """All or nothing, and that it was nothing is known."""
    failpoints.arm("queue.insert=EIO@2")
    with pytest.raises(QueueFault) as caught:
        depot.queue.put_many(sealed(an_upload("/a"), an_upload("/b")), supersede=True)
    assert caught.value.certainly_failed
    assert depot.queue.page(limit=10) == []
    assert rows.tallies(depot.queue) == {}


def test_key_stands_for_its_first_upload(depot: Depot) -> None:
    """The same upload with the same key is answered with the first one's id, and nothing is kept of it."""
    first = depot.accept(idempotency_key="k")
    [answer] = depot.queue.put_many(sealed(an_upload(idempotency_key="k")), supersede=True)
    assert (answer.outcome, answer.task_id) == (PutOutcome.DUPLICATE, first.task_id)
    assert depot.state(first) is State.QUEUED


@pytest.mark.parametrize("other", [an_upload("/other", idempotency_key="k"), an_upload(data=b"other", idempotency_key="k"),
                                   an_upload(mode=0o600, idempotency_key="k"), an_upload(idempotency_key="k", mkdirs=True)])
def test_key_is_refused_for_another_upload(depot: Depot, other: Upload) -> None:
    """Any difference in what would be done is a mismatch."""
    depot.accept(idempotency_key="k")
    [answer] = depot.queue.put_many(sealed(other), supersede=True)
    assert answer.outcome is PutOutcome.MISMATCH
    assert depot.queue.find(other.task_id) is None


def test_key_that_is_refused_rolls_back_none_of_its_neighbours(depot: Depot) -> None:
    """Uploads that happen to share a transaction do not share a fate."""
    depot.accept(idempotency_key="k")
    uploads = [an_upload("/a"), an_upload("/b", idempotency_key="k"), an_upload("/c", idempotency_key="other")]
    answers = depot.queue.put_many(sealed(*uploads), supersede=True)
    assert [answer.outcome for answer in answers] == [PutOutcome.ACCEPTED, PutOutcome.MISMATCH, PutOutcome.ACCEPTED]
    assert depot.queue.find(uploads[1].task_id) is None


def test_key_is_bound_to_its_instance(depot: Depot) -> None:
    """For another instance it is another key, wherever that instance's tasks are."""
    first = depot.accept(idempotency_key="k")
    other = an_upload("/other", instance="c2", idempotency_key="k")
    assert depot.put(other).outcome is PutOutcome.ACCEPTED
    for upload in (first, other):
        [answer] = depot.queue.put_many(sealed(replace(upload, task_id=new_id())), supersede=True)
        assert (answer.outcome, answer.task_id) == (PutOutcome.DUPLICATE, upload.task_id)


def test_upload_without_a_key_costs_no_statement_about_keys(depot: Depot) -> None:
    """Only who asks for it pays for it."""
    statements: list[str] = []
    depot.queue.durable.set_trace_callback(statements.append)
    depot.accept()
    assert [text for text in statements if "keys" in text] == []
    depot.accept(idempotency_key="k")
    assert [text for text in statements if "keys" in text]


def test_key_whose_upload_is_lost_stands_for_the_next(depot: Depot) -> None:
    """A repeat is acknowledged only if the first one is finished or its bytes are there."""
    first = depot.accept(idempotency_key="k")
    depot.spool.remove([first])
    again = an_upload(idempotency_key="k")
    [answer] = depot.queue.put_many(sealed(again), supersede=True)
    assert (answer.outcome, answer.task_id) == (PutOutcome.ACCEPTED, again.task_id)


def test_key_of_a_finished_upload_still_stands_for_it(depot: Depot) -> None:
    """After the delivery and the removal of the bytes a repeat is still a repeat."""
    first = depot.accept(idempotency_key="k")
    depot.settle(first, State.DELIVERED)
    depot.spool.remove([first])
    [answer] = depot.queue.put_many(sealed(an_upload(idempotency_key="k")), supersede=True)
    assert (answer.outcome, answer.task_id) == (PutOutcome.DUPLICATE, first.task_id)


def test_key_goes_with_its_row(depot: Depot) -> None:
    """When a finished row is cleared its key can be used again."""
    first = depot.accept(idempotency_key="k")
    depot.settle(first, State.DELIVERED)
    depot.queue.unspool([depot.task(first).order])
    assert depot.queue.clear_finished(time.time() + 1, 0, 10) == 1
    [answer] = depot.queue.put_many(sealed(an_upload("/other", idempotency_key="k")), supersede=True)
    assert answer.outcome is PutOutcome.ACCEPTED
