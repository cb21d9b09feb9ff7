import errno
import hashlib
import os
import stat
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon import failpoints
from daemon.errors import Rejected, Undelivered
from daemon.model.upload import Upload
from daemon.spool import Mark, Stopped, writer
from daemon.spool.inspect import FileSpoolCheck
from daemon.state.layout import Layout
from tests.support.depot import an_upload, new_id

DATA = b"hello"


@pytest.fixture
def upload(spool: FileSpoolCheck) -> Upload:
    """An upload that is in the spool."""
    return store(spool, an_upload())


def store(spool: FileSpoolCheck, upload: Upload, data: bytes = DATA) -> Upload:
    """Put an upload into the spool."""
    incoming = spool.begin()
    incoming.write(data)
    incoming.seal(upload).release()
    return upload


def path_of(layout: Layout, upload: Upload, mark: Mark = Mark.PENDING) -> Path:
    """Where its file is."""
    return layout.bucket(upload.destination.bucket) / f"{upload.task_id}{mark.value}"


def files(layout: Layout) -> list[str]:
    """The names of all files in the spool."""
    return [path.name for path in layout.spool.rglob("*") if not path.is_dir()]


def code_of(call: Callable[[], object]) -> str:
    """The code of the error that a call ends with."""
    with pytest.raises((Rejected, Undelivered)) as caught:
        call()
    return caught.value.code


# --- writing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"x", b"hello\0\n" * 1000, os.urandom(3 * 2**20)])
def test_upload_reads_back_as_it_was_written(spool: FileSpoolCheck, data: bytes) -> None:
    """The bytes come back whole, with nothing of the description behind them."""
    upload = store(spool, an_upload(data=data), data)
    with spool.open(upload) as source:
        assert source.read(upload.size) == data


def test_upload_is_hashed_on_the_way(spool: FileSpoolCheck) -> None:
    """The digest is known when the last byte is in, without reading again."""
    incoming = spool.begin()
    for piece in (b"he", b"ll", b"o"):
        incoming.write(piece)
    assert (incoming.size, incoming.hexdigest()) == (5, hashlib.sha256(DATA).hexdigest())
    incoming.discard()


def test_upload_that_is_discarded_leaves_nothing(spool: FileSpoolCheck, layout: Layout) -> None:
    """Until it is sealed an upload has no name; letting go of it is all that is needed."""
    incoming = spool.begin()
    incoming.write(DATA)
    assert files(layout) == []
    incoming.discard()
    incoming.discard()
    assert files(layout) == []


def test_upload_file_is_private(spool: FileSpoolCheck, layout: Layout, upload: Upload) -> None:
    """Nobody but the service's user reads what was uploaded."""
    assert stat.S_IMODE(path_of(layout, upload).stat().st_mode) == 0o600


def test_upload_file_is_for_the_group_where_the_state_is_shared(layout: Layout) -> None:
    """With two users, the set-group-ID bit of the state directory says so; a process's umask lets their group in."""
    layout.directory.chmod(0o2770)
    os.umask(0o007)
    shared = Layout(layout.directory)
    upload = store(FileSpoolCheck(shared), an_upload())
    assert stat.S_IMODE(path_of(shared, upload).stat().st_mode) & 0o660 == 0o660


def test_preallocated_room_does_not_show_in_the_upload(spool: FileSpoolCheck) -> None:
    """An upload that announced more than it brought is as long as what it brought."""
    incoming = spool.begin(4 * 2**20)
    incoming.write(DATA)
    upload = an_upload()
    incoming.seal(upload).release()
    with spool.open(upload) as source:
        assert source.read(upload.size) == DATA


