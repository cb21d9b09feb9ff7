"""The versions of a shard's database: an older one goes along whole, a newer one is left alone."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from daemon import failpoints
from daemon.errors import QueueFault
from daemon.model.task import State
from daemon.model.upload import Upload
from daemon.spool.store import FileSpool
from daemon.state.layout import Layout
from daemon.task_queue import CommandAnswer, PutOutcome
from daemon.task_queue.sqlite import base
from daemon.task_queue.sqlite.doctor import SqliteDoctor
from daemon.task_queue.sqlite.versions import SCHEMA_VERSION, STEPS, is_older, version_on_disk
from tests.support import version_1
from tests.support.depot import an_upload, new_id, sealed
from tests.support.version_1 import Old


@pytest.fixture
def layout(quick_path: Path) -> Layout:
    """The place of a state of one shard."""
    return Layout(quick_path / "state")


@pytest.fixture
def old(layout: Layout) -> list[Old]:
    """The tasks of such a state that version 1 left there."""
    return version_1.build(layout.directory, 1)


def never_mind() -> None:
    """Nobody wants to know that an upgrade goes on."""


def again(upload: Upload) -> Upload:
    """The same upload, sent once more."""
    return replace(upload, task_id=new_id())


def files(layout: Layout) -> dict[str, bytes]:
    """What is on the disk for the queue."""
    return {str(path): path.read_bytes() for path in layout.queue.rglob("*") if path.is_file()}


def change(layout: Layout, statement: str, *values: object) -> None:
    """Change the database behind the queue's back."""
    with closing(sqlite3.connect(layout.database(0), isolation_level=None)) as connection:
        connection.execute(statement, values)


def test_steps_lead_from_the_first_version_to_this_program_s() -> None:
    """No version that ever was is left out."""
    assert sorted(STEPS) == list(range(1, SCHEMA_VERSION))


@pytest.mark.usefixtures("old")
def test_upgraded_database_is_made_like_a_new_one(layout: Layout, quick_path: Path) -> None:
    """Tables, indexes and triggers do not depend on how old a database is."""
    new = Layout(quick_path / "new")
    new.create()
    for place in (layout, new):
        SqliteDoctor(place, 0, upgrade=never_mind).close()
    assert version_1.schema(layout.database(0)) == version_1.schema(new.database(0))


@pytest.mark.usefixtures("old")
def test_upgrade_keeps_every_row_of_every_table(layout: Layout) -> None:
    """Tasks with their states, attempts, due times and orders; commands, outages, facts and counts."""
    before = version_1.contents(layout.database(0))
    with SqliteDoctor(layout, 0, upgrade=never_mind) as queue:
        assert queue.counts_fit()
    assert version_1.contents(layout.database(0)) == before
    assert all(before.values())


@pytest.mark.usefixtures("old")
def test_everything_counts_from_the_upgrade_on(layout: Layout) -> None:
    """What was before is in no sum, and an old command is answered though it is no action."""
    change(layout, "INSERT INTO sqlite_sequence VALUES ('events', 7)")
    with SqliteDoctor(layout, 0, upgrade=never_mind) as queue:
        assert [(counter.name, counter.value) for counter in queue.counters()] == [("events_total", 0)]
        queue.put_many(sealed(an_upload()), supersede=False)
        assert {counter.name: counter.value for counter in queue.counters()} == {
            "events_total": 1, "uploads_total": 1, "upload_bytes_total": 5}
        queue.change([], [CommandAnswer(number=queue.commands(1)[0].number, changed=1)])
        assert queue.actions(None, 9) == []


