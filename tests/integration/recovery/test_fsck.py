"""The command `incus-courier fsck`: what it prints, what it mends, and what it leaves to those who run."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from daemon.cli import fsck as command
from daemon.cli.fsck import fsck
from daemon.config import Config, Queue, StateSection
from daemon.errors import CannotStart, QueueFault
from daemon.model.task import State
from daemon.model.text import is_plain
from daemon.spool import Mark
from daemon.state import shard_count
from daemon.state.shard_count import ShardCount
from daemon.state.shard_lock import ShardLock
from daemon.task_queue.sqlite.doctor import SqliteDoctor
from tests.integration.recovery.restarting import is_ready, keep_running
from tests.integration.recovery.world import World
from tests.support.command import incus_courier
from tests.support.foreign import FOREIGN, HEADS, HUGE, plant
from tests.support.service import Service

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _in_force(request: pytest.FixtureRequest) -> None:
    """The world of these tests has one shard, and says so."""
    if "world" in request.fixturenames:
        shard_count.establish(request.getfixturevalue("world").layout, 1)


def _run(world: World, capsys: Capture, *, repair: bool = False) -> tuple[int, list[dict[str, Any]]]:
    """Run it; return its exit code and what it found."""
    config = Config(state=StateSection(directory=str(world.layout.directory)), queue=Queue(shards=1))
    capsys.readouterr()
    code = fsck(config, repair=repair, as_json=True)
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def _names(found: list[dict[str, Any]]) -> list[str]:
    return sorted(finding["name"] for finding in found)


def test_nothing_is_found_in_a_sound_state(world: World, capsys: Capture) -> None:
    """Exit code 0 and no line."""
    world.put("/a")
    world.put("/b", state=State.FAILED)
    assert _run(world, capsys) == (0, [])


@pytest.mark.parametrize("as_json", [False, True])
def test_names_from_others_cannot_steer_a_terminal(world: World, capsys: Capture, as_json: bool) -> None:
    """Whoever may put files into the spool does not thereby write to the terminal of who looks at it."""
    (world.layout.spool / "\x1b]0;owned\x07\u202e").touch()
    config = Config(state=StateSection(directory=str(world.layout.directory)), queue=Queue(shards=1))
    assert fsck(config, repair=False, as_json=as_json) == 1
    said = capsys.readouterr()
    assert "owned" in said.out
    assert all(is_plain(line) for line in (said.out + said.err).split("\n"))


@pytest.mark.parametrize("repair", [False, True])
def test_database_that_cannot_be_read_just_now_is_not_called_damaged(
    world: World, capsys: Capture, monkeypatch: pytest.MonkeyPatch, repair: bool,
) -> None:
    """A disk without room, or one that was made read-only, is to be mended, and the database left as it is."""
    def fail(*_: object, **__: object) -> None:
        raise QueueFault("queue_failed", "The queue: Read-only file system.")

    world.put("/a")
    monkeypatch.setattr(command, "what_is_damaged", fail)
    code, found = _run(world, capsys, repair=repair)
    assert (code, _names(found)) == (1, ["queue_unreadable"])
    assert found[0]["detail"] == "The queue: Read-only file system."
    assert os.listdir(world.layout.lost_found) == []


def test_everything_that_is_wrong_is_reported_and_nothing_is_changed(world: World, capsys: Capture) -> None:
    """Without --repair each finding is a line that says what it is and what would be done; the exit code is 1."""
    orphan, missing = world.write("/a"), world.put("/b")
    world.file(missing).unlink()
    (world.layout.spool / "stray").touch()
    for _ in range(2):
        code, found = _run(world, capsys)
        assert code == 1
        assert _names(found) == ["bytes_missing", "file_stray", "row_missing"]
        assert not any(finding["repaired"] for finding in found)
        assert all(finding["title"] and finding["repair"] for finding in found)
    assert {finding["task_id"] for finding in found} == {orphan.task_id, missing.task_id, None}
    assert world.state(orphan) is None
    assert world.lost_found() == []


def test_everything_is_put_right_with_repair(world: World, capsys: Capture) -> None:
    """With --repair the exit code is 0 once all is mended, and a second run finds nothing."""
    orphan, missing = world.write("/a", client="token:a"), world.put("/b", client="token:a")
    marked, cut = world.put("/c"), world.put("/d")
    world.file(missing).unlink()
    world.spool.mark(marked, Mark.HELD)
    os.truncate(world.file(cut), 3)
    (world.layout.spool / "stray").touch()
    for table in ("tally", "clients"):
        world.queue.durable.execute(f"UPDATE {table} SET tasks = 77")
    code, found = _run(world, capsys, repair=True)
    assert (code, _names(found)) == (0, [
        "bytes_missing", "counts_wrong", "file_damaged", "file_stray", "row_missing", "row_outdated"])
    assert all(finding["repaired"] for finding in found)
    assert world.state(orphan) is State.QUEUED
    assert (world.state(missing), world.state(cut)) == (State.FAILED, State.FAILED)
    assert world.state(marked) is State.HELD
    assert world.tallies_fit()
    assert [task.upload for task in world.queue.page(client="token:a", limit=9)] == [missing, orphan]
    assert _run(world, capsys) == (0, [])


def test_damaged_database_is_rebuilt_with_repair(world: World, capsys: Capture) -> None:
    """It is reported first, and with --repair set aside; the spool gives the rows back."""
    uploads = [world.put(f"/{number}") for number in range(30)]
    world.queue.compact()
    world.queue.close()
    with world.layout.database(0).open("r+b") as file:
        file.seek(3 * 4096)
        file.write(os.urandom(20 * 4096))
    code, found = _run(world, capsys)
    assert (code, _names(found)) == (1, ["queue_damaged"])
    code, found = _run(world, capsys, repair=True)
    assert code == 0
    assert "queue_damaged" in _names(found)
    world.reopened()
    assert all(world.state(upload) is State.QUEUED for upload in uploads)
    assert _run(world, capsys) == (0, [])


@pytest.mark.parametrize("what", [*FOREIGN, HUGE, *HEADS])
def test_foreign_database_is_rebuilt_with_repair(world: World, capsys: Capture, what: str) -> None:
    """What SQLite finds nothing wrong with is found, and gone afterwards with the database that had it."""
    upload = world.put("/a")
    world.queue.compact()
    world.queue.close()
    plant(world.layout.database(0), what)
    code, found = _run(world, capsys)
    assert (code, _names(found)) == (1, ["queue_damaged"])
    code, found = _run(world, capsys, repair=True)
    assert (code, _names(found)) == (0, ["queue_damaged", "row_missing"])
    assert "found damaged while it was in use" not in found[0]["detail"]
    assert _run(world, capsys) == (0, [])
    world.reopened()
    assert world.state(upload) is State.QUEUED


@pytest.mark.parametrize("gone", [True, False])
def test_lost_database_is_filled_with_repair(world: World, capsys: Capture, gone: bool) -> None:
    """A database that is missing or empty beside a full spool is a finding, and no reason to start from nothing."""
    upload = world.put("/a")
    world.queue.compact()
    world.queue.close()
    if gone:
        world.layout.database(0).unlink()
    else:
        os.truncate(world.layout.database(0), 0)
    code, found = _run(world, capsys)
    assert (code, _names(found)) == (1, ["queue_emptied" if gone else "row_missing"])
    code, found = _run(world, capsys, repair=True)
    assert (code, _names(found)) == (0, ["queue_emptied", "row_missing"])
    world.reopened()
    assert world.state(upload) is State.QUEUED


def test_shard_that_is_served_is_only_looked_at(world: World, capsys: Capture) -> None:
    """--repair says who holds the lock, reports, and changes nothing in that shard."""
    orphan = world.write("/a")
    lock = ShardLock(world.layout, 0)
    lock.acquire()
    config = Config(state=StateSection(directory=str(world.layout.directory)), queue=Queue(shards=1))
    assert fsck(config, repair=True, as_json=True) == 1
    printed = capsys.readouterr()
    assert f"Shard 0 is served by process {os.getpid()}" in printed.err
    assert [json.loads(line)["repaired"] for line in printed.out.splitlines()] == [False]
    lock.release()
    assert world.state(orphan) is None


def test_tasks_in_a_wrong_shard_are_moved_with_repair(world: World, capsys: Capture) -> None:
    """Rows that an old backup or a mistake has brought into another shard's database find their way."""
    uploads = [world.put("/a", instance=f"i{number}") for number in range(6)]
    world.queue.close()
    shard_count.record(world.layout, ShardCount(2))
    strangers = [upload for upload in uploads if upload.destination.shard(2) == 1]
    assert strangers
    code, found = _run(world, capsys)
    assert code == 1
    assert _names(found).count("row_misplaced") == len(strangers)
    code, _ = _run(world, capsys, repair=True)
    assert code == 0
    with SqliteDoctor(world.layout, 1) as queue:
        assert all(queue.find(upload.task_id) for upload in strangers)
    assert _run(world, capsys) == (0, [])


