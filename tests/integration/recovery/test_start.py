"""A database that was damaged, emptied or lost while nobody looked: the next start makes it whole."""

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from daemon.config import Config
from daemon.errors import QueueFault
from daemon.model.task import State
from daemon.process.patience import StartWait
from daemon.recovery import rebuild
from daemon.spool import Mark
from daemon.state import reserve
from daemon.state.reserve import Reserve
from daemon.task_queue import Command
from daemon.task_queue.sqlite.doctor import SqliteDoctor
from tests.integration.recovery.restarting import is_ready, keep_running
from tests.integration.recovery.world import World
from tests.support.command import Done, incus_courier
from tests.support.follower import Follower
from tests.support.plants import PLANTS, Plant
from tests.support.processes import Process
from tests.support.service import Service
from tests.support.waiting import eventually
from worker.recovery import start
from worker.recovery.start import begin

_FILES = 40


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A service of two shards that is not started yet."""
    return Service(tmp_path, {"queue": {"shards": 2}})


def _garble(database: Path) -> None:
    database.write_bytes(os.urandom(8192))
    log = Path(f"{database}-wal")
    if log.exists():
        # Somebody has it open: what he read just then may have kept it from being emptied, and it hides the damage.
        log.write_bytes(os.urandom(log.stat().st_size))


def _halve(database: Path) -> None:
    os.truncate(database, database.stat().st_size // 2)


def _empty(database: Path) -> None:
    os.truncate(database, 0)


def _delete(database: Path) -> None:
    database.unlink()


def _delete_all(database: Path) -> None:
    shutil.rmtree(database.parent)


def _lose_log(database: Path) -> None:
    Path(f"{database}-wal").unlink()
    Path(f"{database}-shm").unlink(missing_ok=True)


def _empty_log(database: Path) -> None:
    os.truncate(f"{database}-wal", 0)


def _lose_log_only(database: Path) -> None:
    Path(f"{database}-wal").unlink()


def _garble_log(database: Path) -> None:
    log = Path(f"{database}-wal")
    with log.open("r+b") as file:
        file.seek(log.stat().st_size // 2)
        file.write(os.urandom(64))


def _garble_pages(database: Path) -> None:
    with database.open("r+b") as file:
        for page in range(2, database.stat().st_size // 4096, 3):
            file.seek(page * 4096)
            file.write(os.urandom(4096))


def _lead_away(database: Path) -> None:
    outside = database.parents[3] / f"outside-{database.parent.name}"
    shutil.move(database, outside)
    database.symlink_to(outside)


def _lead_log_away(database: Path) -> None:
    Path(f"{database}-wal").unlink()
    Path(f"{database}-wal").symlink_to("/dev/zero")


def _replace_log_by_fifo(database: Path) -> None:
    Path(f"{database}-wal").unlink()
    os.mkfifo(f"{database}-wal")


_LIKE_OTHERS = (_halve, _delete, _lose_log_only, _garble_log, _lead_log_away)
_DAMAGES = [_garble, _delete_all, _lose_log, _replace_log_by_fifo, *(
    pytest.param(damage, marks=[pytest.mark.slow, *([pytest.mark.full] if damage in _LIKE_OTHERS else [])])
    for damage in (_halve, _empty, _delete, _lose_log_only, _garble_log, _garble_pages, _lead_away, _lead_log_away))]


def _has_begun_or_ended(service: Service, process: Process) -> bool:
    """True when a worker has started, or this process has ended."""
    return process.status() is not None or bool(service.events("worker.started"))


def _checkpoint(service: Service, shard: int) -> None:
    """Have what is in the log in the database too, so that damaging the database damages something."""
    with SqliteDoctor(service.layout, shard) as queue:
        queue.compact()


@pytest.mark.parametrize("damage", _DAMAGES)
def test_every_upload_is_delivered_when_a_database_was_damaged(service: Service, damage: Callable[[Path], None]) -> None:
    """Whatever became of the database, the spool has every upload, and the newest of each path is what arrives."""
    with service:
        service.start()
        service.kill("worker-0", "worker-1")
        sent = {}
        for number in range(_FILES):
            where = (f"i{number % 5}", f"/f{number % 20}")
            sent[where] = b"%d" % number
            answer = service.client.put(*where, sent[where])
            assert answer is not None
            assert answer.status == 202
        service.kill()
        for shard in range(2):
            if "log" not in damage.__name__:
                _checkpoint(service, shard)
            damage(service.layout.database(shard))
        keep_running(service, lambda: is_ready(service))
        service.wait_quiet()
        assert {where: service.delivered(*where) for where in sent} == sent
        assert not [task for task in service.tasks() if task.state is State.FAILED]
        assert not service.events("worker.error")


@pytest.mark.slow
@pytest.mark.parametrize("damage", [_lose_log, _empty_log])
def test_stopped_uploads_are_not_revived_when_what_came_after_them_was_lost(
        service: Service, damage: Callable[[Path], None]) -> None:
    """A database without (the end of) its log says that they wait: their files' names know better."""
    with service:
        service.start()
        service.kill("worker-0", "worker-1")
        failed = service.client.put("c1", "/no/parent", b"older", mkdirs="false")
        held = service.client.put("c1", "/held", b"held")
        assert failed is not None
        assert held is not None
        for shard in range(2):
            _checkpoint(service, shard)
        # Workers move the log into the database when they like: what was in it then is kept aside.
        databases = [service.layout.database(shard).read_bytes() for shard in range(2)]
        with SqliteDoctor(service.layout, 0) as queue, SqliteDoctor(service.layout, 1) as other:
            mine = queue if queue.find(held.task_id) else other
            mine.ask([Command(verb="hold", task_id=held.task_id)])
        service.start()
        eventually(lambda: service.client.task(failed.task_id)["state"] == "failed", what="the dead letter")
        eventually(lambda: service.client.task(held.task_id)["state"] == "held", what="the hold")
        service.client.put("c1", "/no/parent", b"newer")
        eventually(lambda: sorted(service.spooled()) == sorted(
            [failed.task_id + Mark.FAILED.value, held.task_id + Mark.HELD.value]), what="the newer delivery")
        service.kill()
        service.layout.database(mine.shard).write_bytes(databases[mine.shard])
        damage(service.layout.database(mine.shard))
        service.start()
        eventually(lambda: not any(task.state in {State.QUEUED, State.PUSHING} for task in service.tasks()),
                   what="the end of all pushes")
        for stopped, state in ((failed, "failed"), (held, "held")):
            task = service.client.task(stopped.task_id)
            assert (task["state"], task["error"]["code"]) == (state, "order_unknown")
        assert service.delivered("c1", "/no/parent") == b"newer"
        assert service.delivered("c1", "/held") is None


