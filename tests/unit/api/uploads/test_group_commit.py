"""Group commit: what becomes of sealed uploads."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.uploads.group_commit import CommitResult, Committer, Ticket
from daemon import failpoints
from daemon.errors import CourierError, QueueFault
from daemon.model.upload import Destination, Upload
from daemon.spool.inspect import FileSpoolCheck
from daemon.state.layout import Layout
from daemon.task_queue.sqlite.queue import SqliteQueue
from tests.support.depot import a_state

Decided = list[CommitResult | CourierError]


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    """A state directory; no fault is armed after the test."""
    yield a_state(tmp_path)
    failpoints.arm("")


def upload(number: int, path: str = "", **values: Any) -> Upload:
    """An upload of three bytes whose id tells its number."""
    return Upload(task_id=f"00000000-0000-7000-8000-{number:012}", size=3, sha256="0" * 64, created_at=1.0,
                  destination=Destination("local", "default", "c1", path or f"/root/{number}"), **values)


def decide(layout: Layout, uploads: list[Upload], before: Callable[[], None] = lambda: None) -> Decided:
    """Seal the uploads, do `before`, hand them to a committer, and return what it decided, in their order."""
    async def scenario() -> Decided:
        deaths: list[str] = []
        spool = FileSpoolCheck(layout)
        committer = Committer(layout, 0, spool, supersede=lambda: True, receiving=lambda: len(uploads),
                              when_dead=lambda: deaths.append("died"))
        tickets = []
        for one in uploads:
            incoming = spool.begin()
            incoming.write(b"abc")
            tickets.append(Ticket.new())
            committer.hand_over(incoming.seal(one), tickets[-1])
        before()
        committer.start()
        answers = await asyncio.gather(*(ticket.decided for ticket in tickets), return_exceptions=True)
        await asyncio.to_thread(committer.close)
        spool.close()
        assert deaths == []
        return [answer for answer in answers if isinstance(answer, CommitResult | CourierError)]

    return asyncio.run(scenario())


def files(layout: Layout) -> set[str]:
    """Names in the spool."""
    return {path.name for path in layout.spool.rglob("*") if path.is_file()}


def rows(layout: Layout) -> list[str]:
    """Ids in the queue, in the order of acceptance."""
    with SqliteQueue(layout, 0) as queue:
        return [task.task_id for task in sorted(queue.page(limit=100), key=lambda task: task.order)]


def codes(answers: Decided) -> list[str]:
    """The codes of refusals; `ok` for the others."""
    return [answer.code if isinstance(answer, CourierError) else "ok" for answer in answers]


def test_rows_are_put_in_the_order_of_the_ids(layout: Layout) -> None:
    """Which of two uploads is newer does not depend on which thread was faster."""
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
    answers = decide(layout, [upload(1), upload(2)], lambda: failpoints.arm(fault))
    failpoints.arm("")
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


def test_upload_is_decided_when_those_that_are_under_way_do_not_come(layout: Layout) -> None:
    """A batch waits for others a moment only, however often: nobody's upload depends on the next one."""
    async def scenario() -> int:
        spool = FileSpoolCheck(layout)
        committer = Committer(layout, 0, spool, supersede=lambda: True, receiving=lambda: 99, when_dead=lambda: None)
        committer.start()

        async def one_after_the_other(first: int) -> int:
            for number in range(first, first + 100):
                ticket = Ticket.new()
                committer.hand_over(spool.begin().seal(replace(upload(number), size=0)), ticket)
                await ticket.decided
            return 100

        async with asyncio.timeout(60):
            done = await asyncio.gather(*(one_after_the_other(1000 * client) for client in range(4)))
        await asyncio.to_thread(committer.close)
        spool.close()
        return sum(done)

    assert asyncio.run(scenario()) == 400
