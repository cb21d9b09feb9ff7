import fcntl
import os
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.model.task import State
from daemon.model.upload import bucket_of
from daemon.recovery.compare import Comparison
from daemon.spool import Mark
from daemon.state.quarantine import retire
from daemon.task_queue import Total
from tests.integration.recovery.world import World
from tests.support import rows
from tests.support.depot import a_state, an_upload, sealed
from tests.support.plants import PLANTS, Plant, directory

_STATES = [State.QUEUED, State.DEFERRED, State.HELD, State.FAILED]


def test_nothing_is_found_where_queue_and_spool_agree(world: World) -> None:
    """Tasks in every state, with and without bytes, are no finding, and stay as they are."""
    uploads = [world.put(f"/{state.label}", state=state) for state in _STATES]
    gone = world.put("/delivered")
    world.settle(gone, State.DELIVERED, spooled=False)
    world.file(gone).unlink()
    before = [world.task(upload) for upload in (*uploads, gone)]
    assert world.compare(thorough=True) == []
    assert [world.task(upload) for upload in (*uploads, gone)] == before


# --- rows without bytes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", _STATES)
def test_row_becomes_a_dead_letter_when_its_bytes_are_missing(world: World, state: State) -> None:
    """What cannot be delivered any more is in the dead letters with the reason, and is found once only."""
    upload = world.put(state=state)
    world.file(upload, world.mark(upload) or Mark.PENDING).unlink()
    assert world.compare() == ["bytes_missing"]
    task = world.task(upload)
    assert (task.state, task.error_code) == (State.FAILED, "bytes_missing")
    assert world.compare() == []
    assert world.tallies_fit()


# --- bytes without rows -----------------------------------------------------------------------------------


def test_upload_without_a_row_is_queued_again_under_its_id(world: World) -> None:
    """A linked file is an upload: its API died before the row was written."""
    upload = world.write(key="k1")
    assert world.compare() == ["row_missing"]
    assert world.task(upload).upload == upload
    assert world.state(upload) is State.QUEUED
    assert world.compare() == []
    assert world.tallies_fit()


@pytest.mark.parametrize(("mark", "state"), [(Mark.FAILED, State.FAILED), (Mark.HELD, State.HELD)])
def test_upload_without_a_row_is_not_revived_when_its_mark_says_it_was_stopped(
        world: World, mark: Mark, state: State) -> None:
    """A dead letter stays one and a held upload stays held; only --force delivers either."""
    upload = world.write()
    world.spool.mark(upload, mark)
    assert world.compare() == ["row_missing"]
    task = world.task(upload)
    assert (task.state, task.error_code) == (state, "order_unknown")
    assert world.queue.newer_exists(upload.destination.digest, task.order)
    assert world.mark(upload) is mark


