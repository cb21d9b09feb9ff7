"""Group commit: what becomes of the uploads of a batch."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from api.uploads.group_commit import Answer, CommitResult, GroupCommit
from daemon import failpoints
from daemon.errors import CourierError, QueueFault, Rejected
from daemon.model.upload import Destination, Upload
from daemon.spool import Incoming
from daemon.spool.inspect import FileSpoolCheck
from daemon.state.layout import Layout
from daemon.task_queue.sqlite.queue import SqliteQueue
from tests.support.depot import a_state

#: Bytes of an upload that has a file of its own.
LARGE = 20_000


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    """A state directory; no fault is armed after the test."""
    yield a_state(tmp_path)
    failpoints.arm("")


def upload(number: int, path: str = "", instance: str = "c1", *, size: int = 3, **values: Any) -> Upload:
    """An upload whose id tells its number."""
    return Upload(task_id=f"00000000-0000-7000-8000-{number:012}", size=size, sha256="0" * 64, created_at=1.0,
                  destination=Destination("local", "default", instance, path or f"/root/{number}"), **values)


def decide(layout: Layout, uploads: Sequence[Upload | Rejected], fault: str = "") -> list[Answer]:
    """Commit the uploads in one batch, while a fault is armed; a Rejected stands for one that cannot be made ready."""
    spool = FileSpoolCheck(layout)

    def prepare(one: Upload | Rejected) -> tuple[Incoming, Upload]:
        if isinstance(one, Rejected):
            raise one
        incoming = spool.begin()
        incoming.write(b"x" * one.size)
        return incoming, one

    commits = GroupCommit(layout, 0, spool, supersede=lambda: True)
    failpoints.arm(fault)
    try:
        return commits.commit([partial(prepare, one) for one in uploads])
    finally:
        failpoints.arm("")
        commits.close()
        spool.close()


def files(layout: Layout) -> set[str]:
    """Names in the spool."""
    return {path.name for path in layout.spool.rglob("*") if path.is_file()}


def rows(layout: Layout, shard: int = 0) -> list[str]:
    """Ids in the queue, in the order of acceptance."""
    with SqliteQueue(layout, shard) as queue:
        return [task.task_id for task in sorted(queue.page(limit=100), key=lambda task: task.order)]


def codes(answers: Sequence[Answer]) -> list[str]:
    """The codes of refusals; `ok` for the others."""
    return [answer.code if isinstance(answer, CourierError) else "ok" for answer in answers]


def test_rows_are_put_in_the_order_of_the_ids(layout: Layout) -> None:
    """Which of two uploads is newer does not depend on which was ready first."""
    uploads = [upload(3), upload(1), upload(2)]
    assert codes(decide(layout, uploads)) == ["ok"] * 3
    assert rows(layout) == [upload(number).task_id for number in (1, 2, 3)]
    assert files(layout) == set(rows(layout))


def test_duplicate_and_mismatch_cost_their_neighbours_nothing(layout: Layout) -> None:
    """Of four uploads with keys two are new; the others' bytes are taken back."""
    uploads = [upload(1, "/a", idempotency_key="k"), upload(2, "/a", idempotency_key="k"),
               upload(3, "/b", idempotency_key="k"), upload(4, "/c")]
    answers = decide(layout, uploads)
    assert codes(answers) == ["ok", "ok", "idempotency_mismatch", "ok"]
    assert isinstance(answers[1], CommitResult)
    assert answers[1].put.task_id == uploads[0].task_id
    assert files(layout) == set(rows(layout)) == {uploads[0].task_id, uploads[3].task_id}


@pytest.mark.parametrize(("fault", "code", "kept"), [
    ("queue.insert=ENOSPC", "no_room", 0), ("queue.insert=EIO", "storage_failed", 0),
    ("queue.commit=EDQUOT", "no_room", 0), ("queue.commit=EROFS", "storage_failed", 0),
    ("queue.committed=EIO", "outcome_unknown", 2),
])
def test_bytes_are_taken_back_only_when_their_rows_are_certainly_not_there(
    layout: Layout, fault: str, code: str, kept: int,
) -> None:
    """A fault before the commit leaves nothing; after it nobody knows, and everything stays."""
    answers = decide(layout, [upload(1), upload(2)], fault)
    assert codes(answers) == [code] * 2
    assert len(files(layout)) == len(rows(layout)) == kept


