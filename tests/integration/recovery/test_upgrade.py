"""A state that the version before left: it goes along whole, with real processes, whenever they are killed."""

import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daemon import failpoints
from daemon.model.task import State
from daemon.process.exit_status import EXIT_FAILED
from daemon.spool import Mark, open_spool
from daemon.state.append_lease import AppendLease
from daemon.state.layout import Layout
from daemon.task_queue.sqlite.doctor import SqliteDoctor
from daemon.task_queue.sqlite.versions import SCHEMA_VERSION, version_on_disk
from tests.integration.recovery.restarting import is_ready, keep_running
from tests.support import version_1
from tests.support.command import incus_courier
from tests.support.depot import new_id
from tests.support.service import Service
from tests.support.version_1 import Old
from tests.support.waiting import eventually

SHARDS = 2
#: Ends a worker when its database is up to date.
LAST_STEP = f"queue.upgraded=kill@{SCHEMA_VERSION - 1}"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service of two shards that is not started yet."""
    with Service(tmp_path, {"queue": {"shards": SHARDS}}) as made:
        yield made


@pytest.fixture
def old(service: Service) -> list[Old]:
    """The tasks that version 1 left to it."""
    return version_1.build(service.layout.directory, SHARDS)


def versions(layout: Layout) -> list[int]:
    """The version of each shard's database."""
    return [version_on_disk(layout, shard) for shard in range(SHARDS)]


def check(service: Service, old: list[Old]) -> None:
    """Everything of the old state is there, and what was to be delivered arrives; each key stands for its upload."""
    service.wait_ready()
    wanted = {task.upload.task_id: task.becomes for task in old}
    eventually(lambda: {task.task_id: task.state for task in service.tasks()} == wanted, what="the old tasks' ends")
    for task in old:
        to, name = task.upload.destination, task.upload.destination.path[1:].encode()
        if task.becomes is State.DELIVERED and task.state is not State.DELIVERED:
            assert service.delivered(to.instance, to.path) == name
    check_keys(service, old)
    assert versions(service.layout) == [SCHEMA_VERSION] * SHARDS
    assert not service.layout.common_keys.exists()
    assert os.listdir(service.layout.lost_found) == []
    assert service.events("fsck.finding") == []


def check_keys(service: Service, old: list[Old]) -> None:
    """Each key stands for its upload."""
    for upload in (task.upload for task in old):
        if upload.idempotency_key is not None:
            to = upload.destination
            answer = service.client.put(to.instance, to.path, to.path[1:].encode(), mkdirs="true",
                                        headers={"Idempotency-Key": upload.idempotency_key})
            assert answer is not None
            assert (answer.status, answer.task_id) == (202, upload.task_id)


def test_service_goes_on_with_what_the_version_before_left(service: Service, old: list[Old]) -> None:
    """Tasks in every state, with and without keys, what people asked for, and what a dead worker was pushing."""
    service.start()
    check(service, old)
    assert sorted((event["shard"], event["version"]) for event in service.events("queue.upgraded")) == [
        (shard, version) for shard in range(SHARDS) for version in range(2, SCHEMA_VERSION + 1)]


@pytest.mark.parametrize(("fault", "left"), [
    ("queue.upgrade=kill", 1), ("queue.upgraded=kill", 2), (LAST_STEP, SCHEMA_VERSION), ("keys.remove=kill", SCHEMA_VERSION)])
def test_upgrade_that_is_killed_at_any_step_is_finished_by_the_next_start(
        service: Service, old: list[Old], fault: str, left: int) -> None:
    """Each shard is of one of the versions, whole, and the old keys are there as long as one shard needs them."""
    dead = [_begin_until_it_is_dead_or_serves(service, f"worker-{shard}", fault) for shard in range(SHARDS)]
    assert dead == ([False, True] if fault.startswith("keys.remove") else [True, True])
    assert versions(service.layout) == [left] * SHARDS
    assert service.layout.common_keys.exists()
    keep_running(service, lambda: is_ready(service))
    check(service, old)


def test_every_step_of_the_upgrade_is_tried() -> None:
    """A new step wants its row above."""
    assert failpoints.UPGRADE_STEPS == ("queue.upgrade", "queue.upgraded", "keys.remove")


def _begin_until_it_is_dead_or_serves(service: Service, name: str, faults: str) -> bool:
    """Start a worker; True when it died of its fault."""
    process = service.begin(name, faults)
    eventually(lambda: process.status() is not None
               or process.pid in {event["pid"] for event in service.events("worker.started")}, what=f"what {name} does")
    assert process.status() in {None, -signal.SIGKILL}
    return process.status() is not None


def test_upgrade_goes_on_where_one_shard_is_done_and_the_other_is_not(service: Service, old: list[Old]) -> None:
    """Until then the API takes nothing, says why, and keeps the upgrade from nothing."""
    _begin_until_it_is_dead_or_serves(service, "worker-0", LAST_STEP)
    assert versions(service.layout) == [SCHEMA_VERSION, 1]
    service.begin("api")
    eventually(lambda: service.events("api.waiting"), what="the waiting API")
    assert "shard 1 has version 1" in service.events("api.waiting")[0]["detail"]
    assert versions(service.layout) == [SCHEMA_VERSION, 1]
    keep_running(service, lambda: is_ready(service))
    check(service, old)