def test_push_is_repeated_when_the_worker_died_between_marking_and_settling(world: World) -> None:
    """The reason of the dead letter is not lost: a kill costs a repeated push."""
    upload = world.put()
    world.queue.claim(upload.destination.instance_key, 1)
    world.spool.mark(upload, Mark.FAILED)
    world.layout.in_use(0).touch()
    with closing(begin(world.layout, 0, Reserve(world.layout, 0, 0), Config(), StartWait(pytest.fail))):
        assert world.state(upload) is State.QUEUED
        assert world.mark(upload) is Mark.PENDING


@pytest.mark.parametrize(("module", "name"), [(start, "is_due"), (rebuild, "open_whole")])
@pytest.mark.parametrize("was_full", [True, False])
def test_start_on_a_full_disk_outlives_a_failure_that_nobody_can_explain_any_more(
        world: World, monkeypatch: pytest.MonkeyPatch, was_full: bool, module: ModuleType, name: str) -> None:
    """SQLite keeps it to itself that room is missing, and there may be some when the disk is asked; else it is a fault."""
    faults = [QueueFault("queue_failed", "unable to open database file")]
    step = getattr(module, name)

    def later(*arguments: Any, **how: Any) -> Any:
        if faults:
            raise faults.pop()
        return step(*arguments, **how)

    monkeypatch.setattr(module, name, later)
    monkeypatch.setattr(reserve, "trouble_in", lambda _: OSError(errno.EDQUOT, "full") if was_full else None)
    waits: list[str] = []
    with nullcontext() if was_full else pytest.raises(QueueFault):
        begin(world.layout, 0, Reserve(world.layout, 0, 0), Config(), StartWait(waits.append)).close()
    assert waits == ["unable to open database file"] * was_full