def test_rows_are_put_again_when_the_database_was_replaced_under_them(
    layout: Layout, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was committed into a database that is set aside meanwhile is put into its successor before it is answered."""
    asked = iter([True, True])
    monkeypatch.setattr(SqliteQueue, "replaced", lambda _queue: next(asked, False))
    assert codes(decide(layout, [upload(1)])) == ["ok"]
    assert files(layout) == set(rows(layout)) == {upload(1).task_id}


def test_nobody_knows_when_the_second_database_fails(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows may be found in the database that was set aside: the bytes stay."""
    asked = iter([True, True])
    monkeypatch.setattr(SqliteQueue, "replaced", lambda _queue: next(asked, False))
    put_many, calls = SqliteQueue.put_many, iter([True])

    def once(self: SqliteQueue, *arguments: Any, **options: Any) -> Any:
        if next(calls, False):
            return put_many(self, *arguments, **options)
        raise QueueFault("queue_damaged")

    monkeypatch.setattr(SqliteQueue, "put_many", once)
    assert codes(decide(layout, [upload(1)])) == ["outcome_unknown"]
    assert files(layout) == {upload(1).task_id}


def test_upload_that_cannot_be_made_ready_costs_its_neighbours_nothing(layout: Layout) -> None:
    """Its digest was wrong, or the disk had no room for it: the others are accepted."""
    answers = decide(layout, [upload(1), Rejected("digest_mismatch"), upload(3)])
    assert codes(answers) == ["ok", "digest_mismatch", "ok"]
    assert files(layout) == set(rows(layout)) == {upload(1).task_id, upload(3).task_id}


@pytest.mark.parametrize(("fault", "size", "code"), [
    ("spool.open=ENOSPC@2", LARGE, "no_room"), ("spool.write=ENOSPC@2", LARGE, "no_room"),
    ("spool.sync=EIO@2", LARGE, "storage_failed"), ("spool.link=EDQUOT@2", LARGE, "no_room"),
    ("spool.link=EDQUOT@2", 3, "no_room"),
])
def test_upload_that_cannot_be_sealed_fails_alone(layout: Layout, fault: str, size: int, code: str) -> None:
    """At whatever step: nothing of it is left, and its neighbours are accepted."""
    answers = decide(layout, [upload(number, size=size) for number in (1, 2, 3)], fault)
    assert codes(answers) == ["ok", code, "ok"]
    assert files(layout) == set(rows(layout)) == {upload(1).task_id, upload(3).task_id}


@pytest.mark.parametrize("fault", ["spool.open=ENOSPC@1", "spool.write=ENOSPC@1", "spool.sync=EIO@1"])
def test_fault_that_meets_small_uploads_together_once_costs_nobody_anything(layout: Layout, fault: str) -> None:
    """They share a file; without it each is tried again alone."""
    uploads = [upload(1), upload(2), upload(3)]
    assert codes(decide(layout, uploads, fault)) == ["ok"] * 3
    assert files(layout) == set(rows(layout)) == {one.task_id for one in uploads}


@pytest.mark.parametrize(("fault", "code"), [
    ("spool.open=ENOSPC", "no_room"), ("spool.write=ENOSPC", "no_room"), ("spool.sync=EIO", "storage_failed")])
def test_fault_that_stays_refuses_each_small_upload_for_itself(layout: Layout, fault: str, code: str) -> None:
    """Nothing of any is left."""
    assert codes(decide(layout, [upload(1), upload(2), upload(3)], fault)) == [code] * 3
    assert files(layout) == set(rows(layout)) == set()


def test_uploads_of_a_file_whose_names_cannot_be_synced_stay_undecided(layout: Layout) -> None:
    """They have their names, durable or not, and no rows; what is in other files is accepted."""
    uploads = [upload(1), upload(2, size=LARGE), upload(3)]
    assert codes(decide(layout, uploads, "spool.linksync=EIO@1")) == ["outcome_unknown", "ok", "outcome_unknown"]
    assert rows(layout) == [uploads[1].task_id]
    assert files(layout) == {one.task_id for one in uploads}


def test_uploads_of_a_directory_that_cannot_be_synced_stay_undecided(layout: Layout) -> None:
    """They have their names, durable or not, and no rows; what is in other directories is accepted."""
    uploads = [upload(1), upload(2, instance="c2"), upload(3)]
    assert uploads[0].destination.bucket != uploads[1].destination.bucket
    assert codes(decide(layout, uploads, "spool.dirsync=EIO@1")) == ["outcome_unknown", "ok", "outcome_unknown"]
    assert rows(layout) == [uploads[1].task_id]
    assert files(layout) == {one.task_id for one in uploads}
