"""What whoever brings, delivers, marks, removes and compares bytes can rely on."""

import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from daemon.errors import Rejected, Undelivered
from daemon.model.upload import Upload
from daemon.spool import CheckedSpool, Found, Mark, Name, Sealed, Stopped, Undecided, same_upload
from tests.support.depot import an_upload
from tests.unit.daemon.conformance.doors import SpoolStore, kept, store

DATA = b"hello"


def code_of(spool: CheckedSpool, upload: Upload) -> str:
    """Why the bytes of an upload cannot be opened."""
    with pytest.raises(Undelivered) as caught:
        spool.open(upload)
    return caught.value.code


def named(spool: CheckedSpool, upload: Upload) -> Name:
    """The name of an upload in its bucket."""
    [found] = [name for name in spool.scan(upload.destination.bucket) if name.task_id == upload.task_id]
    return found


# --- receiving ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"x", b"hello\0\n" * 1000, os.urandom(3 * 2**20)])
def test_upload_reads_back_as_it_was_written(spools: SpoolStore, spool: CheckedSpool, data: bytes) -> None:
    """For whoever opens the spool later, and again from its beginning."""
    upload = store(spool, an_upload(data=data), data)
    spools.close()
    with spools.open().open(upload) as source:
        assert source.read(upload.size) == data
        source.seek(0)
        assert source.read(upload.size) == data


@pytest.mark.parametrize("size", [5, 70_000])
def test_upload_is_read_into_memory_that_is_at_hand(spool: CheckedSpool, size: int) -> None:
    """As those do who deliver it, from its beginning and from any other place."""
    data = os.urandom(size)
    upload = store(spool, an_upload(data=data), data)
    with spool.open(upload) as source:
        for start in (0, 3):
            assert source.seek(start) == start
            memory, came = memoryview(bytearray(size - start)), 0
            while came < size - start:
                came += source.readinto(memory[came:]) or pytest.fail("it ends too early")
            assert memory == data[start:]
        source.close()
        source.close()


def test_upload_is_measured_and_hashed_on_the_way(spool: CheckedSpool) -> None:
    """Size and digest are known when the last byte is in."""
    incoming = spool.begin()
    for piece in (b"he", b"ll", b"o"):
        incoming.write(piece)
    assert (incoming.size, incoming.hexdigest()) == (5, hashlib.sha256(DATA).hexdigest())
    incoming.discard()


def test_upload_may_be_hashed_beside_being_stored(spool: CheckedSpool) -> None:
    """Each half in its own time, whoever is first."""
    pieces = [os.urandom(100_000) for _ in range(8)]
    data = b"".join(pieces)
    upload, incoming = an_upload(data=data), spool.begin(len(data))
    with ThreadPoolExecutor(2) as threads:
        for work in (threads.submit(incoming.hash, pieces), threads.submit(incoming.store, pieces)):
            work.result()
    assert (incoming.size, incoming.hexdigest()) == (len(data), upload.sha256)
    incoming.seal(upload).release()
    with spool.open(upload) as source:
        assert source.read(upload.size) == data


def test_upload_that_is_discarded_leaves_nothing(spool: CheckedSpool) -> None:
    """Until it is sealed nobody finds it; discarding it again is no error."""
    upload = an_upload()
    incoming = spool.begin()
    incoming.write(DATA)
    assert kept(spool, upload.destination.bucket) == {}
    incoming.discard()
    incoming.discard()
    assert kept(spool, upload.destination.bucket) == {}


def test_upload_that_is_sealed_stays_although_it_is_discarded(spool: CheckedSpool) -> None:
    """Whoever cleans up after itself need not know how far it came."""
    upload, incoming = an_upload(), spool.begin()
    incoming.write(DATA)
    sealed = incoming.seal(upload)
    incoming.discard()
    assert sealed.upload == upload
    sealed.release()
    sealed.release()
    spool.open(upload).close()


def test_upload_that_is_withdrawn_is_gone(spool: CheckedSpool) -> None:
    """Its row is certainly not in the queue, so nobody misses it."""
    upload, incoming = an_upload(), spool.begin()
    incoming.write(DATA)
    assert list(spool.withdraw_all([incoming.seal(upload)])) == [None]
    assert code_of(spool, upload) == "bytes_missing"
    assert kept(spool, upload.destination.bucket) == {}


@pytest.mark.parametrize("expected_bytes", [0, 1, len(DATA), 4 * 2**20])
def test_upload_is_as_long_as_what_it_brought(spool: CheckedSpool, expected_bytes: int) -> None:
    """Whatever room was kept for it."""
    upload, incoming = an_upload(), spool.begin(expected_bytes)
    incoming.write(DATA)
    incoming.seal(upload).release()
    with spool.open(upload) as source:
        assert source.read(upload.size) == DATA
    assert spool.examine(named(spool, upload)) == upload


