"""The engine of resumable uploads, from their making to the task."""

import asyncio
import hashlib
import itertools
import shutil
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from api.http.response import Event
from api.live_config import LiveConfig
from api.resumable import completion
from api.resumable import sweeping as sweeping_module
from api.resumable.sweeping import sweep
from api.resumable.values import Checksum, Progress, WrongOffset
from api.uploads.body import ClientGone
from daemon import failpoints
from daemon.errors import Rejected
from daemon.model.grant import Grant, Permission
from daemon.partials.file_partial import FilePartial
from daemon.state.layout import Layout
from tests.support.resumables import Kit, Person, coming, configured, kit

DATA = bytes(range(256)) * 1000
Result = TypeVar("Result")


@pytest.fixture
def layout(quick_path: Path) -> Layout:
    """A new state directory."""
    made = Layout(quick_path / "state")
    made.create()
    return made


def run(layout: Layout, happen: Callable[[Kit], Awaitable[Result]], **settings: object) -> Result:
    """Let it happen with an engine of its own, as in a process of its own."""
    async def alone() -> Result:
        async with kit(layout, configured(**settings)) as made:
            return await happen(made)

    return asyncio.run(alone())


async def refused(work: Awaitable[Progress]) -> Rejected:
    """The refusal that something ends with."""
    with pytest.raises(Rejected) as error:
        await work
    return error.value


async def complete(made: Kit, data: bytes = DATA) -> Progress:
    """An upload in one append."""
    begun = await made.create(len(data))
    return await made.append(begun.upload_id, 0, data)


def test_upload_goes_on_where_it_was_cut_off(layout: Layout) -> None:
    """In another process, too; what it becomes has all bytes, and its digest."""
    async def first(made: Kit) -> Progress:
        begun = await made.create(len(DATA))
        assert (begun.offset, begun.length, begun.metadata, begun.complete) == (0, len(DATA), "meta", False)
        with pytest.raises(ClientGone):
            await made.append(begun.upload_id, 0, coming([DATA[:1000], DATA[1000:200_000]], None, gone=True),
                              content_length=len(DATA))
        assert made.spool.is_empty()
        return await made.look(begun.upload_id)

    async def second(made: Kit, begun: Progress) -> None:
        done = await made.append(begun.upload_id, begun.offset, DATA[begun.offset:])
        assert (done.complete, done.offset) == (True, len(DATA))
        assert done.task_id is not None
        assert made.bytes_of(done.task_id) == DATA
        assert done.upload is not None
        assert done.upload.sha256 == hashlib.sha256(DATA).hexdigest()
        assert done.upload.client == "token:ci"
        assert await made.look(begun.upload_id) == replace(done, accepted=None, expires_at=(
            await made.look(begun.upload_id)).expires_at)
        assert list(layout.partials.iterdir()) == [layout.partials / f"{begun.upload_id}.head"]

    begun = run(layout, first)
    assert begun.offset == 200_000
    run(layout, lambda made: second(made, begun))