def test_upload_without_a_row_is_left_alone_while_its_writer_holds_the_lock(world: World) -> None:
    """An upload in flight is not an orphan; once its writer is gone, it is."""
    upload = world.write()
    descriptor = os.open(world.file(upload), os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert world.compare() == []
    assert world.state(upload) is None
    os.close(descriptor)
    assert world.compare() == ["row_missing"]


def test_upload_without_a_row_is_set_aside_when_its_path_has_moved_on(world: World) -> None:
    """Older bytes never go over newer ones, and are never deleted."""
    older = world.write(body=b"older")
    newer = world.put(body=b"newer")
    assert world.compare() == ["row_missing_outdated"]
    assert world.state(older) is None
    assert world.state(newer) is State.QUEUED
    assert any(name.startswith(older.task_id) for name in world.lost_found())


@pytest.mark.parametrize("mark", [Mark.FAILED, Mark.HELD])
def test_dead_letter_without_a_row_gets_one_below_the_newer_upload(world: World, mark: Mark) -> None:
    """A stopped upload comes back as what it was, and counts as older than what came after it."""
    older = world.write(body=b"older")
    world.spool.mark(older, mark)
    newer = world.put(body=b"newer")
    assert world.compare() == ["row_missing"]
    assert world.task(older).order < world.task(newer).order
    assert world.state(newer) is State.QUEUED


def test_upload_without_a_row_goes_before_the_newer_ones_when_all_are_to_be_delivered(world: World) -> None:
    """With `deliver-all` an older upload takes its place again, in the order of acceptance."""
    oldest = world.put(supersede=False)
    older = world.write()
    newer = [world.put(supersede=False) for _ in range(3)]
    other = world.put("/other")
    assert world.compare(supersede=False) == ["row_missing"]
    orders = [world.task(upload).order for upload in (oldest, older, *newer)]
    assert orders == sorted(orders)
    following = world.put(supersede=False)
    assert world.task(following).order > max(orders)
    assert world.state(other) is State.QUEUED
    assert world.tallies_fit()


def test_upload_without_a_row_waits_while_a_newer_one_is_pushed(world: World) -> None:
    """What is being pushed keeps its place; the older upload is looked at again later."""
    older = world.write()
    newer = world.put(supersede=False)
    world.queue.claim(newer.destination.instance_key, 10)
    assert world.compare(supersede=False) == []
    assert world.state(older) is None
    assert world.mark(older) is Mark.PENDING


def test_upload_without_a_row_is_set_aside_when_a_newer_one_was_delivered(world: World) -> None:
    """Even with `deliver-all`, what is in the instance is not overwritten by what is older."""
    older = world.write()
    newer = world.put(supersede=False)
    world.settle(newer, State.DELIVERED)
    assert world.compare(supersede=False) == ["row_missing_outdated"]
    assert world.state(older) is None


def test_uploads_without_rows_are_queued_in_the_order_of_their_ids(world: World) -> None:
    """Of one path the newest wins; the older ones are superseded by it."""
    uploads = [world.write(body=b"%d" % number) for number in range(5)]
    assert world.compare() == ["row_missing"] * 5
    states = [world.state(upload) for upload in uploads]
    assert states == [State.SUPERSEDED] * 4 + [State.QUEUED]
    assert world.tallies_fit()


def test_older_pending_row_is_superseded_by_a_restored_newer_one(world: World) -> None:
    """An upload that lost its row still replaces what it replaced when it was accepted."""
    older = world.put()
    newer = world.write()
    assert world.compare() == ["row_missing"]
    assert world.state(older) is State.SUPERSEDED
    assert world.state(newer) is State.QUEUED


# --- rows and files that do not fit -----------------------------------------------------------------------


@pytest.mark.parametrize(("state", "wrong", "right"), [
    (State.FAILED, Mark.PENDING, Mark.FAILED), (State.HELD, Mark.PENDING, Mark.HELD)])
def test_mark_follows_the_row(world: World, state: State, wrong: Mark, right: Mark) -> None:
    """After a crash between renaming and settling, the row is right and the name is put right."""
    upload = world.put(state=state)
    world.spool.mark(upload, wrong)
    assert world.compare() == ["mark_wrong"]
    assert world.mark(upload) is right
    assert world.state(upload) is state
    assert world.compare() == []


@pytest.mark.parametrize("waiting", [State.QUEUED, State.DEFERRED])
@pytest.mark.parametrize(("mark", "state"), [(Mark.FAILED, State.FAILED), (Mark.HELD, State.HELD)])
def test_waiting_row_is_stopped_when_its_mark_says_so(
        world: World, waiting: State, mark: Mark, state: State) -> None:
    """The row is from before: what came after it is lost, a newer upload to its path too. --force is needed."""
    upload = world.put(state=waiting)
    world.spool.mark(upload, mark)
    assert world.compare() == ["row_outdated"]
    task = world.task(upload)
    assert (task.state, task.error_code, task.due_at) == (state, "order_unknown", None)
    assert world.queue.newer_exists(upload.destination.digest, task.order)
    assert world.mark(upload) is mark
    assert world.compare() == []
    assert world.tallies_fit()


def test_bytes_of_a_finished_task_go_the_usual_way_when_they_are_still_there(world: World) -> None:
    """A row that says the bytes are gone is corrected, so that they are removed after the next sync."""
    upload = world.put()
    world.settle(upload, State.DELIVERED, spooled=False)
    assert world.compare() == ["bytes_left"]
    assert [task.task_id for task in world.queue.unspoolable(10)] == [upload.task_id]
    assert world.compare() == []


@pytest.mark.parametrize("state", _STATES)
def test_task_becomes_a_dead_letter_when_its_file_is_cut_short(world: World, state: State) -> None:
    """A damaged file is seen by its size, stays where it is, and its task says what is wrong."""
    upload = world.put(state=state)
    os.truncate(world.file(upload, world.mark(upload) or Mark.PENDING), 10)
    assert world.compare() == ["file_damaged"]
    assert (world.state(upload), world.task(upload).error_code) == (State.FAILED, "bytes_damaged")
    assert world.mark(upload) is Mark.FAILED
    assert world.compare() == []


def test_damage_that_keeps_the_size_is_found_by_a_thorough_comparison(world: World) -> None:
    """A file whose description is overwritten in place is found when its end is read."""
    upload = world.put()
    with world.file(upload).open("r+b") as file:
        file.seek(len(b"body"))
        file.write(b"?")
    assert world.compare() == []
    assert world.compare(thorough=True) == ["file_damaged"]
    assert world.task(upload).error_code == "bytes_damaged"
    assert world.compare(thorough=True) == []


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 5000])
def test_file_that_is_no_upload_is_set_aside(world: World, content: bytes) -> None:
    """A file with an upload's name and no row, but without an upload in it, is kept in lost+found."""
    upload = world.write()
    world.file(upload).write_bytes(content)
    assert world.compare() == ["file_damaged"]
    kept = [world.layout.lost_found / name for name in world.lost_found()]
    assert [path.read_bytes() for path in kept] == [content]
    assert world.state(upload) is None


