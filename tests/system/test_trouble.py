"""What the installed service goes through: kills, hangs, restarts, a reboot, a full disk. Every 202 is delivered."""

import random
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.live.host import Container
from tests.support import node_clients
from tests.support.bodies import digest, pieces
from tests.support.cut_line import CutLine
from tests.support.waiting import eventually
from tests.system.load import Load
from tests.system.machine import CONFIG, PATIENCE_S, Connection, Machine, ask

pytestmark = [pytest.mark.system, pytest.mark.live, pytest.mark.timeout(600)]

API = "incus-courier-api.service"
WORKERS = ("incus-courier-worker@0.service", "incus-courier-worker@1.service")
TARGET = "incus-courier.target"
#: To stop the service and wait until all of it has ended.
EVERYTHING = "incus-courier*"
DOOR_UNIT = "incus-courier-api.socket"
STATE = "/var/lib/incus-courier"


@pytest.mark.full
def test_uploads_survive_kills_of_everything_at_random(machine: Machine, load: Load) -> None:
    """Any process may be killed at any time, while uploads come in: what got its 202 is delivered whole."""
    chosen = random.Random(8420)
    with load.running():
        for _ in range(12):
            load.wait_for(15)
            machine.systemctl("kill", "-s", "KILL", chosen.choice((API, *WORKERS)))
    machine.wait_active(API, *WORKERS)
    load.wait_delivered()


def test_no_upload_is_refused_while_the_api_restarts(machine: Machine, load: Load) -> None:
    """Connections wait in the kernel while the API, or the whole service, is started again."""
    with load.running():
        for unit in (API, API, API, TARGET):
            load.wait_for(30)
            machine.systemctl("restart", unit)
        load.wait_for(30)
    assert not load.refused
    load.wait_delivered()


def test_socket_starts_the_api(machine: Machine, load: Load) -> None:
    """An API that was stopped is started by the next upload."""
    machine.systemctl("stop", API)
    assert not machine.active(API)
    load.upload()
    assert not load.refused
    load.wait_delivered()


def _runs_anew(machine: Machine, unit: str, invocation: str) -> bool:
    """True when the unit was started again since that invocation of it."""
    return machine.show(unit, "InvocationID") != invocation and machine.active(unit)


@pytest.mark.full
def test_work_goes_on_when_workers_hang(machine: Machine, load: Load) -> None:
    """A worker that does not turn any more is ended by the watchdog, and its successor delivers."""
    machine.write("/run/systemd/system/incus-courier-worker@.service.d/test.conf", "[Service]\nWatchdogSec=2s\n")
    machine.systemctl("daemon-reload")
    machine.systemctl("restart", *WORKERS)
    hung = [machine.show(worker, "InvocationID") for worker in WORKERS]
    machine.systemctl("kill", "-s", "STOP", *WORKERS)
    load.many(10)
    load.wait_delivered()
    for worker, invocation in zip(WORKERS, hung, strict=True):
        eventually(partial(machine.said, "Watchdog timeout", "_PID=1", f"UNIT={worker}"), PATIENCE_S)
        eventually(partial(_runs_anew, machine, worker, invocation), PATIENCE_S)
    machine.run("rm", "-r", "/run/systemd/system/incus-courier-worker@.service.d")
    machine.systemctl("daemon-reload")
    machine.systemctl("restart", *WORKERS)


def test_hung_journal_blocks_no_upload_and_loses_no_event(machine: Machine, load: Load) -> None:
    """While journald hangs, uploads are taken and delivered; their events are in the journal afterwards."""
    machine.systemctl("kill", "-s", "STOP", "systemd-journald.service")
    try:
        load.many(400)
        load.wait_delivered()
    finally:
        machine.systemctl("kill", "-s", "CONT", "systemd-journald.service")
    assert not load.refused

    def delivered() -> set[str]:
        return {entry["INCUS_TASK_ID"] for entry in machine.journal("INCUS_EVENT=push.delivered")}

    eventually(lambda: set(load.promised.values()) <= delivered(), PATIENCE_S, "all events are in the journal")


@pytest.mark.full
def test_wrong_configuration_ends_the_service_without_a_loop(machine: Machine, load: Load) -> None:
    """Exit status 78 is final: nothing is started again, the door closes, and mending it is one restart."""
    machine.configure(processes=-1)
    machine.systemctl("kill", "-s", "KILL", API, *WORKERS)
    machine.incus("exec", machine.name, "--", "systemctl", "restart", TARGET, check=False)
    units = (API, *WORKERS)
    for unit in units:
        machine.wait_show(unit, "ActiveState", "failed")
        assert machine.show(unit, "ExecMainStatus") == "78"
    load.upload()
    assert load.refused
    machine.wait_show(DOOR_UNIT, "ActiveState", "inactive")
    load.upload()
    starts = [machine.show(unit, "InvocationID") for unit in units]
    machine.run("systemctl", "daemon-reload")
    assert [machine.show(unit, "InvocationID") for unit in units] == starts
    machine.run("cp", "/root/config.toml", CONFIG)
    machine.systemctl("restart", TARGET)
    machine.wait_active(*units)
    load.refused.clear()
    load.upload()
    assert not load.refused
    load.wait_delivered()