def test_unfinished_move_is_finished_with_repair(world: World, capsys: Capture) -> None:
    """While tasks are between two numbers of shards nothing else is judged."""
    uploads = [world.put("/a", instance=f"i{number}") for number in range(6)]
    world.queue.close()
    shard_count.record(world.layout, ShardCount(1, moving_to=3))
    code, found = _run(world, capsys)
    assert (code, _names(found)) == (1, ["move_unfinished"])
    code, found = _run(world, capsys, repair=True)
    assert (code, _names(found)) == (0, ["move_unfinished"])
    assert shard_count.read(world.layout) == ShardCount(3)
    for upload in uploads:
        with SqliteDoctor(world.layout, upload.destination.shard(3)) as queue:
            assert queue.find(upload.task_id)
    assert _run(world, capsys) == (0, [])


def test_command_refuses_a_directory_without_state(tmp_path: Path) -> None:
    """A mistyped directory is not made into an empty state that is found to be well."""
    with pytest.raises(CannotStart):
        fsck(Config(state=StateSection(directory=str(tmp_path / "nothing"))), repair=False, as_json=False)
    assert not (tmp_path / "nothing").exists()


def test_command_reads_for_people_while_the_service_runs(tmp_path: Path) -> None:
    """The real command beside a running service finds nothing wrong while uploads come and go."""
    with Service(tmp_path) as service:
        service.start()
        for number in range(40):
            service.client.put("c1", f"/f{number}", b"x")
        done = incus_courier("--config", str(service.config), "fsck")
        assert (done.code, done.out, done.err) == (0, "nothing wrong\n", "")
        keep_running(service, lambda: is_ready(service))
        service.wait_quiet()
