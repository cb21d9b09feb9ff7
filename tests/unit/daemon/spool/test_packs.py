"""Small uploads that are sealed together share a file, and nothing else."""

import errno
import fcntl
import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon import failpoints
from daemon.errors import Rejected, Undelivered
from daemon.model.upload import Upload
from daemon.spool import FOOTER_BYTES, Found, Mark, Undecided, name_of
from daemon.spool.file_format import MAX_PACK_BYTES, MAX_PACKED, ending, pack_ending
from daemon.spool.inspect import FileSpoolCheck
from daemon.spool.writer import FileSealed
from daemon.state.layout import Layout
from tests.support.depot import a_state, an_upload

SMALL = 16 * 1024
BODIES = (b"first", b"the second", b"and the third")


def answered(spool: FileSpoolCheck, bodies: Sequence[bytes] = BODIES) -> list[tuple[Upload, FileSealed | Rejected]]:
    """Uploads of several instances that are sealed together, each with its answer."""
    batch = [(spool.begin(), an_upload(f"/{number}", body, instance=f"c{number % 3}")) for number, body in enumerate(bodies)]
    for (incoming, _), body in zip(batch, bodies, strict=True):
        incoming.write(body)
    return [(upload, answer) for (_, upload), answer in zip(batch, spool.seal_all(batch), strict=True)]


def sealed(spool: FileSpoolCheck, bodies: Sequence[bytes] = BODIES) -> list[FileSealed]:
    """The same, where all goes well."""
    some = [answer for _, answer in answered(spool, bodies) if isinstance(answer, FileSealed)]
    assert len(some) == len(bodies)
    return some


def stored(spool: FileSpoolCheck, bodies: Sequence[bytes] = BODIES) -> list[Upload]:
    """Uploads that were sealed together, and stay."""
    some = sealed(spool, bodies)
    for one in some:
        one.release()
    return [one.upload for one in some]


def path_of(layout: Layout, upload: Upload, mark: Mark = Mark.PENDING) -> Path:
    """Where an upload has its name."""
    return layout.bucket(upload.destination.bucket) / f"{upload.task_id}{mark.value}"


def files(layout: Layout) -> Counter[int]:
    """How many names each file of the spool has."""
    return Counter(path.stat().st_ino for path in layout.spool.rglob("*") if path.is_file())


def read(spool: FileSpoolCheck, upload: Upload) -> bytes:
    """The bytes of an upload, and what follows them, as far as that is handed out."""
    with spool.open(upload) as source:
        return source.read(upload.size)


def outcome(spool: FileSpoolCheck, upload: Upload) -> bytes | str:
    """The bytes of an upload, or why there are none."""
    try:
        return read(spool, upload)
    except Undelivered as error:
        return error.code


def examined(spool: FileSpoolCheck, upload: Upload) -> Upload:
    """What recovery finds under an upload's name."""
    return spool.examine(name_of(upload.destination.bucket, upload.task_id))