@pytest.mark.parametrize("damage", [_garble, _delete])
def test_stopped_uploads_are_not_revived_when_a_database_was_damaged(
        service: Service, damage: Callable[[Path], None]) -> None:
    """Dead letters stay dead letters and held uploads stay held, until a person wants them with --force."""
    with service:
        service.start()
        failed = service.client.put("c1", "/no/parent", b"failed", mkdirs="false")
        assert failed is not None
        eventually(lambda: [task for task in service.tasks() if task.state is State.FAILED], what="the dead letter")
        service.kill("worker-0", "worker-1")
        held = service.client.put("c1", "/held", b"held")
        assert held is not None
        with SqliteDoctor(service.layout, 0) as queue, SqliteDoctor(service.layout, 1) as other:
            mine = queue if queue.find(held.task_id) else other
            mine.ask([Command(verb="hold", task_id=held.task_id)])
        service.start()
        eventually(lambda: service.client.task(held.task_id)["state"] == "held", what="the hold")
        eventually(lambda: sorted(service.spooled()) == sorted(
            [failed.task_id + Mark.FAILED.value, held.task_id + Mark.HELD.value]), what="the marks")
        service.kill()
        for shard in range(2):
            _checkpoint(service, shard)
            damage(service.layout.database(shard))
        keep_running(service, lambda: is_ready(service))
        eventually(lambda: len(service.tasks()) == 2, what="the rows")
        assert service.client.task(failed.task_id)["state"] == "failed"
        assert service.client.task(held.task_id)["state"] == "held"
        with SqliteDoctor(service.layout, 0) as queue, SqliteDoctor(service.layout, 1) as other:
            mine = queue if queue.find(held.task_id) else other
            mine.ask([Command(verb="release", task_id=held.task_id)])
            mine.ask([Command(verb="release", task_id=held.task_id, force=True)])
        eventually(lambda: service.delivered("c1", "/held") == b"held", what="the forced release")
        # A worker writes what it has to say of a turn at its end: the push may be done before.
        refused = eventually(lambda: service.events("task.command_refused"), what="the refusal in the log")
        assert len(refused) == 1


def test_damaged_database_is_kept_and_reported(service: Service) -> None:
    """It is moved to lost+found as it was, and the log says where it is and why."""
    with service:
        service.start()
        service.kill()
        _checkpoint(service, 1)
        _garble(service.layout.database(1))
        before = service.layout.database(1).read_bytes()
        keep_running(service, lambda: is_ready(service))
        event = service.events("queue.set_aside")[0]
        assert event["shard"] == 1
        assert (Path(str(event["path"])) / "data.db").read_bytes() == before
        assert not (Path(str(event["path"])) / "reserve").exists()
        assert [found["finding"] for found in service.events("fsck.finding")] == ["queue_damaged"]


def test_other_shards_go_on_while_one_is_damaged(service: Service) -> None:
    """A shard that cannot be opened stops neither the API nor the other shard."""
    with service:
        service.start()
        service.kill("worker-0")
        _checkpoint(service, 0)
        _garble(service.layout.database(0))
        names = [f"i{number}" for number in range(12)]
        answers = {name: service.client.put(name, "/a", name.encode()) for name in names}
        taken = [name for name, answer in answers.items() if answer is not None and answer.status == 202]
        assert taken
        eventually(lambda: any(service.delivered(name, "/a") for name in taken), what="a delivery of the other shard")
        service.begin("worker-0")
        service.wait_ready()
        service.wait_quiet()
        assert [name for name in taken if service.delivered(name, "/a") != name.encode()] == []


def test_running_api_follows_a_database_that_was_replaced(service: Service) -> None:
    """After a worker has set a database aside, uploads go into the new one, without a restart of the API.

    Who follows is told that he may have missed something, and goes on.
    """
    with service, Follower(service.address) as follower:
        service.start()
        eventually(lambda: follower.last_id)
        service.kill("worker-0", "worker-1")
        for shard in range(2):
            _checkpoint(service, shard)
            _garble(service.layout.database(shard))
        service.begin("worker-0")
        service.begin("worker-1")
        service.wait_ready()
        eventually(lambda: follower.was_reset(2))
        for number in range(10):
            answer = service.client.put(f"i{number}", "/a", b"new")
            assert answer is not None
            assert answer.status == 202
        service.wait_quiet()
        assert all(service.delivered(f"i{number}", "/a") == b"new" for number in range(10))
        eventually(lambda: list(follower.states.values()).count("delivered") == 10)