def test_uploads_that_come_at_once_do_not_mix(spool: CheckedSpool) -> None:
    """Each has its own bytes, in whatever order they come."""
    bodies = [os.urandom(100_000) for _ in range(4)]
    coming = [(an_upload(f"/{number}", body), body, spool.begin()) for number, body in enumerate(bodies)]
    for start in range(0, 100_000, 10_000):
        for _, body, incoming in coming:
            incoming.write(body[start:start + 10_000])
    for upload, _, incoming in coming:
        incoming.seal(upload).release()
    for upload, body, _ in coming:
        with spool.open(upload) as source:
            assert source.read(upload.size) == body


def test_uploads_are_sealed_together_and_answered_for_one_by_one(spool: CheckedSpool) -> None:
    """In their order, whatever their instances, however far each of them was completed before."""
    bodies = [os.urandom(size) for size in (0, 3, 70_000, 400_000)]
    batch = [(spool.begin(), an_upload(f"/{number}", body, instance=f"c{number % 3}"))
             for number, body in enumerate(bodies)]
    for (incoming, _), body in zip(batch, bodies, strict=True):
        incoming.write(body)
    for incoming, upload in batch[2:]:
        incoming.complete(upload)
        assert kept(spool, upload.destination.bucket) == {}
    answers = spool.seal_all(batch)
    for sealed, (_, upload), body in zip(answers, batch, bodies, strict=True):
        assert not isinstance(sealed, Rejected)
        assert sealed.upload == upload
        with pytest.raises(Undecided):
            spool.examine(named(spool, upload))
        sealed.release()
        with spool.open(upload) as source:
            assert source.read(upload.size) == body
    assert list(spool.seal_all([])) == []


def sealed_together(spool: CheckedSpool, bodies: Sequence[bytes]) -> list[Sealed]:
    """Uploads of several instances that are sealed together."""
    batch = [(spool.begin(), an_upload(f"/{number}", body, instance=f"c{number % 3}")) for number, body in enumerate(bodies)]
    for (incoming, _), body in zip(batch, bodies, strict=True):
        incoming.write(body)
    answers = [answer for answer in spool.seal_all(batch) if not isinstance(answer, Rejected)]
    assert [answer.upload for answer in answers] == [upload for _, upload in batch]
    return answers