def open_files(layout: Layout) -> list[str]:
    """The files of the spool that are open here, without their directories."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:
            continue
        found += [target] if target.startswith(f"{layout.spool}/") and target.count("/") > str(layout.spool).count("/") + 1 else []
    return found


# --- what shares a file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sizes", "made"), [
    ([10], 1), ([10] * 2, 1), ([10] * MAX_PACKED, 1), ([10] * (MAX_PACKED + 1), 2), ([10] * 40, 3),
    # With what follows them, four do not fit any more.
    ([SMALL] * 3, 1), ([SMALL] * 4, 2), ([0, SMALL, 0, SMALL, 0, SMALL, 0], 1),
    ([10, SMALL + 1, 10, 100_000, 10], 3), ([SMALL + 1] * 3, 3),
])
def test_small_uploads_cost_one_file_and_one_sync_together(
    spool: FileSpoolCheck, layout: Layout, monkeypatch: pytest.MonkeyPatch, sizes: list[int], made: int,
) -> None:
    """Up to sixteen of them and 64 KiB; larger ones have files of their own."""
    steps: Counter[str] = Counter()
    monkeypatch.setattr(failpoints, "reach", lambda step: steps.update([step]) or True)
    bodies = [os.urandom(size) for size in sizes]
    uploads = stored(spool, bodies)
    assert (steps["spool.open"], steps["spool.sync"], steps["spool.linksync"]) == (made, made, made)
    assert steps["spool.link"] == len(sizes)
    assert len(files(layout)) == made
    assert [read(spool, upload) for upload in uploads] == bodies
    assert [examined(spool, upload) for upload in uploads] == uploads
    assert open_files(layout) == []


def test_upload_with_room_of_its_own_or_completed_before_has_a_file_of_its_own(spool: FileSpoolCheck, layout: Layout) -> None:
    """Its bytes are where they are."""
    batch = [(spool.begin(size), an_upload(f"/{size}")) for size in (None, 5, None, None)]
    for incoming, _ in batch:
        incoming.write(b"hello")
    batch[2][0].complete(batch[2][1])
    for answer in spool.seal_all(batch):
        assert isinstance(answer, FileSealed)
        answer.release()
    assert sorted(files(layout).values()) == [1, 1, 2]
    assert [read(spool, upload) for _, upload in batch] == [b"hello"] * 4


def test_upload_of_a_pack_is_described_as_it_was_when_its_form_changes(
    spool: FileSpoolCheck, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What another version wrote, in other bytes, is the same upload."""
    uploads = stored(spool)
    monkeypatch.setattr(Upload, "to_json", lambda upload: f" {upload._json}")
    assert [read(spool, upload) for upload in uploads] == list(BODIES)


# --- until all are decided ---------------------------------------------------------------------------------


def test_recovery_waits_until_all_uploads_of_a_file_are_decided(spool: FileSpoolCheck, layout: Layout) -> None:
    """The lock is the file's. Who releases twice counts once."""
    some = sealed(spool)
    for one in some:
        for other in some:
            with pytest.raises(Undecided):
                examined(spool, other.upload)
        one.release()
        one.release()
    assert [examined(spool, one.upload) for one in some] == [one.upload for one in some]
    assert open_files(layout) == []


def test_upload_that_is_withdrawn_leaves_its_neighbours_theirs(spool: FileSpoolCheck, layout: Layout) -> None:
    """Only its name goes; recovery waits for the others as before."""
    first, second, third = sealed(spool)
    assert spool.withdraw_all([second]) == [None]
    assert (outcome(spool, second.upload), outcome(spool, third.upload)) == ("bytes_missing", BODIES[2])
    with pytest.raises(Undecided):
        examined(spool, third.upload)
    first.release()
    second.release()
    with pytest.raises(Undecided):
        examined(spool, third.upload)
    assert spool.withdraw_all([third]) == [None]
    assert list(files(layout).values()) == [1]
    assert examined(spool, first.upload) == first.upload
    assert open_files(layout) == []


def test_file_goes_when_all_of_it_is_withdrawn(spool: FileSpoolCheck, layout: Layout) -> None:
    """As with a file of one upload."""
    assert spool.withdraw_all(sealed(spool)) == [None] * 3
    assert files(layout) == {}
    assert open_files(layout) == []


# --- faults ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["spool.open=EMFILE@1", "spool.open=ENOSPC@1", "spool.write=ENOSPC@1", "spool.sync=EIO@1"])
def test_fault_that_meets_a_pack_once_costs_nobody_anything(spool: FileSpoolCheck, layout: Layout, fault: str) -> None:
    """Its uploads are tried again, each in a file of its own."""
    failpoints.arm(fault)
    uploads = stored(spool)
    assert [read(spool, upload) for upload in uploads] == list(BODIES)
    assert list(files(layout).values()) == [1, 1, 1]
    assert open_files(layout) == []