def test_start_that_was_killed_while_rebuilding_is_finished_by_the_next(service: Service) -> None:
    """A rebuild that was cut off goes on where it was, and nothing is put twice or out of order."""
    with service:
        service.start()
        service.kill("worker-0", "worker-1")
        sent = {}
        for number in range(_FILES):
            where = ("c1", f"/f{number % 10}")
            sent[where] = b"%d" % number
            assert service.client.put(*where, sent[where]) is not None
        service.kill()
        for shard in range(2):
            _delete(service.layout.database(shard))
        for name in ("worker-0", "worker-1"):
            process = service.begin(name, "queue.commit=kill@1")
            eventually(partial(_has_begun_or_ended, service, process),
                       what="the end of the start")
        service.kill()
        keep_running(service, lambda: is_ready(service))
        service.wait_quiet()
        assert {where: service.delivered(*where) for where in sent} == sent


def test_clean_stop_leaves_nothing_to_compare(service: Service) -> None:
    """A service that was stopped in order starts without looking through the spool first."""
    with service:
        service.start()
        assert service.client.put("c1", "/a", b"x") is not None
        service.wait_quiet()
        service.stop()
        for shard in range(2):
            assert not service.layout.in_use(shard).exists()
        service.start()
        assert not service.events("queue.rebuilt")


NO_DIRECTORIES = [plant for name, plant in PLANTS.items() if name != "directory"]


def _leave_with_a_plant(service: Service, thing: Plant) -> None:
    """Leave an upload for each shard, and something else where the directory of the first one was."""
    service.start()
    service.kill("worker-0", "worker-1")
    for number in range(4):
        answer = service.client.put(f"c{number}", "/f", b"%d" % number)
        assert answer is not None
        assert answer.status == 202
    service.kill()
    shutil.rmtree(service.layout.shard(0))
    thing(service.layout.shard(0))


@pytest.mark.slow
@pytest.mark.parametrize("thing", NO_DIRECTORIES)
def test_shard_is_made_anew_where_something_else_is_in_the_place_of_its_directory(service: Service, thing: Plant) -> None:
    """Its worker clears the name, says so, and every upload gets its row again."""
    with service:
        _leave_with_a_plant(service, thing)
        service.start()
        eventually(lambda: all(service.delivered(f"c{number}", "/f") for number in range(4)), what="the deliveries")
        assert [event["shard"] for event in service.events("fsck.finding") if event["finding"] == "name_taken"] == [0]


@pytest.mark.slow
def test_commands_go_on_with_other_shards_where_a_fifo_is_in_the_place_of_one(service: Service) -> None:
    """Each names the shard that it cannot read; a repair makes it anew."""
    with service:
        _leave_with_a_plant(service, PLANTS["fifo"])

        def run(*words: str) -> Done:
            return incus_courier(*words, INCUS_COURIER_CONFIG=str(service.config))

        assert "shard 0 cannot be read" in run("status").out
        listed = run("tasks", "list", "--json")
        assert (listed.code, "shard 0 cannot be read" in listed.err) == (1, True)
        assert listed.json
        assert [(found["name"], found["shard"]) for found in run("fsck", "--json").json] == [
            ("name_taken", 0), ("queue_unreadable", 0)]
        assert "FAIL shard 0" in run("check").out
        assert run("fsck", "--repair").code == 0
        assert run("fsck").code == 0


@pytest.mark.slow
def test_status_goes_on_with_other_shards_where_a_fifo_has_the_name_of_a_lock(service: Service) -> None:
    """Who serves that shard cannot be told; its worker says what is in the way, and no other worker minds."""
    with service:
        service.start()
        service.stop("worker-0")
        service.layout.lock(0).unlink()
        PLANTS["fifo"](service.layout.lock(0))
        said = incus_courier("status", INCUS_COURIER_CONFIG=str(service.config)).out
        assert f"shard 0 cannot be read: {service.layout.lock(0)}" in said
        assert "shard 1 has no worker" not in said
        worker = service.begin("worker-0")
        assert eventually(lambda: worker.status(), what="the end of the worker") == 1
        service.kill("worker-0")