NO_FILES = [plant for name, plant in PLANTS.items() if name != "closed"]


@pytest.mark.parametrize("plant", NO_FILES)
def test_name_of_an_upload_that_is_no_plain_file_is_set_aside(world: World, plant: Plant) -> None:
    """A symbolic link, a FIFO or a directory is never followed, opened for ever, or delivered."""
    upload = world.write()
    path = world.file(upload)
    path.unlink()
    plant(path)
    assert world.compare() == ["file_stray"]
    assert len(world.lost_found()) == 1
    assert not os.path.lexists(path)


@pytest.mark.parametrize("plant", NO_FILES)
def test_upload_whose_file_became_something_else_is_a_dead_letter(world: World, plant: Plant) -> None:
    """Its bytes are not there; what has their name is set aside, and holds up no other."""
    upload, other = world.put("/a"), world.put("/b")
    world.file(upload).unlink()
    plant(world.file(upload))
    assert world.compare() == ["file_stray", "bytes_missing"]
    assert (world.state(upload), world.task(upload).error_code) == (State.FAILED, "bytes_missing")
    assert world.state(other) is State.QUEUED
    assert world.compare() == []


def test_what_cannot_be_set_aside_holds_up_no_other(world: World) -> None:
    """It is reported again and again, as not put right, and what comes behind it is put right."""
    world.layout.lost_found.rmdir()
    world.layout.lost_found.touch()
    buckets = sorted({world.write(instance=f"c{number}").destination.bucket for number in range(8)})
    for bucket in buckets:
        (world.layout.bucket(bucket) / "stray").mkdir()
    assert sorted(world.compare()) == ["file_stray"] * len(buckets) + ["row_missing"] * 8
    assert {(finding.name, finding.repaired) for finding in world.findings} == {
        ("file_stray", False), ("row_missing", True)}
    assert world.compare() == ["file_stray"] * len(buckets)