def test_many_small_uploads_that_are_sealed_together_read_back(spools: SpoolStore, spool: CheckedSpool) -> None:
    """Each has its own bytes and nothing of its neighbours', for whoever opens the spool later, too."""
    bodies = [os.urandom(size) for size in (0, 0, 1, *range(100, 4000, 100), 16_383, 16_384, 16_385, 16_384, 16_384, 0)]
    some = sealed_together(spool, bodies)
    for one in some:
        one.release()
    spools.close()
    later = spools.open()
    for one, body in zip(some, bodies, strict=True):
        with later.open(one.upload) as source:
            assert source.read(len(body) + 1)[:len(body)] == body
        with later.open_pending(one.upload) as source:
            source.seek(len(body) // 2)
            assert source.read(one.upload.size - len(body) // 2) == body[len(body) // 2:]
        assert later.examine(named(later, one.upload)) == one.upload


def test_upload_is_withdrawn_from_among_those_it_was_sealed_with(spool: CheckedSpool) -> None:
    """The others stay, are left alone by recovery until all are decided, and go one by one."""
    first, second, third, fourth = sealed_together(spool, [b"1", b"2", b"3", b"4"])
    assert list(spool.withdraw_all([fourth, second])) == [None, None]
    first.release()
    with pytest.raises(Undecided):
        spool.examine(named(spool, third.upload))
    third.release()
    assert [code_of(spool, gone.upload) for gone in (second, fourth)] == ["bytes_missing"] * 2
    assert [spool.examine(named(spool, one.upload)) for one in (first, third)] == [first.upload, third.upload]
    spool.mark(first.upload, Mark.FAILED)
    spool.open_pending(third.upload).close()
    spool.remove([third.upload])
    spool.open(first.upload).close()
    spool.remove([first.upload])
    assert spool.is_empty()


def test_upload_that_is_discarded_when_it_is_complete_leaves_nothing(spool: CheckedSpool) -> None:
    """Only the seal makes it exist."""
    upload, incoming = an_upload(), spool.begin()
    incoming.write(DATA)
    incoming.complete(upload)
    incoming.discard()
    assert kept(spool, upload.destination.bucket) == {}


def test_spool_tells_what_it_holds(spool: CheckedSpool) -> None:
    """However it is marked, until it is removed."""
    assert spool.is_empty()
    upload = store(spool, an_upload())
    bucket = upload.destination.bucket
    for mark in Mark:
        spool.mark(upload, mark)
        assert spool.holds(bucket, upload.task_id)
        assert not spool.is_empty()
    assert not spool.holds(bucket, an_upload().task_id)
    spool.remove([upload])
    assert not spool.holds(bucket, upload.task_id)
    assert spool.is_empty()


def test_spool_tells_its_room_and_that_it_is_in_place(spool: CheckedSpool) -> None:
    """What the API asks before it takes an upload."""
    assert spool.free_bytes() > 0
    assert spool.is_in_place()


# --- opening and marking -----------------------------------------------------------------------------------


def test_bytes_that_are_missing_are_told_as_such(spool: CheckedSpool) -> None:
    """The task becomes a dead letter with that reason."""
    assert code_of(spool, an_upload()) == "bytes_missing"


@pytest.mark.parametrize("change", [{"size": 4}, {"sha256": "0" * 64}])
def test_bytes_of_another_upload_are_refused(spool: CheckedSpool, change: dict[str, Any]) -> None:
    """A row that points at something else delivers nothing."""
    upload = store(spool, an_upload())
    assert code_of(spool, replace(upload, **change)) == "invalid_row"


@pytest.mark.parametrize("mark", Mark)
def test_mark_says_how_the_task_stands(spools: SpoolStore, spool: CheckedSpool, mark: Mark) -> None:
    """It is kept; the bytes are found under each; only what is pending is opened for a delivery."""
    upload = store(spool, an_upload())
    spool.mark(upload, mark)
    spool.mark(upload, mark)
    spools.close()
    spool = spools.open()
    assert kept(spool, upload.destination.bucket) == {upload.task_id: mark}
    spool.open(upload).close()
    if mark is not Mark.PENDING:
        with pytest.raises(Stopped) as caught:
            spool.open_pending(upload)
        assert caught.value.mark is mark
        spool.mark(upload, Mark.PENDING)
    spool.open_pending(upload).close()


def test_mark_of_what_is_gone_makes_nothing(spool: CheckedSpool) -> None:
    """Marking an upload whose bytes are gone is no error."""
    upload = an_upload()
    spool.mark(upload, Mark.FAILED)
    assert kept(spool, upload.destination.bucket) == {}


def test_removal_takes_every_mark_and_counts_what_is_gone_as_removed(spool: CheckedSpool) -> None:
    """Removing twice does no harm: a crash may undo the note that it was done."""
    uploads = [store(spool, an_upload(f"/{mark.name}")) for mark in Mark]
    for upload, mark in zip(uploads, Mark, strict=True):
        spool.mark(upload, mark)
    for _ in range(2):
        assert spool.remove(uploads) == {}
        assert kept(spool, uploads[0].destination.bucket) == {}


# --- comparing ---------------------------------------------------------------------------------------------


def test_recovery_leaves_an_upload_alone_until_its_writer_has_decided(spool: CheckedSpool) -> None:
    """From the seal to the decision the row may be on its way."""
    upload, incoming = an_upload(), spool.begin()
    incoming.write(DATA)
    sealed = incoming.seal(upload)
    name = named(spool, upload)
    with pytest.raises(Undecided):
        spool.examine(name)
    sealed.release()
    assert spool.examine(name) == upload


def test_upload_that_has_gone_is_told_from_one_that_is_damaged(spool: CheckedSpool) -> None:
    """Somebody may have removed it just now."""
    upload = store(spool, an_upload())
    name = named(spool, upload)
    spool.remove([upload])
    with pytest.raises(FileNotFoundError):
        spool.examine(name)


def test_look_finds_an_upload_by_its_id_and_tells_its_mark(spool: CheckedSpool) -> None:
    """Whichever mark was expected."""
    upload = store(spool, an_upload())
    spool.mark(upload, Mark.HELD)
    bucket = upload.destination.bucket
    found = [spool.look(bucket, upload.task_id, expected) for expected in Mark]
    assert {entry.mark for entry in found if isinstance(entry, Found)} == {Mark.HELD}
    assert len(set(found)) == 1
    assert spool.look(bucket, an_upload().task_id) is None


def test_upload_can_be_moved_to_its_own_bucket_once(spool: CheckedSpool) -> None:
    """A second one of the same id stays where it is."""
    upload = store(spool, an_upload())
    name, bucket = named(spool, upload), (upload.destination.bucket + 1) % 256
    assert spool.move(name, bucket)
    assert (kept(spool, name.bucket), kept(spool, bucket)) == ({}, {upload.task_id: Mark.PENDING})
    store(spool, upload)
    assert not spool.move(name, bucket)
    assert kept(spool, name.bucket) == {upload.task_id: Mark.PENDING}


def test_what_is_set_aside_is_out_of_the_way(spool: CheckedSpool) -> None:
    """A person is told where it is; the spool does not find it any more."""
    upload = store(spool, an_upload())
    name = named(spool, upload)
    before = spool.where(name)
    after = spool.set_aside(name)
    assert after not in {"", before}
    assert code_of(spool, upload) == "bytes_missing"
    assert spool.keep_note("row-0-1", "what was left") not in {"", spool.keep_note("row-0-1", "and again")}


def test_bucket_tells_when_something_came(spool: CheckedSpool) -> None:
    """Recovery looks where something came, and nowhere else."""
    upload = an_upload()
    since = time.time() - 60
    store(spool, upload)
    assert since < spool.changed_at(upload.destination.bucket) < since + 3600


def test_two_descriptions_are_of_one_upload_when_id_destination_and_bytes_are_the_same() -> None:
    """Everything else may be written in another way."""
    upload = an_upload()
    assert same_upload(upload, replace(upload, display_name="other"))
    assert not same_upload(upload, replace(upload, size=4))