@pytest.mark.usefixtures("old")
def test_upgrade_says_that_it_goes_on(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service manager that hears nothing would end a worker in the middle of a large one, again and again."""
    monkeypatch.setattr(base, "_TELL_EVERY_STEPS", 100)
    told: list[None] = []
    with SqliteDoctor(layout, 0, upgrade=lambda: told.append(None)) as queue:
        assert len(told) > 1
        told.clear()
        queue.page(limit=1000)
        queue.put_many(sealed(), supersede=True)
    assert told == []


def test_key_of_before_the_upgrade_is_replayed_after_it(layout: Layout, old: list[Old]) -> None:
    """Whatever became of the first upload; and another one with its key is refused."""
    keyed = [task.upload for task in old if task.upload.idempotency_key]
    with SqliteDoctor(layout, 0, upgrade=never_mind) as queue:
        answers = queue.put_many(sealed(*(again(upload) for upload in keyed)), supersede=True)
        assert [(answer.outcome, answer.task_id) for answer in answers] == [
            (PutOutcome.DUPLICATE, upload.task_id) for upload in keyed]
        [answer] = queue.put_many(sealed(replace(again(keyed[0]), mode=0o600)), supersede=True)
        assert answer.outcome is PutOutcome.MISMATCH
    assert len(keyed) == 2 * len(State)


def test_last_upload_with_a_key_is_what_it_stands_for_after_the_upgrade(layout: Layout, old: list[Old]) -> None:
    """A key was given to another upload when the bytes of the first were lost."""
    first = next(task.upload for task in old if task.state is State.QUEUED and task.upload.idempotency_key)
    last = again(first)
    change(layout, "INSERT INTO tasks_v1 (data, timestamp, status, task_id, instance, target, size, updated_at, age_base)"
                   " SELECT ?, timestamp, 9, ?, instance, target, size, updated_at, age_base FROM tasks_v1 WHERE task_id = ?",
           last.to_json(), last.task_id, first.task_id)
    with SqliteDoctor(layout, 0, FileSpool(layout), upgrade=never_mind) as queue:
        [answer] = queue.put_many(sealed(again(first)), supersede=True)
        # Its bytes are not there either.
        assert answer.outcome is PutOutcome.ACCEPTED
        assert queue.read("SELECT count(*) FROM keys WHERE task_id = ?", (first.task_id,)) == [(0,)]


@pytest.mark.parametrize("data", ["{", '{"idempotency_key":"k"}', b"\xff\xfe", "", 5])
def test_damaged_row_does_not_keep_its_shard_from_being_upgraded(layout: Layout, old: list[Old], data: object) -> None:
    """It is damaged afterwards too, and the others have their keys."""
    damaged, well = (task.upload for task in old if task.state in {State.QUEUED, State.HELD} and task.upload.idempotency_key
                     and task.upload.destination.instance == "c1")
    change(layout, "UPDATE tasks_v1 SET data = ? WHERE task_id = ?", data, damaged.task_id)
    with SqliteDoctor(layout, 0, upgrade=never_mind) as queue:
        [answer] = queue.put_many(sealed(again(well)), supersede=True)
        assert answer.outcome is PutOutcome.DUPLICATE
        with pytest.raises(ValueError, match=r"."):
            queue.find(damaged.task_id)


@pytest.mark.usefixtures("old")
def test_older_database_is_refused_and_not_touched_by_whoever_may_not_upgrade_it(layout: Layout) -> None:
    """Not even its log goes, by which its next worker knows that it is up to date."""
    with closing(sqlite3.connect(layout.database(0), isolation_level=None)) as open_elsewhere:
        open_elsewhere.execute("UPDATE facts SET value = 'in the log' WHERE name = 'other'")
        shutil.copytree(layout.directory, layout.directory.with_name("died"))
    died = Layout(layout.directory.with_name("died"))
    before = files(died)
    assert str(died.log(0)) in before
    for _ in range(2):
        with pytest.raises(QueueFault) as caught:
            SqliteDoctor(died, 0)
        assert caught.value.code == "schema_older"
    assert {path: content for path, content in files(died).items() if not path.endswith("-shm")} == {
        path: content for path, content in before.items() if not path.endswith("-shm")}


@pytest.mark.parametrize("upgrade", [never_mind, None])
def test_newer_database_is_refused_and_not_touched(layout: Layout, upgrade: Callable[[], None] | None) -> None:
    """An older program does not write into what it does not understand, nor take it for damaged."""
    layout.create()
    SqliteDoctor(layout, 0).close()
    change(layout, "PRAGMA user_version = 99")
    before = files(layout)
    with pytest.raises(QueueFault, match="version 99") as caught:
        SqliteDoctor(layout, 0, upgrade=upgrade)
    assert caught.value.code == "schema_newer"
    assert files(layout) == before


@pytest.mark.parametrize("fault", ["ENOSPC", "EIO"])
@pytest.mark.usefixtures("old")
def test_upgrade_that_fails_leaves_the_older_version_whole(layout: Layout, fault: str) -> None:
    """The next try finds what this one found."""
    before, schema = version_1.contents(layout.database(0)), version_1.schema(layout.database(0))
    failpoints.arm(f"queue.upgrade={fault}")
    with pytest.raises(QueueFault) as caught:
        SqliteDoctor(layout, 0, upgrade=never_mind)
    assert caught.value.code == ("queue_full" if fault == "ENOSPC" else "queue_failed")
    assert is_older(layout, 0)
    assert version_1.schema(layout.database(0)) == schema
    failpoints.arm("")
    SqliteDoctor(layout, 0, upgrade=never_mind).close()
    assert version_1.contents(layout.database(0)) == before
    assert version_on_disk(layout, 0) == SCHEMA_VERSION


def test_database_whose_making_was_cut_off_is_made_whole(layout: Layout) -> None:
    """Version 1 made its first table before the others."""
    layout.create()
    layout.make_shard(0)
    change(layout, version_1.SCHEMA.partition(";")[0])
    assert version_on_disk(layout, 0) == 0
    with SqliteDoctor(layout, 0) as queue:
        assert queue.page(limit=1) == []
    assert version_on_disk(layout, 0) == SCHEMA_VERSION


def test_asking_for_the_version_makes_no_file(layout: Layout) -> None:
    """A log that a look had made would hide that the one before it is lost."""
    layout.create()
    assert version_on_disk(layout, 0) == 0
    assert files(layout) == {}
    SqliteDoctor(layout, 0).close()
    before = files(layout)
    assert version_on_disk(layout, 0) == SCHEMA_VERSION
    assert files(layout) == before


def test_version_is_read_from_the_log_where_it_is_newer_than_the_file(layout: Layout) -> None:
    """What is committed counts, wherever SQLite keeps it just now."""
    layout.create()
    with SqliteDoctor(layout, 0) as queue:
        queue.compact()
        queue.durable.execute("PRAGMA user_version = 7")
        assert version_on_disk(layout, 0) == 7