def test_short_writes_are_continued(spool: FileSpoolCheck, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filling disk writes less than it was given before it refuses; nothing is missing when it went on."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:3]))
    upload = store(spool, an_upload())
    monkeypatch.undo()
    with spool.open(upload) as source:
        assert source.read(upload.size) == DATA


def test_large_file_is_on_its_way_to_the_disk_while_it_comes(
    spool: FileSpoolCheck, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each part of it once, in order, as soon as a step is whole; of a small one nothing."""
    sent = list[tuple[int, int]]()
    monkeypatch.setattr(writer, "STEP_BYTES", step := 2**20)
    monkeypatch.setattr(os, "posix_fadvise", lambda _descriptor, at, size, _advice: sent.append((at, size)))
    small, large = spool.begin(), spool.begin()
    small.write(bytes(step - 2**18))
    for _ in range(5):
        large.write(bytes(700_000))
    assert sent == [(0, step), (step, step), (2 * step, step)]
    small.discard()
    large.discard()


@pytest.mark.parametrize(("step", "error", "code"), [
    ("spool.open", "ENOSPC", "no_room"), ("spool.open", "EROFS", "storage_failed"),
    ("spool.write", "ENOSPC", "no_room"), ("spool.write", "EDQUOT", "no_room"), ("spool.write", "EIO", "storage_failed"),
    ("spool.sync", "EIO", "storage_failed"), ("spool.sync", "ENOSPC", "no_room"), ("spool.link", "EIO", "storage_failed"),
    ("spool.link", "ENOSPC", "no_room"),
])
def test_failure_before_the_name_leaves_nothing(spool: FileSpoolCheck, layout: Layout, step: str, error: str, code: str) -> None:
    """Whatever goes wrong before the file has its name, the client can be told that nothing was kept."""
    failpoints.arm(f"{step}={error}")
    assert code_of(lambda: store(spool, an_upload())) == code
    assert files(layout) == []


@pytest.mark.parametrize("step", ["spool.linksync", "spool.dirsync"])
def test_failure_after_the_name_is_told_as_unknown(spool: FileSpoolCheck, layout: Layout, step: str) -> None:
    """Once the file has its name it may stay: that is said, and nobody unlinks it."""
    failpoints.arm(f"{step}=EIO")
    upload = an_upload()
    assert code_of(lambda: store(spool, upload)) == "outcome_unknown"
    assert files(layout) == [upload.task_id]


def test_withdrawn_upload_is_gone(spool: FileSpoolCheck, layout: Layout) -> None:
    """An upload whose row certainly failed is taken back."""
    incoming = spool.begin()
    incoming.write(DATA)
    sealed = incoming.seal(an_upload())
    assert spool.withdraw_all([sealed]) == [None]
    sealed.release()
    assert files(layout) == []


def test_uploads_are_withdrawn_together(
    spool: FileSpoolCheck, layout: Layout, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that cannot be does not keep the others; each file is synced, and their directory once."""
    sealed = []
    for upload in (an_upload(), an_upload(), an_upload()):
        incoming = spool.begin()
        incoming.write(DATA)
        sealed.append(incoming.seal(upload))
    directory = layout.bucket(sealed[1].upload.destination.bucket)
    (directory / sealed[1].upload.task_id).unlink()
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_mode))
    answers = spool.withdraw_all(sealed)
    assert [answer and answer.code for answer in answers] == [None, "outcome_unknown", None]
    assert files(layout) == []
    assert [stat.S_ISDIR(mode) for mode in synced] == [False, False, False, True]


# --- reading -----------------------------------------------------------------------------------------------


def test_missing_bytes_are_told_as_such(spool: FileSpoolCheck) -> None:
    """A row without a file is a dead letter with its own code."""
    assert code_of(lambda: spool.open(an_upload())) == "bytes_missing"


@pytest.mark.parametrize("mark", [Mark.FAILED, Mark.HELD, Mark.PENDING])
def test_bytes_are_found_under_every_mark(spool: FileSpoolCheck, upload: Upload, mark: Mark) -> None:
    """A crash between marking and settling does not hide an upload from its row."""
    spool.mark(upload, mark)
    with spool.open(upload) as source:
        assert source.read(upload.size) == DATA


@pytest.mark.parametrize("mark", [Mark.FAILED, Mark.HELD])
def test_stopped_upload_is_not_opened_for_delivery(spool: FileSpoolCheck, upload: Upload, mark: Mark) -> None:
    """What its file says of it counts, whatever its row says."""
    spool.open_pending(upload).close()
    spool.mark(upload, mark)
    with pytest.raises(Stopped) as caught:
        spool.open_pending(upload)
    assert (caught.value.code, caught.value.mark) == ("order_unknown", mark)


@pytest.mark.parametrize("change", [
    {"task_id": None}, {"size": 4}, {"sha256": "0" * 64}, {"path": "/other"},
])
def test_file_of_another_upload_is_refused(
    spool: FileSpoolCheck, layout: Layout, upload: Upload, change: dict[str, Any],
) -> None:
    """A row that points at a file describing something else delivers nothing."""
    if "path" in change:
        other = replace(upload, destination=replace(upload.destination, path="/other"))
    elif "task_id" in change:
        other = replace(upload, task_id=new_id())
        os.rename(path_of(layout, upload), path_of(layout, other))
    else:
        other = replace(upload, **change)
    assert code_of(lambda: spool.open(other)) == "invalid_row"