@pytest.mark.slow
def test_upgrade_waits_for_an_api_process_of_the_version_before(service: Service, old: list[Old]) -> None:
    """It says what it waits for, and touches nothing until that has ended."""
    lease = AppendLease(service.layout, SHARDS)
    assert lease.acquire() is None
    service.begin("worker-0")
    eventually(lambda: service.events("worker.waiting"), what="the waiting worker")
    assert "API process" in service.events("worker.waiting")[0]["reason"]
    assert versions(service.layout) == [1, 1]
    lease.release()
    service.start()
    check(service, old)


def test_upgrade_knows_that_a_database_is_up_to_date_by_its_log(service: Service, old: list[Old]) -> None:
    """What a killed worker was pushing is pushed again, though it had begun to call it a dead letter."""
    state, died = service.layout.directory, service.layout.directory.with_name("died")
    with closing(open_spool(service.layout)) as spool:
        for task in old:
            if task.state is State.PUSHING:
                spool.mark(task.upload, Mark.FAILED)
    with closing(sqlite3.connect(service.layout.database(0), isolation_level=None)) as first, closing(
            sqlite3.connect(service.layout.database(1), isolation_level=None)) as second:
        for shard, connection in enumerate((first, second)):
            connection.execute("UPDATE facts SET value = 'in the log' WHERE name = 'other'")
            service.layout.in_use(shard).touch()
        shutil.copytree(state, died)
    shutil.rmtree(state)
    died.rename(state)
    assert [service.layout.log(shard).exists() for shard in range(SHARDS)] == [True] * SHARDS
    service.start()
    check(service, old)


@pytest.mark.slow
def test_old_keys_that_cannot_be_removed_stop_nothing(service: Service, old: list[Old]) -> None:
    """The log says where they are, and the next start tries again."""
    for name in ("worker-0", "worker-1"):
        service.begin(name, "keys.remove=EACCES")
    service.start()
    eventually(lambda: service.events("keys.kept"), what="the note")
    assert service.events("keys.kept")[0]["path"] == str(service.layout.common_keys)
    service.stop()
    service.start()
    check(service, old)


@pytest.mark.slow
@pytest.mark.usefixtures("old")
def test_commands_leave_an_older_state_alone_and_say_what_to_do(service: Service) -> None:
    """To look at tasks, or to change them, the worker's upgrade has to come first."""
    task = service.layout.database(0).read_bytes()
    for words in (["status"], ["tasks", "list"], ["tasks", "retry", "--state", "failed"],
                  ["tasks", "retry", new_id()], ["fsck"]):
        done = incus_courier("--config", str(service.config), *words)
        assert done.code == EXIT_FAILED, words
        assert "shard 0 has version 1" in done.out + done.err, words
    assert versions(service.layout) == [1, 1]
    assert service.layout.database(0).read_bytes() == task


@pytest.mark.slow
def test_repair_upgrades_while_nobody_appends(service: Service, old: list[Old]) -> None:
    """With the service stopped, fsck --repair does it as a worker would; else it says who is in the way."""
    lease = AppendLease(service.layout, SHARDS)
    assert lease.acquire() is None
    done = incus_courier("--config", str(service.config), "fsck", "--repair")
    assert "an API process, or a command, still appends to it" in done.err
    assert versions(service.layout) == [1, 1]
    lease.release()
    assert incus_courier("--config", str(service.config), "fsck", "--repair").out.startswith("nothing wrong")
    assert versions(service.layout) == [SCHEMA_VERSION] * SHARDS
    service.start()
    check(service, old)


@pytest.mark.slow
def test_shard_of_the_version_before_that_is_damaged_is_set_aside_and_made_anew(service: Service, old: list[Old]) -> None:
    """The other is upgraded all the same; an upload that is still to be delivered keeps its key."""
    database = service.layout.database(1)
    content = bytearray(database.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    database.write_bytes(content)
    keep_running(service, lambda: is_ready(service))
    assert [event["shard"] for event in service.events("queue.set_aside")] == [1]
    assert versions(service.layout) == [SCHEMA_VERSION] * SHARDS
    check_keys(service, [task for task in old if task.state is State.QUEUED])


@pytest.mark.slow
def test_upgrade_and_another_number_of_shards_come_at_the_same_restart(service: Service, old: list[Old]) -> None:
    """Every task and every key goes along."""
    service.shards = 3
    service.settings["queue"]["shards"] = 3
    service.write_config()
    keep_running(service, lambda: is_ready(service))
    assert [(event["old"], event["new"]) for event in service.events("queue.resharded")] == [(SHARDS, 3)]
    check(service, old)


@pytest.mark.parametrize("name", ["api", "worker-0"])
def test_state_of_a_newer_version_ends_a_process_for_good(service: Service, name: str) -> None:
    """78 tells the service manager that no restart helps; the state is left as it is."""
    service.start()
    service.stop()
    with SqliteDoctor(service.layout, 0) as queue:
        queue.durable.execute("PRAGMA user_version = 99")
    process = service.begin(name)
    eventually(lambda: process.status() is not None, what="the end of the process")
    assert process.status() == os.EX_CONFIG
    assert "The database of shard 0 has version 99" in service.log.read_text()
    assert version_on_disk(service.layout, 0) == 99
    assert os.listdir(service.layout.lost_found) == []