def test_pack_that_cannot_be_locked_costs_nobody_anything(
    spool: FileSpoolCheck, layout: Layout, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No upload gets a name in a file that recovery would not leave alone."""
    real, calls = fcntl.flock, iter([True])

    def failing(descriptor: int, how: int) -> None:
        if next(calls, False):
            raise OSError(errno.ENOLCK, "No locks available")
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", failing)
    some = sealed(spool)
    for one in some:
        with pytest.raises(Undecided):
            examined(spool, one.upload)
    assert list(files(layout).values()) == [1, 1, 1]


@pytest.mark.parametrize(("fault", "code"), [
    ("spool.open=ENOSPC", "no_room"), ("spool.open=EMFILE", "storage_failed"), ("spool.write=EDQUOT", "no_room"),
    ("spool.sync=EIO", "storage_failed"), ("spool.link=EMLINK", "storage_failed"), ("spool.link=ENOSPC", "no_room"),
])
@pytest.mark.parametrize("pieces", [1, 300])
def test_fault_that_stays_refuses_each_upload_and_leaves_nothing(
    spool: FileSpoolCheck, layout: Layout, fault: str, code: str, pieces: int,
) -> None:
    """However small the pieces were in which they came."""
    failpoints.arm(fault)
    batch = [(spool.begin(), an_upload(f"/{number}", b"x" * pieces)) for number in range(3)]
    for incoming, _ in batch:
        for _ in range(pieces):
            incoming.write(b"x")
    answers = spool.seal_all(batch)
    assert [isinstance(answer, Rejected) and answer.code for answer in answers] == [code] * 3
    assert files(layout) == {}
    assert open_files(layout) == []


@pytest.mark.parametrize("nth", [2, 3])
def test_fault_that_stays_refuses_only_those_whom_it_meets(spool: FileSpoolCheck, layout: Layout, nth: int) -> None:
    """The pack met the first one; of those that are tried alone one meets the second."""
    steps = iter([True, *(number == nth for number in range(2, 5))])

    def reach(step: str) -> bool:
        if step == "spool.sync" and next(steps):
            raise OSError(errno.EIO, "Input/output error")
        return True

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(failpoints, "reach", reach)
        answers = answered(spool)
    refused = [number for number, (_, answer) in enumerate(answers) if isinstance(answer, Rejected)]
    assert refused == [nth - 2]
    assert len(files(layout)) == 2


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_upload_that_gets_no_name_is_refused_alone(spool: FileSpoolCheck, layout: Layout, nth: int) -> None:
    """Its neighbours have theirs, and recovery waits for those."""
    failpoints.arm(f"spool.link=EMLINK@{nth}")
    answers = answered(spool)
    for number, (upload, answer) in enumerate(answers, 1):
        assert isinstance(answer, Rejected) == (number == nth)
        assert outcome(spool, upload) == ("bytes_missing" if number == nth else BODIES[number - 1])
        if isinstance(answer, FileSealed):
            with pytest.raises(Undecided):
                examined(spool, upload)
            answer.release()
    assert list(files(layout).values()) == [2]
    assert open_files(layout) == []


def test_uploads_in_a_directory_that_cannot_be_synced_stay_undecided_alone(spool: FileSpoolCheck, layout: Layout) -> None:
    """They may have their names, or not; what is in other directories is durable."""
    failpoints.arm("spool.dirsync=EIO@2")
    answers = [answer for _, answer in answered(spool)]
    assert [isinstance(answer, Rejected) and answer.code for answer in answers] == [False, "outcome_unknown", False]
    assert list(files(layout).values()) == [3]


def test_uploads_in_a_file_whose_names_cannot_be_synced_stay_undecided_alone(spool: FileSpoolCheck, layout: Layout) -> None:
    """All that are in it may have their names, or not, and keep them here; those in other files are durable."""
    failpoints.arm("spool.linksync=EIO@1")
    answers = answered(spool, (b"first", os.urandom(SMALL + 1), b"second"))
    assert [isinstance(answer, Rejected) and answer.code for _, answer in answers] == ["outcome_unknown", False, "outcome_unknown"]
    for upload, answer in answers:
        assert path_of(layout, upload).exists()
        if isinstance(answer, FileSealed):
            answer.release()
    assert open_files(layout) == []


def test_names_are_written_with_their_file_before_their_directories(
    spool: FileSpoolCheck, layout: Layout, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file is synced once it has all its names, and once: also when one of its uploads got none."""
    synced: list[tuple[bool, int]] = []

    def note(descriptor: int) -> None:
        found = os.fstat(descriptor)
        synced.append((stat.S_ISREG(found.st_mode), found.st_nlink))

    monkeypatch.setattr(os, "fsync", note)
    failpoints.arm("spool.link=EMLINK@2")
    for _, answer in answered(spool):
        if isinstance(answer, FileSealed):
            answer.release()
    assert synced[0] == (True, 2)
    assert [is_file for is_file, _ in synced] == [True, False, False]


@settings(max_examples=min(30, settings().max_examples))
@given(
    sizes=st.lists(st.sampled_from([0, 1, 300, SMALL - 1, SMALL, SMALL + 1, 70_000]), min_size=1, max_size=40),
    faults=st.dictionaries(st.integers(1, 100), st.sampled_from([errno.ENOSPC, errno.EIO, errno.EMFILE]), max_size=8),
)
def test_each_upload_is_sealed_or_leaves_nothing_whatever_fails(sizes: list[int], faults: dict[int, int]) -> None:
    """However many faults a batch meets at whatever steps before its names are durable, and however it is shared out."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory, pytest.MonkeyPatch.context() as patched:
        layout = a_state(Path(directory))
        spool, numbers = FileSpoolCheck(layout), count(1)

        def reach(step: str) -> bool:
            number = faults.get(next(numbers)) if step not in {"spool.linksync", "spool.dirsync"} else None
            if number is not None:
                raise OSError(number, os.strerror(number))
            return True

        patched.setattr(failpoints, "reach", reach)
        bodies = [bytes([number]) * size for number, size in enumerate(sizes)]
        answers = answered(spool, bodies)
        there = {upload.task_id for upload, answer in answers if isinstance(answer, FileSealed)}
        assert {path.name for path in layout.spool.rglob("*") if path.is_file()} == there
        for (upload, answer), body in zip(answers, bodies, strict=True):
            assert outcome(spool, upload) == (body if isinstance(answer, FileSealed) else "bytes_missing")
            if isinstance(answer, FileSealed):
                answer.release()
        assert all(examined(spool, upload) == upload for upload, _ in answers if upload.task_id in there)
        assert open_files(layout) == []
        spool.close()


# --- each by itself ----------------------------------------------------------------------------------------


def test_upload_of_a_pack_is_marked_and_removed_by_itself(spool: FileSpoolCheck, layout: Layout) -> None:
    """The names of the others stay what they are; the room is free with the last of them."""
    first, second, third = stored(spool)
    spool.mark(first, Mark.FAILED)
    assert path_of(layout, first, Mark.FAILED).exists()
    assert spool.remove([second]) == {}
    assert [outcome(spool, upload) for upload in (first, second, third)] == [BODIES[0], "bytes_missing", BODIES[2]]
    assert spool.remove([third]) == {}
    assert read(spool, first) == BODIES[0]
    assert spool.remove([first]) == {}
    assert files(layout) == {}


def test_upload_of_a_pack_is_moved_and_set_aside_by_itself(spool: FileSpoolCheck, layout: Layout) -> None:
    """Wherever its name is, it is the same file, which may still be read."""
    first, second, third = stored(spool)
    name = name_of(first.destination.bucket, first.task_id)
    spool.set_aside(name)
    [aside] = layout.lost_found.iterdir()
    assert aside.name.startswith(first.task_id)
    assert spool.move(name_of(second.destination.bucket, second.task_id), 255)
    assert spool.examine(name_of(255, second.task_id)) == second
    assert [outcome(spool, upload) for upload in (first, third)] == ["bytes_missing", BODIES[2]]


def test_copies_of_a_pack_are_its_uploads_too(spool: FileSpoolCheck, layout: Layout) -> None:
    """A backup that knows no hard links has the pack once under each name."""
    uploads = stored(spool)
    for upload in uploads:
        path = path_of(layout, upload)
        shutil.copy(path, layout.directory / "copy")
        path.unlink()
        os.rename(layout.directory / "copy", path)
    assert list(files(layout).values()) == [1, 1, 1]
    assert [read(spool, upload) for upload in uploads] == list(BODIES)
    assert [examined(spool, upload) for upload in uploads] == uploads


def test_size_of_each_upload_of_a_pack_is_told_with_its_mark(
    spool: FileSpoolCheck, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The list is read once for all that come one after the other; the last one's neighbours are not worth a look."""
    uploads = stored(spool, [os.urandom(size) for size in range(MAX_PACKED)])
    for upload in uploads:
        spool.directory(upload.destination.bucket)
    real, opened = os.open, list[str]()

    def noted(path: str, flags: int, *, dir_fd: int) -> int:
        opened.append(path)
        return real(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", noted)
    for upload in uploads:
        expected = Found(Mark.PENDING, upload.size + len(upload.to_json().encode()) + FOOTER_BYTES)
        assert spool.look(upload.destination.bucket, upload.task_id) == expected
    assert opened == [uploads[0].task_id]


# --- damage, and what others put there ---------------------------------------------------------------------


def test_flipped_bit_behind_the_bytes_is_found(spool: FileSpoolCheck, layout: Layout) -> None:
    """In a description it costs that upload, in the list perhaps all; nobody gets the bytes of another one."""
    uploads = stored(spool)
    path = path_of(layout, uploads[0])
    whole = path.read_bytes()
    ends = [end for end, _ in _ends(uploads)]
    bodies = {position for (end, start), body in zip(_ends(uploads), BODIES, strict=True)
              for position in range(start, start + len(body)) if start < end}
    for position in range(len(whole)):
        if position in bodies:
            continue
        with path.open("r+b") as file:
            file.seek(position)
            file.write(bytes([whole[position] ^ 1]))
        outcomes = [outcome(spool, upload) for upload in uploads]
        hit = [number for number, end in enumerate(ends) if position < end][:1]
        for number, (found, body) in enumerate(zip(outcomes, BODIES, strict=True)):
            expected = {"bytes_damaged"} if hit == [number] else {body} if hit else {"bytes_damaged", "invalid_row"}
            assert found in expected, (position, number)
        with path.open("r+b") as file:
            file.write(whole)
    assert [read(spool, upload) for upload in uploads] == list(BODIES)


def _ends(uploads: Sequence[Upload]) -> list[tuple[int, int]]:
    """Where in their pack each of these ends, and begins."""
    found, start = [], 0
    for upload in uploads:
        found.append((start + upload.size + len(ending(upload)), start))
        start = found[-1][0]
    return found


def _without_the_end(content: bytes, _entries: list[tuple[str, int]]) -> bytes:
    return content[:-1]


def _without_the_beginning(content: bytes, _entries: list[tuple[str, int]]) -> bytes:
    return content[1:]


def _with_more_before(content: bytes, _entries: list[tuple[str, int]]) -> bytes:
    return b"x" + content


def _with_more_behind(content: bytes, _entries: list[tuple[str, int]]) -> bytes:
    return content + b"\0"


def _with_list(change: Callable[[list[tuple[str, int]]], bytes]) -> Callable[[bytes, list[tuple[str, int]]], bytes]:
    def change_list(content: bytes, entries: list[tuple[str, int]]) -> bytes:
        return content[:-len(pack_ending(entries))] + change(entries)

    return change_list


@pytest.mark.parametrize("spoil", [
    _without_the_end, _without_the_beginning, _with_more_before, _with_more_behind,
    _with_list(lambda entries: pack_ending([])), _with_list(lambda entries: pack_ending(entries)[1:]),
    _with_list(lambda entries: pack_ending([(task_id, end + 1) for task_id, end in entries])),
    _with_list(lambda entries: pack_ending([(task_id, 2**32 - 1) for task_id, _ in entries])),
    _with_list(lambda entries: pack_ending([(entries[0][0], number) for number, _ in enumerate(entries)])),
    _with_list(lambda entries: b"\0" * 400), _with_list(lambda entries: b""),
], ids=range(11))
def test_pack_that_is_not_as_long_as_its_list_says_is_damaged(
    spool: FileSpoolCheck, layout: Layout, spoil: Callable[[bytes, list[tuple[str, int]]], bytes],
) -> None:
    """Cut, grown, or with a list that somebody invented: none of its uploads is taken for whole, and recovery says why."""
    uploads = stored(spool)
    path = path_of(layout, uploads[0])
    entries = [(upload.task_id, end) for upload, (end, _) in zip(uploads, _ends(uploads), strict=True)]
    content = spoil(path.read_bytes(), entries)
    path.write_bytes(content)
    for upload in uploads:
        assert outcome(spool, upload) in {"bytes_damaged", "invalid_row"}
        with pytest.raises(ValueError, match=r"upload|plain file"):
            examined(spool, upload)
        assert spool.look(upload.destination.bucket, upload.task_id) != Found(
            Mark.PENDING, upload.size + len(upload.to_json().encode()) + FOOTER_BYTES)


def test_pack_is_read_whole_only_up_to_its_bound(spool: FileSpoolCheck, layout: Layout) -> None:
    """Whoever breaks into the API cannot have the worker take more into its memory than a pack has."""
    data = b"x" * MAX_PACK_BYTES
    uploads = stored(spool)
    large = replace(an_upload(data=data), destination=uploads[0].destination)
    portion = data + ending(large)
    path = layout.bucket(large.destination.bucket) / large.task_id
    path.write_bytes(portion + portion + pack_ending([(large.task_id, len(portion)), (uploads[0].task_id, 2 * len(portion))]))
    assert outcome(spool, large) == "bytes_damaged"


@pytest.mark.parametrize("place", ["bucket", "elsewhere"])
def test_pack_with_a_name_too_many_is_refused(spool: FileSpoolCheck, layout: Layout, place: str) -> None:
    """As a single file with a second name is: somebody else may have it open to write. Without that name all is well."""
    uploads = stored(spool)
    first = path_of(layout, uploads[0])
    foreign = (first.parent if place == "bucket" else layout.directory) / an_upload().task_id
    foreign.hardlink_to(first)
    assert [outcome(spool, upload) for upload in uploads] == ["invalid_row"] * 3
    with pytest.raises(ValueError, match="plain file"):
        examined(spool, uploads[0])
    foreign.unlink()
    assert [read(spool, upload) for upload in uploads] == list(BODIES)


def test_name_of_another_upload_for_a_pack_leads_to_nothing(spool: FileSpoolCheck, layout: Layout) -> None:
    """Where one has left, a file may have a name more; which uploads are in it, its list says."""
    gone, first, second = stored(spool)
    spool.remove([gone])
    other = replace(first, task_id=an_upload().task_id)
    path_of(layout, other).hardlink_to(path_of(layout, first))
    assert outcome(spool, other) == "bytes_damaged"
    with pytest.raises(ValueError, match="not among"):
        examined(spool, other)
    assert [read(spool, upload) for upload in (first, second)] == list(BODIES[1:])


@pytest.mark.parametrize("change", [{"size": 4}, {"sha256": "0" * 64}])
def test_row_of_another_upload_gets_nothing_of_a_pack(spool: FileSpoolCheck, change: dict[str, Any]) -> None:
    """What the row says of the upload must be what the pack says."""
    _, upload, _ = stored(spool)
    assert outcome(spool, replace(upload, **change)) == "invalid_row"


# --- by hand -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [1, 3])
def test_upload_is_found_in_its_file_as_the_documentation_says(spool: FileSpoolCheck, layout: Layout, together: int) -> None:
    """Whether it is alone there or one of several: what it is, where it begins, and its bytes."""
    page = (Path(__file__).parents[4] / "docs" / "recovery.md").read_text()
    find, cut = (re.split(r"  +", line)[1] for line in page.splitlines() if re.match(r"    (LC_ALL=C grep|tail -c)", line))
    for upload, body in zip(stored(spool, BODIES[:together]), BODIES, strict=False):
        path = str(path_of(layout, upload))
        [found] = _shell(find.replace("ID", upload.task_id).replace("FILE", path)).decode().splitlines()
        at, _, told = found.partition(":")
        assert json.loads(f"{told}}}").items() <= json.loads(upload.to_json()).items()
        copy = layout.directory / "copy"
        _shell(f"AT={at} SIZE={upload.size}; " + cut.replace("FILE", path).replace("SIZE >", "$SIZE >").replace("COPY", str(copy)))
        assert copy.read_bytes() == body


def _shell(command: str) -> bytes:
    return subprocess.run(["sh", "-c", command], check=True, capture_output=True).stdout