def _symlink(path: Path) -> None:
    os.rename(path, path.parent / "real")
    os.symlink("real", path)


def _hard_link(path: Path) -> None:
    os.link(path, path.parent / "second")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _socket(path: Path) -> None:
    path.unlink()
    os.mknod(path, stat.S_IFSOCK)


@pytest.mark.parametrize("spoil", [_symlink, _hard_link, _fifo, _directory, _socket])
def test_file_that_is_not_plain_is_refused(
    spool: FileSpoolCheck, layout: Layout, upload: Upload, spoil: Callable[[Path], None],
) -> None:
    """Whoever breaks into the API cannot have the worker read something else: no links, no pipes, and no waiting."""
    spoil(path_of(layout, upload))
    assert code_of(lambda: spool.open(upload)) == "invalid_row"


def test_file_of_a_foreign_user_is_refused(
    spool: FileSpoolCheck, layout: Layout, upload: Upload, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the service's own users put files there."""
    real = os.fstat

    def foreign(descriptor: int) -> os.stat_result:
        found = list(real(descriptor))
        found[stat.ST_UID] = 4_000_000
        return os.stat_result(found)

    monkeypatch.setattr(os, "fstat", foreign)
    assert code_of(lambda: spool.open(upload)) == "invalid_row"


def test_device_error_is_told_from_damage(spool: FileSpoolCheck, upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that cannot be read just now is tried again; the bytes are not given up."""
    real = os.open

    def failing(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == upload.task_id:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", failing)
    assert code_of(lambda: spool.open(upload)) == "io_error"


def _footer(meta: bytes, *, magic: bytes = b"courier1", length: int | None = None, checksum: int | None = None) -> bytes:
    size = len(meta) if length is None else length
    return meta + struct.pack(">8sII", magic, size, zlib.crc32(meta) if checksum is None else checksum)


META = an_upload().to_json().encode()


@pytest.mark.parametrize("content", [
    b"", b"x", DATA, b"\0" * 16, DATA + _footer(META)[:-1], DATA + _footer(META, magic=b"courier2"),
    DATA + _footer(META, checksum=0), DATA + _footer(META, length=2**31), DATA + _footer(META, length=len(META) - 1),
    DATA + b"more" + _footer(META), DATA[:-1] + _footer(META), DATA + _footer(b"{}"), DATA + _footer(b"[" * 60_000),
    DATA + _footer(b"\xff"), DATA + _footer(META) + b"\0",
], ids=range(15))
def test_file_that_does_not_end_like_its_upload_is_damaged(
    spool: FileSpoolCheck, layout: Layout, upload: Upload, content: bytes,
) -> None:
    """A truncated, overwritten or invented ending is told as damage, whatever it holds, and never as an upload."""
    path = path_of(layout, upload)
    path.write_bytes(content)
    assert code_of(lambda: spool.open(upload)) == "bytes_damaged"
    [name] = spool.scan(upload.destination.bucket)
    with pytest.raises(ValueError, match=r"upload|too short|not as long"):
        spool.examine(name)


@pytest.mark.parametrize("position", range(0, len(_footer(META)), 7))
def test_flipped_bit_in_the_ending_is_found(spool: FileSpoolCheck, layout: Layout, upload: Upload, position: int) -> None:
    """No byte of the description or the footer can change unnoticed."""
    path = path_of(layout, upload)
    content = bytearray(path.read_bytes())
    content[len(DATA) + position % (len(content) - len(DATA))] ^= 1
    path.write_bytes(content)
    assert code_of(lambda: spool.open(upload)) == "bytes_damaged"


# --- marking and removing ----------------------------------------------------------------------------------


def test_mark_is_in_the_name_and_reads_back(spool: FileSpoolCheck, layout: Layout, upload: Upload) -> None:
    """A rebuild of the queue tells dead letters and held uploads from the others by their names."""
    for mark in (Mark.FAILED, Mark.HELD, Mark.PENDING, Mark.PENDING):
        spool.mark(upload, mark)
        [name] = spool.scan(upload.destination.bucket)
        assert (name.task_id, name.mark) == (upload.task_id, mark)
        assert spool.examine(name) == upload
    assert files(layout) == [upload.task_id]


def test_mark_of_what_is_gone_makes_nothing(spool: FileSpoolCheck, layout: Layout) -> None:
    """Marking an upload whose bytes are gone is no error."""
    spool.mark(an_upload(), Mark.FAILED)
    assert files(layout) == []


def test_name_that_is_no_uploads_has_no_mark(spool: FileSpoolCheck, layout: Layout, upload: Upload) -> None:
    """What does not belong there is told from uploads by its name, whatever that is."""
    bucket = layout.bucket(upload.destination.bucket)
    odd = ["x", f"{upload.task_id}.", f"{upload.task_id}.lost", f"{upload.task_id.upper()}", ".hidden", "\udcff"]
    for name in odd:
        (bucket / name).touch()
    found = {name.file: name.mark for name in spool.scan(upload.destination.bucket)}
    assert found == {upload.task_id: Mark.PENDING, **dict.fromkeys(odd)}


def test_removal_takes_every_mark_and_counts_what_is_gone_as_removed(spool: FileSpoolCheck, layout: Layout) -> None:
    """Removing twice does no harm: a crash may undo the note that it was done."""
    uploads = [store(spool, an_upload(f"/{number}")) for number in range(3)]
    spool.mark(uploads[1], Mark.FAILED)
    spool.mark(uploads[2], Mark.HELD)
    assert spool.remove(uploads) == {}
    assert spool.remove(uploads) == {}
    assert files(layout) == []


def test_removal_of_others_goes_on_when_one_fails(spool: FileSpoolCheck, layout: Layout) -> None:
    """One bad file does not keep the bytes of all others on the disk."""
    uploads = [store(spool, an_upload(f"/{number}")) for number in range(3)]
    failpoints.arm("spool.unlink=EIO@2")
    assert list(spool.remove(uploads)) == [uploads[1].task_id]
    assert files(layout) == [uploads[1].task_id]


def test_removal_is_in_the_order_given(spool: FileSpoolCheck, layout: Layout) -> None:
    """Of one path the older goes first: a rebuild never finds the older without the newer."""
    uploads = [store(spool, an_upload()) for _ in range(3)]
    failpoints.arm("spool.unlink=EIO@3")
    spool.remove(uploads)
    assert files(layout) == [uploads[2].task_id]


def test_newer_stays_where_the_older_of_its_path_cannot_be_removed(spool: FileSpoolCheck, layout: Layout) -> None:
    """A rebuild would find the older alone, and deliver it over the newer."""
    older, newer, other = (store(spool, an_upload(path)) for path in ("/a", "/a", "/b"))
    failpoints.arm("spool.unlink=EIO@1")
    assert set(spool.remove([older, newer, other])) == {older.task_id, newer.task_id}
    assert set(files(layout)) == {older.task_id, newer.task_id}


def test_removal_of_others_goes_on_when_a_directory_has_the_name_of_one(spool: FileSpoolCheck, layout: Layout) -> None:
    """There are no bytes of the upload in it: it is set aside by whoever compares queue and spool."""
    uploads = [store(spool, an_upload(f"/{number}")) for number in range(2)]
    path = layout.bucket(uploads[0].destination.bucket) / uploads[0].task_id
    path.unlink()
    path.mkdir()
    assert spool.remove(uploads) == {}
    assert path.is_dir()
    assert files(layout) == []


def test_removal_of_others_goes_on_when_a_bucket_cannot_be_opened(spool: FileSpoolCheck, layout: Layout) -> None:
    """The bytes of all others are given free."""
    uploads = [store(spool, an_upload(instance=f"c{number}")) for number in (1, 4)]
    bucket = layout.bucket(uploads[0].destination.bucket)
    bucket.rename(layout.directory / "moved")
    bucket.touch()
    spool.close()
    assert list(spool.remove(uploads)) == [uploads[0].task_id]
    assert list(layout.bucket(uploads[1].destination.bucket).iterdir()) == []


def test_uploads_begin_in_one_bucket_after_the_other(spool: FileSpoolCheck, layout: Layout) -> None:
    """No place in the filesystem has to take all of them; each gets its name where it belongs all the same."""
    uploads = [an_upload() for _ in range(3)]
    begun = [spool.begin(len(DATA)) for _ in uploads]
    targets = map(_target, Path("/proc/self/fd").iterdir())
    places = {target.parent for target in targets if target.is_relative_to(layout.spool) and target.name.startswith("#")}
    for incoming, upload in zip(begun, uploads, strict=True):
        incoming.write(DATA)
        incoming.seal(upload).release()
    assert places == {layout.bucket(number) for number in range(3)}
    assert sorted(path.name for path in layout.bucket(uploads[0].destination.bucket).iterdir()) == sorted(
        upload.task_id for upload in uploads)


def _target(descriptor: Path) -> Path:
    try:
        return descriptor.readlink()
    except FileNotFoundError:
        # The one that lists the others.
        return Path()