def test_nothing_is_kept_behind_bytes_that_could_not_be_written(
    layout: Layout, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the reason, and though the client has sent more before it goes away: what is told is what it sent."""
    pieces = [bytes([number]) * 2**16 for number in range(12)]
    data, store = b"".join(pieces), FilePartial.store
    begun_writes = deque([threading.Event(), threading.Event()])
    waited_for = dict(zip((2, 6), begun_writes, strict=True))

    def out_of_memory_once(partial: FilePartial, some: Sequence[bytes]) -> None:
        if begun_writes:
            begun_writes.popleft().set()
            if not begun_writes:
                raise MemoryError
        store(partial, some)

    async def receive() -> Event:
        """Eight pieces, then the client is gone; the first two are a batch, and the next four."""
        number = next(numbers)
        if number in waited_for:
            await asyncio.to_thread(waited_for[number].wait, 20)
        return ({"type": "http.request", "body": pieces[number], "more_body": True} if number < 8
                else {"type": "http.disconnect"})

    numbers = itertools.count()

    async def happen(made: Kit) -> None:
        begun = await made.create(len(data))
        monkeypatch.setattr(FilePartial, "store", out_of_memory_once)
        with pytest.raises(MemoryError):
            await made.append(begun.upload_id, 0, receive, content_length=len(data))
        offset = (await made.look(begun.upload_id)).offset
        assert (layout.partials / begun.upload_id).read_bytes()[:offset] == data[:offset]
        done = await made.append(begun.upload_id, offset, data[offset:])
        assert done.task_id is not None
        assert made.bytes_of(done.task_id) == data

    run(layout, happen)
    assert not begun_writes


def test_small_appends_make_a_whole(layout: Layout) -> None:
    """Each is on the disk when it is answered; the last byte is told with the task."""
    async def happen(made: Kit) -> None:
        begun = await made.create(6)
        first = await made.append(begun.upload_id, 0, b"abc")
        assert (first.offset, first.complete) == (3, False)
        wrong = await refused(made.append(begun.upload_id, 2, b"x"))
        assert isinstance(wrong, WrongOffset)
        assert wrong.offset == 3
        assert (await refused(made.append(begun.upload_id, 3, b"defg"))).code == "beyond_length"
        done = await made.append(begun.upload_id, 3, b"def")
        assert done.task_id is not None
        assert made.bytes_of(done.task_id) == b"abcdef"
        assert (await made.append(begun.upload_id, 6, b"")).task_id == done.task_id
        assert (await refused(made.append(begun.upload_id, 6, b"x"))).code == "upload_completed"

    run(layout, happen)


def test_upload_of_nothing_is_complete_at_once(layout: Layout) -> None:
    """It becomes a task all the same."""
    async def happen(made: Kit) -> None:
        done = await made.create(0)
        assert (done.complete, done.offset) == (True, 0)
        assert made.bytes_of(done.task_id or "") == b""

    run(layout, happen)


def test_length_may_be_said_later(layout: Layout) -> None:
    """With an append, or by the last one; it does not change after that."""
    async def happen(made: Kit) -> None:
        begun = await made.create(None)
        assert (await made.append(begun.upload_id, 0, b"abc")).length is None
        assert (await refused(made.append(begun.upload_id, 3, b"", length=2))).code == "inconsistent_length"
        assert (await made.append(begun.upload_id, 3, b"d", length=6)).length == 6
        assert (await refused(made.append(begun.upload_id, 4, b"", length=7))).code == "inconsistent_length"
        assert (await refused(made.append(begun.upload_id, 4, b"e", final=True))).code == "inconsistent_length"
        assert (await made.append(begun.upload_id, 4, b"ef")).complete
        ended = await made.create(None)
        assert not (await made.append(ended.upload_id, 0, b"abc", final=False)).complete
        done = await made.append(ended.upload_id, 3, coming([b"de"], None), final=True)
        assert (done.complete, done.length) == (True, 5)
        assert made.bytes_of(done.task_id or "") == b"abcde"
        empty = await made.create(None)
        await made.append(empty.upload_id, 0, b"abc", final=False)
        assert (await made.append(empty.upload_id, 3, b"", final=True)).complete

    run(layout, happen)


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_checksum_is_looked_at_before_anything_counts(layout: Layout, algorithm: str) -> None:
    """What does not have it is dropped, small or large, and so is what was cut off; the offset never goes down."""
    async def happen(made: Kit) -> None:
        begun = await made.create(2 * len(DATA))
        right = Checksum(algorithm, hashlib.new(algorithm, DATA).digest())
        assert (await refused(made.append(begun.upload_id, 0, DATA[:-1] + b"?", checksum=right))).kind.status == 460
        assert (await refused(made.append(begun.upload_id, 0, b"?", checksum=right))).code == "checksum_mismatch"
        with pytest.raises(ClientGone):
            await made.append(begun.upload_id, 0, coming([DATA[:200_000]], None, gone=True), checksum=right)
        assert (await made.look(begun.upload_id)).offset == 0
        assert (await made.append(begun.upload_id, 0, DATA, checksum=right)).offset == len(DATA)
        done = await made.append(begun.upload_id, len(DATA), DATA, checksum=right)
        assert made.bytes_of(done.task_id or "") == 2 * DATA
        assert (await refused(made.append(begun.upload_id, 0, b"", checksum=Checksum("md5", b"")))).code == "bad_checksum"

    run(layout, happen)


def test_newer_request_ends_the_older_in_another_process(layout: Layout) -> None:
    """Even a look; what the older one had sent is kept, and the newer goes on from there."""
    async def happen(made: Kit) -> None:
        begun = await made.create(len(DATA))
        sent = asyncio.Event()

        async def stall() -> None:
            sent.set()
            await asyncio.Event().wait()

        async with kit(layout) as other:
            older = asyncio.create_task(made.append(begun.upload_id, 0, coming([DATA[:200_000]], stall)))
            await sent.wait()
            assert (await other.look(begun.upload_id)).offset == 200_000
            assert (await refused(older)).code == "upload_busy"
            older = asyncio.create_task(made.append(begun.upload_id, 200_000, coming([DATA[200_000:-1]], stall)))
            sent.clear()
            await sent.wait()
            done = await other.append(begun.upload_id, (await made.look(begun.upload_id)).offset, DATA[-1:])
            assert (await refused(older)).code == "upload_busy"
            assert other.bytes_of(done.task_id or "") == DATA

    run(layout, happen)


def test_request_that_sends_only_the_last_byte_again_is_ended_too(layout: Layout) -> None:
    """All is there, and it waits for a byte that does not come."""
    async def happen(made: Kit) -> None:
        begun, sent = await made.create(3), asyncio.Event()
        failpoints.arm("queue.insert=EIO")
        try:
            await refused(made.append(begun.upload_id, 0, b"abc"))
        finally:
            failpoints.arm("")

        async def stall() -> None:
            sent.set()
            await asyncio.Event().wait()

        older = asyncio.create_task(made.append(begun.upload_id, 2, coming([], stall), content_length=1))
        await sent.wait()
        assert (await made.append(begun.upload_id, 2, b"c")).complete
        assert (await refused(older)).code == "upload_busy"

    run(layout, happen)


def test_newer_request_does_not_wait_until_all_is_read_again(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that gets the last byte has not seen the others; what it has read it does not read once more."""
    async def begin(made: Kit) -> Progress:
        begun = await made.create(len(DATA))
        return await made.append(begun.upload_id, 0, DATA[:-1])

    async def end(made: Kit, begun: Progress) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(completion, "_READ_BYTES", 1000)
            patch.setattr(FilePartial, "is_wanted", lambda _: True)
            assert (await refused(made.append(begun.upload_id, begun.offset, DATA[-1:]))).code == "upload_busy"
        read, plain = list[int](), FilePartial.read

        def noted(partial: FilePartial, offset: int, most: int) -> bytes:
            read.append(offset)
            return plain(partial, offset, most)

        monkeypatch.setattr(FilePartial, "read", noted)
        done = await made.append(begun.upload_id, begun.offset, DATA[-1:])
        assert made.bytes_of(done.task_id or "") == DATA
        assert read[0] == 32_000

    begun = run(layout, begin)
    run(layout, lambda made: end(made, begun))


def test_who_does_not_let_go_is_not_waited_for_without_a_bound(layout: Layout) -> None:
    """A disk that hangs under one request: the others are told that it is busy."""
    async def happen() -> None:
        async with kit(layout, patience_s=0.05) as made:
            begun = await made.create(3)
            turn = made.partials.want(begun.upload_id)
            assert turn is not None
            held = turn.take()
            assert held is not None
            assert (await refused(made.look(begun.upload_id))).code == "upload_busy"
            held.release()
            assert (await made.look(begun.upload_id)).offset == 0

    asyncio.run(happen())


def test_another_identity_finds_nothing(layout: Layout) -> None:
    """Neither to look, nor to add, nor to end; and the owner's request goes on."""
    async def happen(made: Kit) -> None:
        begun, other = await made.create(3), Person("token:other")
        sent, go_on = asyncio.Event(), asyncio.Event()

        async def pause() -> None:
            sent.set()
            await go_on.wait()

        own = asyncio.create_task(made.append(begun.upload_id, 0, coming([b"abc"], pause), content_length=3))
        await sent.wait()
        assert (await refused(made.look(begun.upload_id, other))).code == "upload_not_found"
        assert (await refused(made.append(begun.upload_id, 0, b"abc", other))).code == "upload_not_found"
        with pytest.raises(Rejected) as error:
            await made.resumable.end(begun.upload_id, other.requester)
        assert error.value.code == "upload_not_found"
        go_on.set()
        assert (await own).complete

    run(layout, happen)


def test_rights_are_looked_at_again_at_the_end(layout: Layout) -> None:
    """Who may not any more gets no task, and nothing is left of his upload."""
    async def happen(made: Kit) -> None:
        person = Person()
        begun = await made.create(3, person)

        async def loses() -> None:
            person.grant = Grant(may=frozenset({Permission.READ}))

        error = await refused(made.append(begun.upload_id, 0, coming([b"abc"], loses), person))
        assert error.kind.status == 403
        assert (await refused(made.look(begun.upload_id, person))).code == "upload_not_found"
        assert list(layout.partials.iterdir()) == []

    run(layout, happen)


def test_digest_of_the_whole_is_looked_at(layout: Layout) -> None:
    """One that does not fit can never become a task."""
    async def happen(made: Kit) -> None:
        digests = frozenset({("sha-512", hashlib.sha512(b"abcdef").hexdigest())})
        good, bad = await made.create(6, digests=digests), await made.create(6, digests=digests)
        for begun in (good, bad):
            await made.append(begun.upload_id, 0, b"abc")
        assert (await made.append(good.upload_id, 3, b"def")).complete
        assert (await refused(made.append(bad.upload_id, 3, b"???"))).code == "digest_mismatch"
        assert (await refused(made.look(bad.upload_id))).code == "upload_not_found"

    run(layout, happen)


def test_repeated_key_gives_the_first_task(layout: Layout) -> None:
    """Its bytes are let go; a key of another upload is refused."""
    async def happen(made: Kit) -> None:
        first, second, other = [await made.create(3, idempotency_key="k") for _ in range(3)]
        done = await made.append(first.upload_id, 0, b"abc")
        again = await made.append(second.upload_id, 0, b"abc")
        assert again.accepted is not None
        assert again.accepted.replayed
        assert again.task_id == done.task_id == (await made.look(second.upload_id)).task_id
        assert (await refused(made.append(other.upload_id, 0, b"???"))).code == "idempotency_mismatch"
        assert {path.name for path in layout.partials.iterdir()} == {f"{first.upload_id}.head", f"{second.upload_id}.head"}

    run(layout, happen)


@pytest.mark.parametrize("fault", ["queue.insert=EIO", "queue.commit=ENOSPC", "partials.choose=EIO", "partials.rename=EIO",
                                   "partials.record=ENOSPC@2", "spool.linksync=EIO", "spool.dirsync=EIO",
                                   "spool.sync=EIO"])
def test_what_could_not_be_completed_is_kept_for_another_try(layout: Layout, fault: str) -> None:
    """All but the last byte may be told; that one sent again makes the same task as the first try would have."""
    async def happen(made: Kit) -> None:
        begun = await made.create(6)
        await made.append(begun.upload_id, 0, b"abc")
        failpoints.arm(fault)
        try:
            error = await refused(made.append(begun.upload_id, 3, b"def"))
        finally:
            failpoints.arm("")
        assert error.kind.status in {503, 507}
        known = made.partials.find(begun.upload_id)
        assert known is not None
        looked = await made.look(begun.upload_id)
        assert not looked.complete
        assert 3 <= looked.offset <= 5
        done = await made.append(begun.upload_id, looked.offset, b"abcdef"[looked.offset:])
        assert made.bytes_of(done.task_id or "") == b"abcdef"
        chosen = known[1].upload
        assert chosen is None or chosen.task_id == done.task_id
        assert made.reader.waiting().tasks == 1

    run(layout, happen)


def test_look_finds_out_that_the_task_is_in_the_queue(layout: Layout) -> None:
    """Its row was committed, and nobody could write that down: the client is told all the same, and afterwards."""
    async def happen(made: Kit) -> None:
        begun = await made.create(3)
        failpoints.arm("partials.conclude=EIO@1")
        try:
            done = await made.append(begun.upload_id, 0, b"abc")
        finally:
            failpoints.arm("")
        assert done.complete
        known = made.partials.find(begun.upload_id)
        assert known is not None
        assert known[1].offset == 2
        looked = await made.look(begun.upload_id)
        assert (looked.complete, looked.offset, looked.task_id) == (True, 3, done.task_id)

    run(layout, happen)


async def completed_after_a_newer(made: Kit, fault: str) -> tuple[str, Progress]:
    """The task that was chosen when the end of an upload failed, and the upload; a newer one came to its path since."""
    begun = await made.create(3)
    failpoints.arm(fault)
    try:
        await refused(made.append(begun.upload_id, 0, b"old"))
    finally:
        failpoints.arm("")
    known = made.partials.find(begun.upload_id)
    assert known is not None
    assert known[1].upload is not None
    newer = await made.create(3)
    await made.append(newer.upload_id, 0, b"new")
    return known[1].upload.task_id, begun


def test_upload_that_is_completed_late_takes_its_place_then(layout: Layout) -> None:
    """A newer one came to its path after its first try: a queue that is rebuilt has both in the order of their answers."""
    async def happen(made: Kit) -> None:
        chosen, begun = await completed_after_a_newer(made, "queue.insert=EIO")
        done = await made.append(begun.upload_id, 2, b"d")
        assert done.accepted is not None
        [replaced] = done.accepted.superseded
        assert (done.task_id or "") > replaced > chosen
        assert made.bytes_of(done.task_id or "") == b"old"
        assert made.reader.find(chosen, lambda _: True) is None

    run(layout, happen)


def test_old_choice_of_which_nothing_came_is_made_anew(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were its process to die with the file in the spool, the worker looks for the files of the last minute only."""
    async def happen(made: Kit) -> None:
        begun = await made.create(3)
        failpoints.arm("queue.insert=EIO")
        try:
            await refused(made.append(begun.upload_id, 0, b"abc"))
        finally:
            failpoints.arm("")
        known = made.partials.find(begun.upload_id)
        monkeypatch.setattr(completion, "PLACE_S", 0.0)
        done = await made.append(begun.upload_id, 2, b"c")
        assert known is not None
        assert known[1].upload is not None
        assert (done.task_id or "") > known[1].upload.task_id
        assert made.bytes_of(done.task_id or "") == b"abc"

    run(layout, happen)


def test_upload_in_the_spool_before_a_newer_one_is_left_to_its_worker(layout: Layout) -> None:
    """It may have its row at any moment, under its old id: its client is told to come again."""
    async def happen(made: Kit) -> None:
        chosen, begun = await completed_after_a_newer(made, "spool.dirsync=EIO")
        error = await refused(made.append(begun.upload_id, 2, b"d"))
        assert (error.code, error.kind.status) == ("outcome_unknown", 503)
        assert made.reader.find(chosen, lambda _: True) is None

    run(layout, happen)


def test_replaced_database_gives_the_same_task(layout: Layout) -> None:
    """What was chosen is in the upload's own file: all that the queue forgot is asked for again."""
    async def first(made: Kit) -> Progress:
        begun = await made.create(3)
        failpoints.arm("queue.insert=EIO")
        try:
            await refused(made.append(begun.upload_id, 0, b"abc"))
        finally:
            failpoints.arm("")
        return begun

    async def second(made: Kit, begun: Progress) -> None:
        known = made.partials.find(begun.upload_id)
        assert known is not None
        assert known[1].upload is not None
        done = await made.append(begun.upload_id, 2, b"c")
        assert done.task_id == known[1].upload.task_id

    begun = run(layout, first)
    shutil.rmtree(layout.shard(0))
    run(layout, lambda made: second(made, begun))


def test_full_queue_keeps_what_came(layout: Layout) -> None:
    """The client is told to come again, and then goes on."""
    async def fill(made: Kit) -> Progress:
        begun = await made.create(6)
        await made.append(begun.upload_id, 0, b"abc")
        await complete(made)
        return begun

    async def full(made: Kit, begun: Progress) -> None:
        error = await refused(made.append(begun.upload_id, 3, b"def"))
        assert (error.code, error.kind.status) == ("backlog_full", 503)

    begun = run(layout, fill)
    run(layout, lambda made: full(made, begun), limits={"max_pending_tasks": 1, "min_free_bytes": 0})
    assert run(layout, lambda made: made.append(begun.upload_id, 3, b"def")).complete


def test_only_so_many_are_begun(layout: Layout) -> None:
    """By their number, by what was announced for them, and by the limits of who makes them."""
    async def happen(made: Kit) -> None:
        await made.create(60)
        assert (await refused(made.create(50))).code == "too_many_partials"
        later = await made.create(None)
        assert (await refused(made.create(1))).code == "too_many_partials"
        assert (await refused(made.append(later.upload_id, 0, b"x" * 50))).code == "too_many_partials"
        assert (await refused(made.append(later.upload_id, 0, b"x", length=50))).code == "too_many_partials"
        assert (await made.append(later.upload_id, 0, b"x" * 40, length=40)).complete

    run(layout, happen, uploads={"max_partials": 2, "max_partial_bytes": 100})


def test_ended_upload_leaves_nothing(layout: Layout) -> None:
    """The task of a finished one is cancelled; where that cannot be, the upload stays."""
    async def happen(made: Kit) -> None:
        person = Person()
        begun, done = await made.create(3), await complete(made)
        await made.append(begun.upload_id, 0, b"ab")
        await made.resumable.end(begun.upload_id, person.requester)
        assert (await refused(made.look(begun.upload_id))).code == "upload_not_found"
        await made.resumable.end(done.upload_id, person.requester)
        assert made.cancelled == [done.task_id]
        assert (await refused(made.look(done.upload_id))).code == "upload_not_found"

    async def refuse() -> None:
        async with kit(layout, cancels=False) as made:
            done = await complete(made)
            with pytest.raises(Rejected) as error:
                await made.resumable.end(done.upload_id, Person().requester)
            assert error.value.code == "not_cancellable"
            assert (await made.look(done.upload_id)).complete

    run(layout, happen)
    asyncio.run(refuse())


def test_upload_whose_sender_loses_his_rights_is_cut_off(layout: Layout) -> None:
    """While his bytes come; what came is kept, for he may get them back."""
    async def happen(made: Kit) -> None:
        person, sent = Person(), asyncio.Event()
        begun = await made.create(len(DATA), person)

        async def stall() -> None:
            sent.set()
            await asyncio.Event().wait()

        running = asyncio.create_task(made.append(begun.upload_id, 0, coming([DATA[:-1]], stall), person))
        await sent.wait()
        await made.resumable.recheck()
        assert not running.done()
        person.grant = Grant(may=frozenset({Permission.READ}))
        await made.resumable.recheck()
        assert (await refused(running)).code == "action_not_allowed"
        person.grant = Grant()
        assert (await made.look(begun.upload_id, person)).offset == len(DATA) - 1

    run(layout, happen)


def test_silent_uploads_are_swept(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the process runs, and the log says how many; what is still young stays."""
    async def happen(made: Kit) -> None:
        begun, logged = await made.create(3), asyncio.Queue[tuple[str, dict[str, object]]]()
        monkeypatch.setattr(sweeping_module, "log", lambda event, **fields: logged.put_nowait((event, fields)))
        live = LiveConfig(configured())
        with ThreadPoolExecutor(1) as threads:
            sweeping = asyncio.create_task(sweep(made.partials, live, threads))
            await asyncio.to_thread(threads.submit(int).result)
            assert (await made.look(begun.upload_id)).offset == 0
            sweeping.cancel()
            live.adopt(configured(uploads={"expire_s": 1e-6}), live.proxies)
            sweeping = asyncio.create_task(sweep(made.partials, live, threads))
            assert await logged.get() == ("upload.expired", {"uploads": 1})
            assert made.partials.find(begun.upload_id) is None
            sweeping.cancel()

    run(layout, happen)


def test_room_is_promised_once(layout: Layout) -> None:
    """Uploads that are begun one after the other, in whichever process, never announce more than the disk has."""
    async def happen(made: Kit) -> None:
        async with kit(layout) as other:
            for one in (made, other):
                one.admission.headroom.free_bytes = lambda: 25
            await made.create(10)
            await other.create(10)
            for one in (made, other):
                assert (await refused(one.create(10))).code == "no_room"
            assert made.partials.census(fresh=True).owed_bytes == 20

    run(layout, happen)


def test_admission_counts_what_is_still_to_come(layout: Layout) -> None:
    """Bytes that were announced are on their way, whether anybody sends them now or not."""
    async def happen(made: Kit) -> None:
        begun = await made.create(100)
        await made.append(begun.upload_id, 0, b"x" * 30)
        made.admission.partials = made.partials.census()
        assert made.admission.partials.present_bytes + made.admission.partials.owed_bytes == 100
        limits = configured(limits={"max_pending_bytes": 150, "min_free_bytes": 0}).limits
        with pytest.raises(Rejected) as error:
            made.admission.admit(51, "peer", limits)
        assert error.value.code == "backlog_full"
        made.admission.admit(50, "peer", limits).end()

    run(layout, happen)
