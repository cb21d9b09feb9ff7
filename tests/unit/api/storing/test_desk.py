"""The thread that stores what several processes take, and the links by which they reach it."""

import asyncio
import errno
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from api.storing import desk as desks
from api.storing.desk import Desk
from api.uploads import awaited, store_link
from api.uploads.group_commit import Answer, CommitResult, GroupCommit, Prepare
from api.uploads.request import UploadRequest
from api.uploads.storage import LINKED_BYTES, Storage
from api.uploads.store_link import StoreLink, take_over
from api.uploads.store_wire import Messages, job_message
from daemon import failpoints
from daemon.errors import CourierError
from daemon.model.upload import Destination
from daemon.spool import open_spool
from daemon.state.layout import Layout
from daemon.task_queue.sqlite.queue import SqliteQueue
from tests.support.depot import a_state
from tests.support.waiting import PATIENCE_S, eventually

Scenario = Callable[["Counter"], Coroutine[Any, Any, None]]


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    """A state directory; no fault is armed after the test."""
    yield a_state(tmp_path)
    failpoints.arm("")


def request(path: str, **values: Any) -> UploadRequest:
    """An upload to that path."""
    given: dict[str, Any] = {
        "display_name": "x", "mode": None, "uid": None, "gid": None, "mkdirs": None, "idempotency_key": None,
        "digests": frozenset(), "length": None}
    return UploadRequest(destination=Destination("local", "default", "c1", path), **{**given, **values})


class Counter:
    """A desk, and the line to it; processes that take uploads are links here."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.storing, self.taking = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.spool = open_spool(layout)
        self.dead = threading.Event()
        self.links: list[StoreLink] = []
        self.desk = self.new_desk()

    def new_desk(self) -> Desk:
        """One that has just started."""
        made = Desk(self.layout, 0, self.spool, when_dead=self.dead.set)
        made.start()
        return made

    def link(self) -> StoreLink:
        """One process more; nobody has taken its end over yet."""
        made = StoreLink(self.taking, 0, supersede=lambda: True)
        made.open()
        self.links.append(made)
        return made

    async def take_links(self, number: int = 1) -> list[socket.socket]:
        """Take over the ends of so many links; they are in order."""
        found: list[socket.socket] = []
        while len(found) < number:
            if (handed := take_over(self.storing)) is None:
                await asyncio.sleep(0.001)
            else:
                found.append(handed[1])
        return found

    async def linked(self) -> StoreLink:
        """One process more, which the desk hears."""
        made = self.link()
        [end] = await self.take_links()
        self.desk.add(end)
        return made

    def close(self) -> None:
        """End everything."""
        self.spool.close()
        self.storing.close()
        self.taking.close()


def play(layout: Layout, scenario: Scenario) -> None:
    """Run a scenario with a desk; it ends when its links have ended."""
    async def run() -> None:
        with closing(Counter(layout)) as counter:
            try:
                await scenario(counter)
            finally:
                for link in counter.links:
                    link.close()
                counter.desk.end()
                assert await asyncio.to_thread(counter.desk.join, PATIENCE_S)

    asyncio.run(run())


async def codes(waiting: Sequence[Awaitable[CommitResult]]) -> list[str]:
    """What became of uploads."""
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    return [answer.code if isinstance(answer, CourierError) else "ok" for answer in answers]


def rows(layout: Layout) -> list[str]:
    """The paths in the queue, in the order of acceptance."""
    with SqliteQueue(layout, 0) as queue:
        return [task.upload.destination.path for task in sorted(queue.page(limit=1000), key=lambda task: task.order)]


class Gate:
    """Holds up the desk's batches, and has their sizes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.begun = threading.Semaphore(0)
        self.may_go_on = threading.Semaphore(0)
        commit = GroupCommit.commit

        def held_up(itself: GroupCommit, batch: Sequence[Prepare]) -> Sequence[Answer]:
            self.sizes.append(len(batch))
            self.begun.release()
            assert self.may_go_on.acquire(timeout=PATIENCE_S)
            return commit(itself, batch)

        monkeypatch.setattr(GroupCommit, "commit", held_up)

    async def has_begun(self) -> None:
        """Wait until one more batch has."""
        assert await asyncio.to_thread(self.begun.acquire, timeout=PATIENCE_S)