def test_mark_that_cannot_be_written_holds_up_no_other(world: World) -> None:
    """A directory has the name that the file should get, and can be moved nowhere."""
    world.layout.lost_found.rmdir()
    world.layout.lost_found.touch()
    stuck, other = world.put("/a"), world.put("/b")
    for upload in (stuck, other):
        world.settle(upload, State.FAILED)
        world.file(upload, Mark.FAILED).rename(world.file(upload))
    directory(world.file(stuck, Mark.FAILED))
    assert world.compare() == ["file_stray", "mark_wrong", "mark_wrong"]
    assert [finding.repaired for finding in world.findings] == [False, False, True]
    assert world.mark(other) is Mark.FAILED


def test_bucket_that_cannot_be_read_holds_up_no_other(world: World) -> None:
    """Nobody knows what is in it: its rows stay as they are, and it is reported once."""
    hidden, orphan = world.put(instance="c1"), world.write(instance="c4")
    bucket = world.layout.bucket(hidden.destination.bucket)
    bucket.rename(world.layout.directory / "moved")
    bucket.touch()
    world.spool.close()
    assert sorted(world.compare()) == ["bucket_unreadable", "row_missing"]
    assert (world.state(hidden), world.state(orphan)) == (State.QUEUED, State.QUEUED)
    bucket.unlink()
    (world.layout.directory / "moved").rename(bucket)
    assert world.compare() == []


def test_file_with_a_second_name_is_set_aside(world: World) -> None:
    """A file that somebody else holds by another name is not the service's own."""
    upload = world.write()
    os.link(world.file(upload), world.layout.directory / "other")
    assert world.compare() == ["file_damaged"]
    assert world.state(upload) is None


def test_file_that_holds_another_upload_is_set_aside(world: World) -> None:
    """A copy under another id is not delivered twice."""
    upload, other = world.put("/a"), world.write("/b")
    world.file(other).write_bytes(world.file(upload).read_bytes())
    assert world.compare() == ["file_damaged"]
    assert world.state(other) is None
    assert world.state(upload) is State.QUEUED


@pytest.mark.parametrize("name", ["notes.txt", "x" * 36, "01890a5d-ac96-774b-bcce-b302099a8057.other"])
def test_stray_name_is_set_aside(world: World, name: str) -> None:
    """What is no upload's name has no business in the spool, and is not deleted either."""
    (world.layout.bucket(3) / name).write_text("mine")
    assert world.compare() == ["file_stray"]
    assert [(world.layout.lost_found / kept).read_text() for kept in world.lost_found()] == ["mine"]
    (world.layout.bucket(3) / name).write_text("yours")
    assert world.compare() == ["file_stray"]
    assert len(world.lost_found()) == 2


@pytest.mark.parametrize("with_row", [True, False])
def test_file_in_a_wrong_bucket_is_moved_to_its_own(world: World, with_row: bool) -> None:
    """An upload is found wherever a person has put its file."""
    upload = world.put() if with_row else world.write()
    wrong = (upload.destination.bucket + 1) % 256
    world.file(upload).rename(world.layout.bucket(wrong) / upload.task_id)
    names = world.compare() + world.compare()
    assert names.count("file_misplaced") == 1
    assert world.mark(upload) is not None
    assert world.task(upload).upload == upload


def test_second_copy_in_a_wrong_bucket_is_set_aside(world: World) -> None:
    """With the file in its place, a copy elsewhere is doubtful."""
    upload = world.put()
    wrong = (upload.destination.bucket + 1) % 256
    (world.layout.bucket(wrong) / upload.task_id).write_bytes(world.file(upload).read_bytes())
    assert world.compare() == ["file_misplaced"]
    assert world.mark(upload) is Mark.PENDING
    assert len(world.lost_found()) == 1


# --- damaged rows -----------------------------------------------------------------------------------------

_DAMAGES = [
    ("data", "not json"), ("data", b"\xff\x00"), ("data", "{}"), ("instance", "local/default/other"), ("size", 7),
    ("target", b"?"), ("client", "token:b"), ("client", None), ("client", b"\xff"), ("status", 77), ("status", "?"), ("error_code", b"\xff"), ("error_message", "x" * 500_000),
]