@pytest.mark.full
def test_missing_state_directory_ends_the_service_with_the_way_out(machine: Machine, load: Load) -> None:
    """Nothing is started over and over; the message names the command that makes the directory, and that is enough."""
    machine.systemctl("stop", EVERYTHING)
    machine.run("mv", STATE, f"{STATE}.kept")
    machine.systemctl("start", TARGET)
    for unit in (API, *WORKERS):
        machine.wait_show(unit, "ActiveState", "failed")
        assert machine.show(unit, "ExecMainStatus") == "78"
    # The journal may be behind with what a process said that has ended.
    eventually(lambda: machine.said("systemd-tmpfiles --create incus-courier.conf", "-u", API), PATIENCE_S)
    machine.run("systemd-tmpfiles", "--create", "incus-courier.conf")
    machine.systemctl("restart", TARGET)
    machine.wait_active(API, *WORKERS)
    load.upload()
    assert not load.refused
    load.wait_delivered()
    machine.systemctl("stop", EVERYTHING)
    machine.run("sh", "-c", f"rm -r {STATE} && mv {STATE}.kept {STATE}")
    machine.systemctl("start", TARGET)


@pytest.mark.full
@pytest.mark.parametrize("often", [1, 4])
def test_number_of_workers_follows_the_number_of_shards(machine: Machine, load: Load, often: int) -> None:
    """A restart of the target starts as many workers as there are shards, and stops those too many, however often."""
    third = "incus-courier-worker@2.service"
    with load.running(threads=1):
        for shards in (3, 2) * often:
            machine.configure(shards=shards)
            machine.systemctl("restart", TARGET)
            machine.wait_active(API, *WORKERS)
            machine.wait_show(third, "ActiveState", "active" if shards == 3 else "inactive")
            load.wait_for(3)
    assert not load.refused
    load.wait_delivered()


@pytest.fixture
def small_disk(machine: Machine) -> Iterator[Machine]:
    """The machine with a state directory of 64 MiB."""
    machine.systemctl("stop", EVERYTHING)
    machine.run("mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=20k", "tmpfs", STATE)
    machine.run("systemd-tmpfiles", "--create", "incus-courier.conf")
    machine.systemctl("start", TARGET)
    machine.wait_active(API, *WORKERS)
    yield machine
    machine.systemctl("stop", EVERYTHING)
    machine.run("umount", STATE)
    machine.systemctl("start", TARGET)


def test_uploads_go_on_after_the_disk_was_full(small_disk: Machine, stopped_instance: Container) -> None:
    """On a full disk uploads are refused, what was accepted is delivered, and then there is room again."""
    load = Load(small_disk, stopped_instance)
    for size in (2**20, 2**17, 2**12):
        load.refused.clear()
        while not load.refused:
            load.upload(size=size)
        assert set(load.refused) == {"507 no_room"}
    accepted = len(load.promised)
    assert accepted > 10
    stopped_instance.start()
    load.wait_delivered()

    def accepted_again() -> bool:
        load.upload(size=2**20)
        return len(load.promised) > accepted

    eventually(accepted_again, PATIENCE_S, "room for uploads again")
    load.wait_delivered()


@pytest.mark.full
def test_upload_of_a_gigabyte_goes_on_after_a_reboot(machine: Machine, stopped_instance: Container, tmp_path: Path) -> None:
    """By tus-js-client as it is: nothing that was answered is sent again."""
    node_clients.install()
    source = tmp_path / "file"
    with source.open("wb") as file:
        file.writelines(pieces(1, 2**30))

    def reach() -> socket.socket:
        # While it boots it has no door.
        connection = Connection(machine.door)
        connection.connect()
        return connection.sock

    with CutLine(reach) as line, node_clients.running({
        "endpoint": f"http://127.0.0.1:{line.port}/v1/tus/", "source": str(source), "options": {"chunkSize": 2**24},
        "metadata": node_clients.metadata(stopped_instance.name, "/root/large"), "retryDelays": [1000] * 90}) as process:
        eventually(lambda: len(line.parts) > 20, PATIENCE_S, "a third of it")
        machine.reboot(force=True)
        machine.wait_active(API, *WORKERS)
        out, err = process.communicate(timeout=3 * PATIENCE_S)
    assert '"taskId"' in out, (out, err)
    status, tasks = ask(machine.door, "GET", f"/v1/tasks?instance={stopped_instance.name}")
    assert (status, [task["sha256"] for task in tasks["tasks"]]) == (200, [digest(1, 2**30)])
    assert [part.offset for part in line.parts] == [part.told for part in line.parts]
    assert line.sent_again_bytes() <= 2**24


@pytest.mark.parametrize("force", [pytest.param(False, marks=pytest.mark.full), True])
def test_uploads_survive_a_reboot(machine: Machine, stopped_instance: Container, force: bool) -> None:
    """The machine is started anew with uploads pending: all comes back by itself, and they are delivered."""
    load = Load(machine, stopped_instance)
    load.many(50)
    assert not load.refused
    machine.reboot(force=force)
    machine.wait_active(API, *WORKERS)
    status, tasks = ask(machine.door, "GET", f"/v1/tasks?instance={stopped_instance.name}&limit=1000")
    assert status == 200
    assert {task["id"] for task in tasks["tasks"]} == set(load.promised.values())
    stopped_instance.start()
    load.wait_delivered()