def test_uploads_of_several_processes_are_stored_in_one_batch(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that came while the last batch was being stored; each process gets its own answers."""
    gate = Gate(monkeypatch)

    async def scenario(counter: Counter) -> None:
        first, second = await counter.linked(), await counter.linked()
        begun = [first.store(request("/first"), [b"x"])]
        await gate.has_begun()
        later = [link.store(request(f"/{number}/{place}"), [b"a", b"b"])
                 for place, link in enumerate((first, second)) for number in range(3)]
        # They have left: the desk finds them when it looks.
        await asyncio.to_thread(eventually, lambda: all(_is_heard(link) for link in (first, second)), PATIENCE_S, "jobs")
        gate.may_go_on.release(100)
        assert await codes(begun + later) == ["ok"] * 7
        accepted = await asyncio.gather(*later)
        assert {one.upload.destination.path for one in accepted} == {f"/{n}/{p}" for n in range(3) for p in range(2)}
        assert {one.upload.size for one in accepted} == {2}

    play(layout, scenario)
    assert gate.sizes == [1, 6]
    assert len(rows(layout)) == 7


def _is_heard(link: StoreLink) -> bool:
    return not link._gathered


def test_upload_is_refused_with_its_reason(layout: Layout) -> None:
    """What is wrong with one costs its neighbours nothing."""
    async def scenario(counter: Counter) -> None:
        link = await counter.linked()
        wrong = frozenset({("sha-256", "0" * 64)})
        answers = [link.store(request("/a"), [b"x"]), link.store(request("/b", digests=wrong), [b"x"])]
        assert await codes(answers) == ["ok", "digest_mismatch"]

    play(layout, scenario)
    assert rows(layout) == ["/a"]


def test_process_that_goes_takes_no_other_with_it(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had handed over is stored all the same."""
    gate = Gate(monkeypatch)

    async def scenario(counter: Counter) -> None:
        goes, stays = await counter.linked(), await counter.linked()
        nobody_waits = goes.store(request("/a"), [b"x"])
        await gate.has_begun()
        goes.close()
        answered = stays.store(request("/b"), [b"x"])
        gate.may_go_on.release(100)
        assert await codes([answered, nobody_waits]) == ["ok", "outcome_unknown"]

    play(layout, scenario)
    assert rows(layout) == ["/a", "/b"]


def test_process_that_does_not_read_its_answers_holds_up_no_other(layout: Layout) -> None:
    """They wait for it, as many as it has asked for."""
    async def scenario(counter: Counter) -> None:
        own, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        counter.desk.add(theirs)
        many = b"".join(job_message(number, request(f"/{number}"), [b"x"], supersede=True, at=number) for number in range(200))
        await asyncio.to_thread(own.sendall, many)
        link = await counter.linked()
        assert await codes([link.store(request("/b"), [b"x"])]) == ["ok"]
        messages, found = Messages(), 0
        while found < 200:
            data = await asyncio.to_thread(own.recv, 1000)
            found += sum(len(values) for _, values, _ in messages.take(data))
        own.close()

    play(layout, scenario)
    assert len(rows(layout)) == 201


def test_jobs_of_one_batch_are_stored_in_the_order_in_which_they_came_to_the_service(
    layout: Layout, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever process took them, and whichever link is looked at first."""
    gate = Gate(monkeypatch)

    async def scenario(counter: Counter) -> None:
        link = await counter.linked()
        first = link.store(request("/first"), [b"x"])
        await gate.has_begun()
        ends = []
        for at in (3.0, 2.0, 1.0):
            own, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            own.sendall(job_message(0, request(f"/{at}"), [b"x"], supersede=True, at=at))
            counter.desk.add(theirs)
            ends.append(own)
        gate.may_go_on.release(100)
        assert await codes([first]) == ["ok"]
        for own in ends:
            assert await asyncio.to_thread(own.recv, 1)
            own.close()

    play(layout, scenario)
    assert rows(layout) == ["/first", "/1.0", "/2.0", "/3.0"]


def test_small_and_large_uploads_of_a_process_do_not_overtake_each_other(
    layout: Layout, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They go different ways, and none that nobody was told of lands over a later one."""
    gate = Gate(monkeypatch)

    async def scenario(counter: Counter) -> None:
        storage = Storage(layout, 1, counter.spool, supersede=lambda: False, when_dead=lambda: None, line=counter.taking)
        storage.start()
        [end] = await counter.take_links()
        counter.desk.add(end)
        small = asyncio.create_task(storage.store(request("/1"), [b"x"]))
        await gate.has_begun()
        # Nobody waits for it any more; it is stored all the same.
        small.cancel()
        large = asyncio.create_task(storage.store(request("/2"), [bytes(LINKED_BYTES + 1)]))
        await asyncio.sleep(0)
        later = asyncio.create_task(storage.store(request("/3"), [b"x"]))
        await asyncio.sleep(0.01)
        assert len(gate.sizes) == 1
        gate.may_go_on.release(100)
        assert await codes([large, later]) == ["ok"] * 2
        storage.end()
        assert await asyncio.to_thread(storage.close)

    play(layout, scenario)
    assert rows(layout) == ["/1", "/2", "/3"]


def test_link_that_cannot_be_made_is_made_later(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """There was no descriptor left for it; what waits for it is stored then."""
    pair, asked = socket.socketpair, iter([True, True])

    def failing(*arguments: Any) -> Any:
        if next(asked, False):
            raise OSError(errno.EMFILE, "Too many open files")
        return pair(*arguments)

    async def scenario(counter: Counter) -> None:
        monkeypatch.setattr(store_link, "RETRY_S", 0.001)
        monkeypatch.setattr(socket, "socketpair", failing)
        link = counter.link()
        waiting = link.store(request("/a"), [b"x"])
        [end] = await counter.take_links()
        counter.desk.add(end)
        assert await codes([waiting]) == ["ok"]

    play(layout, scenario)


def test_batch_has_an_end(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many come at once: the first of them are not held up by the last."""
    monkeypatch.setattr(desks, "MAX_BATCH", 4)
    gate = Gate(monkeypatch)
    gate.may_go_on.release(100)

    async def scenario(counter: Counter) -> None:
        link = await counter.linked()
        assert await codes([link.store(request(f"/{number}"), [b"x"]) for number in range(11)]) == ["ok"] * 11

    play(layout, scenario)
    assert sum(gate.sizes) == 11
    assert max(gate.sizes) <= 4


def test_desk_that_dies_leaves_nobody_waiting(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had is undecided; what was not sent yet goes to the one that comes after it."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    async def scenario(counter: Counter) -> None:
        link = counter.link()
        [end] = await counter.take_links()
        sent = link.store(request("/a"), [b"x"])
        await asyncio.to_thread(end.recv, 1)
        end.close()
        assert await codes([sent]) == ["outcome_unknown"]
        unsent = link.store(request("/b"), [b"x"])
        [end] = await counter.take_links()
        counter.desk.add(end)
        assert await codes([unsent]) == ["ok"]
        monkeypatch.setattr(GroupCommit, "commit", lambda *_: 1 / 0)
        lost = link.store(request("/c"), [b"x"])
        await asyncio.to_thread(eventually, counter.dead.is_set, PATIENCE_S, "its death")
        # What goes with the process.
        end.close()
        assert await codes([lost]) == ["outcome_unknown"]

    play(layout, scenario)
    assert rows(layout) == ["/b"]


def test_nobody_waits_for_a_desk_that_hangs(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is told that nobody knows; it is said that nothing can be stored, until it goes on."""
    monkeypatch.setattr(awaited, "DECIDED_WITHIN_S", 0.05)
    monkeypatch.setattr(awaited, "HANGS_S", 0.0)
    gate = Gate(monkeypatch)

    async def scenario(counter: Counter) -> None:
        link = await counter.linked()
        assert link.trouble() is None
        waiting = link.store(request("/a"), [b"x"])
        await gate.has_begun()
        assert await codes([waiting]) == ["outcome_unknown"]
        assert "not answered" in (link.trouble() or "")
        gate.may_go_on.release(100)
        while link.trouble() is not None:
            await asyncio.sleep(0.001)

    play(layout, scenario)
    assert rows(layout) == ["/a"]