@pytest.mark.parametrize(("column", "value"), _DAMAGES)
def test_damaged_row_is_written_anew_from_its_file(world: World, column: str, value: object) -> None:
    """A row that cannot be read, or says two things, is made from the spool again, with its order."""
    before = world.put("/before")
    upload = world.put(client="token:a")
    order = world.task(upload).order
    rows.write(world.queue, upload.task_id, **{column: value})
    assert world.compare() == ["row_damaged"]
    task = world.task(upload)
    assert (task.upload, task.state, task.order) == (upload, State.QUEUED, order)
    assert world.state(before) is State.QUEUED
    assert world.compare() == []
    assert world.tallies_fit()
    assert world.queue.client_pending("token:a") == Total(1, 4)


@pytest.mark.parametrize(("mark", "state"), [(Mark.FAILED, State.FAILED), (Mark.HELD, State.HELD)])
def test_damaged_row_is_not_revived_when_its_mark_says_it_was_stopped(world: World, mark: Mark, state: State) -> None:
    """Where the row is unreadable, the file's name tells dead letters and held uploads apart."""
    upload = world.put(state=state)
    assert world.mark(upload) is mark
    rows.damage(world.queue, upload.task_id)
    assert world.compare() == ["row_damaged"]
    assert world.state(upload) is state


def test_dead_letter_whose_reason_is_damaged_gets_another(world: World) -> None:
    """What nobody can tell is not taken over: the row is whole afterwards."""
    upload = world.put(state=State.FAILED)
    rows.write(world.queue, upload.task_id, error_code=b"\xff")
    assert world.compare() == ["row_damaged"]
    assert (world.task(upload).state, world.task(upload).error_code) == (State.FAILED, "order_unknown")
    assert world.compare() == []


def test_damaged_row_of_a_finished_task_stays_finished(world: World) -> None:
    """What was delivered is not delivered again."""
    upload = world.put()
    world.settle(upload, State.DELIVERED)
    rows.damage(world.queue, upload.task_id)
    assert world.compare() == ["row_damaged"]
    assert world.state(upload) is State.DELIVERED
    assert world.tallies_fit()


def test_damaged_row_that_a_worker_met_is_queued_again(world: World) -> None:
    """The claim made a dead letter of it; its file shows that it was to be delivered."""
    upload = world.put()
    rows.damage(world.queue, upload.task_id)
    assert world.queue.claim(upload.destination.instance_key, 10) == []
    assert world.queue.met_damaged_row
    assert world.compare() == ["row_damaged"]
    assert world.state(upload) is State.QUEUED


def test_damaged_row_is_not_pushed_over_a_newer_upload(world: World) -> None:
    """Once a newer one to its path is there, the mended task is a dead letter."""
    upload = world.put(supersede=False)
    rows.damage(world.queue, upload.task_id)
    world.put(supersede=False)
    assert world.compare(supersede=False) == ["row_damaged"]
    assert (world.state(upload), world.task(upload).error_code) == (State.FAILED, "path_moved_on")
    assert world.mark(upload) is Mark.FAILED


def test_damaged_row_without_bytes_becomes_a_dead_letter_and_a_note(world: World) -> None:
    """Nothing can be delivered from it; what was left of it is kept, and people are told."""
    upload = world.put(client="token:a")
    world.file(upload).unlink()
    rows.write(world.queue, upload.task_id, data="what was it")
    assert world.compare() == ["row_damaged"]
    task = world.task(upload)
    assert (task.state, task.error_code, task.upload.client) == (State.FAILED, "invalid_row", "token:a")
    assert task.destination.instance_key == upload.destination.instance_key
    assert "what was it" in (world.layout.lost_found / world.lost_found()[0]).read_text()
    assert world.tallies_fit()


def test_row_that_nobody_can_tell_whose_it_is_becomes_a_note(world: World) -> None:
    """Its file, which has no row then, is queued again."""
    upload = world.put()
    rows.write(world.queue, upload.task_id, task_id="gone", data="x")
    assert sorted(world.compare() + world.compare()) == ["row_damaged", "row_missing"]
    assert world.state(upload) is State.QUEUED
    assert world.tallies_fit()


# --- several shards, read-only, keys ----------------------------------------------------------------------


def test_only_the_buckets_of_the_shard_are_looked_at(world: World) -> None:
    """Another shard's uploads have their rows elsewhere."""
    upload = world.write()
    other = 1 - upload.destination.bucket % 2
    world.queue.shard = other
    comparison = Comparison(world.queue, world.spool, shards=2, supersede=True, report=world.findings.append)
    for _ in comparison.everything():
        pass
    assert world.findings == []
    assert upload.destination.bucket not in comparison.buckets()


def test_row_of_another_shard_is_reported(world: World) -> None:
    """Such a row is moved by a migration, not by a comparison."""
    upload = world.put()
    world.queue.shard = 1 - upload.destination.bucket % 2
    comparison = Comparison(world.queue, world.spool, shards=2, supersede=True, report=world.findings.append)
    for _ in comparison.rows():
        pass
    assert [finding.name for finding in world.findings] == ["row_misplaced"]
    assert bucket_of(upload.destination.instance_key) == upload.destination.bucket


def test_reading_comparison_changes_nothing(world: World) -> None:
    """Without repair the same is found again and again, and nothing is touched."""
    orphan, missing, damaged = world.write("/a"), world.put("/b"), world.put("/c")
    outdated = world.write("/d")
    world.put("/d")
    world.file(missing).unlink()
    rows.damage(world.queue, damaged.task_id)
    (world.layout.bucket(3) / "stray").touch()
    expected = ["bytes_missing", "file_stray", "row_damaged", "row_missing", "row_missing_outdated"]
    assert sorted(world.compare(repair=False)) == expected
    assert sorted(world.compare(repair=False)) == expected
    assert not any(finding.repaired for finding in world.findings)
    assert world.state(orphan) is None
    assert world.state(missing) is State.QUEUED
    assert world.mark(outdated) is Mark.PENDING
    assert world.lost_found() == []


def test_upload_that_gets_its_row_again_gets_its_key_too(world: World) -> None:
    """A repeat is recognised as one also after the queue was made from the spool, or a row from its file."""
    lost, damaged = world.write("/a", key="one", client="token:a"), world.put("/b", key="one", client="token:b")
    rows.damage(world.queue, damaged.task_id)
    world.compare()
    for upload in (lost, damaged):
        again = replace(upload, task_id="01890a5d-ac96-774b-bcce-b302099a8057")
        assert world.queue.put_many(sealed(again), supersede=True)[0].task_id == upload.task_id


def test_upload_that_gets_its_row_again_gets_its_trace_too(world: World) -> None:
    """It is in the file, behind the bytes."""
    upload = world.write(traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    assert world.compare() == ["row_missing"]
    assert world.task(upload).upload == upload


def test_lost_found_never_loses_a_file_of_the_same_name(quick_path: Path) -> None:
    """Setting aside the same name twice in a second keeps both."""
    layout = a_state(quick_path)
    for number in range(3):
        (layout.spool / "same").write_text(str(number))
        retire(layout, layout.spool / "same")
    assert sorted(path.read_text() for path in layout.lost_found.iterdir()) == ["0", "1", "2"]


# --- uploads that share a file -----------------------------------------------------------------------------


def test_nothing_is_found_in_a_pack_whose_uploads_go_their_ways(world: World) -> None:
    """Each has a row, a mark and an end of its own; the last one is alone in a file that is too long for it."""
    first, second, third = world.put_together()
    world.settle(first, State.FAILED)
    assert [world.compare(thorough=thorough) for thorough in (False, True)] == [[], []]
    world.settle(second, State.DELIVERED, spooled=False)
    world.spool.remove([second])
    assert [world.compare(thorough=thorough) for thorough in (False, True)] == [[], []]
    world.settle(third, State.DELIVERED, spooled=False)
    world.spool.remove([third])
    assert [world.compare(repair=repair) for repair in (False, True)] == [[], []]
    assert (world.state(first), world.mark(first)) == (State.FAILED, Mark.FAILED)


def test_sound_pack_is_not_read_for_each_of_its_rows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its list tells the sizes: a million rows are compared by them, as those of other files are."""
    uploads = world.put_together(16)
    monkeypatch.setattr(world.spool, "examine", lambda name: pytest.fail(f"{name} is read"))
    comparison = Comparison(world.queue, world.spool, shards=1, supersede=True, report=world.findings.append)
    for _ in comparison.rows():
        pass
    assert world.findings == []
    assert {world.state(upload) for upload in uploads} == {State.QUEUED}


def test_queue_is_made_again_from_packs(world: World) -> None:
    """Each name is an upload, whose mark counts for it alone."""
    first, second, third = world.write_together()
    world.spool.mark(second, Mark.HELD)
    world.spool.remove([third])
    assert world.compare() == ["row_missing"] * 2
    assert [world.state(upload) for upload in (first, second, third)] == [State.QUEUED, State.HELD, None]
    assert world.compare(thorough=True) == []


@pytest.mark.parametrize("thorough", [False, True])
def test_uploads_of_a_pack_that_was_cut_are_dead_letters(world: World, thorough: bool) -> None:
    """Its list is lost, and nobody guesses: the bytes stay, and are to be had by hand."""
    uploads = world.put_together()
    path = world.file(uploads[0])
    os.truncate(path, path.stat().st_size - 1)
    assert world.compare(thorough=thorough) == ["file_damaged"] * 3
    for upload in uploads:
        task = world.task(upload)
        assert (task.state, task.error_code, world.mark(upload)) == (State.FAILED, "bytes_damaged", Mark.FAILED)
    assert world.compare(thorough=thorough) == []


def test_description_that_is_damaged_costs_one_upload_of_a_pack(world: World) -> None:
    """Where everything is read, it is found; the others are whole."""
    first, second, third = world.put_together()
    path = world.file(second)
    content = path.read_bytes()
    path.write_bytes(content.replace(second.task_id.encode(), third.task_id.encode(), 1))
    assert world.compare(thorough=True) == ["file_damaged"]
    assert [world.state(upload) for upload in (first, second, third)] == [State.QUEUED, State.FAILED, State.QUEUED]


def test_upload_of_a_pack_that_is_in_a_wrong_bucket_is_moved_alone(world: World) -> None:
    """As any file; where it has its own name besides, the other one is set aside."""
    first, second, third = world.put_together()
    wrong = world.layout.bucket((first.destination.bucket + 1) % 256)
    world.settle(third, State.DELIVERED, spooled=False)
    world.spool.remove([third])
    os.rename(world.file(first), wrong / first.task_id)
    (wrong / second.task_id).hardlink_to(world.file(second))
    assert world.compare() == ["file_misplaced"] * 2
    assert [world.mark(upload) for upload in (first, second)] == [Mark.PENDING] * 2
    assert [name[:36] for name in world.lost_found()] == [second.task_id]
    assert world.compare(thorough=True) == []


def test_name_of_no_upload_of_a_pack_is_set_aside(world: World) -> None:
    """A file may have as many names as it has uploads, and each must be one of these."""
    first, second, third = world.put_together()
    world.settle(third, State.DELIVERED, spooled=False)
    world.spool.remove([third])
    foreign = world.file(first).parent / an_upload().task_id
    foreign.hardlink_to(world.file(first))
    assert world.compare() == ["file_damaged"]
    assert [name[:36] for name in world.lost_found()] == [foreign.name]
    assert [world.state(upload) for upload in (first, second)] == [State.QUEUED] * 2
