"""The power is cut at any moment, under load; every acknowledged upload is there afterwards."""

import random
import threading
from pathlib import Path

import pytest

from daemon.model.task import State
from tests.live.host import Host
from tests.power.disks import EXT4_WITHOUT_JOURNAL
from tests.power.load import Load
from tests.power.machine import IncusMachine, Machine
from tests.support.follower import Follower
from tests.support.hooked import keeps_ids, outcomes, told
from tests.support.receiver import Receiver
from tests.support.waiting import eventually

pytestmark = pytest.mark.power

#: The cut comes at most so long after the first uploads were acknowledged.
_LONGEST_S = 1.5
#: Of so many cuts one is of a machine that tells a webhook.
_HOOK_EVERY = 3
#: A control run must lose something in one of so many cuts; whoever else syncs this machine may hide it in some.
_CONTROL_CUTS = 20


def run_until_cut(machine: Machine, load: Load, chance: random.Random) -> None:
    """Upload to a booted machine, and cut its power at a random moment."""
    with load.running(machine, chance):
        eventually(lambda: load.acknowledged)
        threading.Event().wait(chance.uniform(0, _LONGEST_S))
        load.stop()
        machine.cut()


def lose_power(machine: Machine, chance: random.Random) -> None:
    """Cut the power under load, perhaps once more during the recovery, and check all that was promised.

    Somebody follows what happens, and goes on with the last id that he had before the cut.
    """
    load = Load()
    with Follower(machine.service.address) as follower:
        machine.boot()
        eventually(lambda: follower.last_id)
        run_until_cut(machine, load, chance)
        machine.boot()
        if chance.random() < 0.5:
            threading.Event().wait(chance.uniform(0, _LONGEST_S / 3))
            machine.cut()
            machine.boot()
        machine.service.wait_quiet()
        follower.check({task.task_id: task.state.label for task in machine.service.tasks()})
    assert load.losses(machine) == []
    assert [task for task in machine.service.tasks() if task.state is State.FAILED] == []
    assert machine.service.spooled() == []
    assert machine.service.mistakes() == []


def test_every_acknowledged_upload_is_delivered_when_the_power_was_cut(cut: int, tmp_path: Path) -> None:
    """Whole, and never older bytes over newer; and where a webhook is told, it is told each outcome, under one id."""
    with Receiver() as receiver, Machine(tmp_path, hook="" if cut % _HOOK_EVERY else receiver.url) as machine:
        lose_power(machine, random.Random(cut))
        if cut % _HOOK_EVERY == 0:
            eventually(lambda: outcomes(machine.service) <= told(receiver))
            assert keeps_ids(receiver)


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.full) for seed in range(2, 10))])
def test_every_acknowledged_upload_is_delivered_when_there_is_no_journal(seed: int, tmp_path: Path) -> None:
    """What the check of the disk leaves of the state is enough."""
    with Machine(tmp_path, filesystem=EXT4_WITHOUT_JOURNAL) as machine:
        lose_power(machine, random.Random(seed))


@pytest.mark.live
def test_every_acknowledged_upload_is_in_the_container_when_the_power_was_cut(
    incus_cut: int, tmp_path: Path, incus: Host,
) -> None:
    """Written by a real Incus, whose own process loses its power too."""
    with incus.container(running=False) as container, IncusMachine(tmp_path, container) as machine:
        lose_power(machine, random.Random(incus_cut))


@pytest.mark.parametrize("left_out", ["spool.sync=skip spool.linksync=skip spool.dirsync=skip", "barrier.sync=skip"])
def test_uploads_are_lost_when_the_syncs_are_left_out(left_out: str, tmp_path: Path) -> None:
    """The control: without the syncs before the answer, or the one before the spooled bytes go, this test sees losses."""
    for attempt in range(_CONTROL_CUTS):
        load = Load()
        (tmp_path / str(attempt)).mkdir()
        with Machine(tmp_path / str(attempt)) as machine:
            machine.boot(left_out)
            run_until_cut(machine, load, random.Random(attempt))
            machine.boot()
            eventually(machine.service.idle)
            if load.losses(machine):
                return
    pytest.fail("nothing was lost: the test is blind")


def comes_as_the_same(directory: Path, faults: str) -> bool:
    """Cut the power when a message has come and its result is not kept; True when it comes again under its id."""
    with Receiver() as receiver, Machine(directory, hook=receiver.url) as machine:
        machine.boot(f"outbox.settle=hang {faults}")
        machine.service.client.put(*machine.place(0, "a"), b"hello")
        eventually(lambda: receiver.received)
        machine.cut()
        machine.boot()
        eventually(lambda: len(receiver.received) > 1)
        return keeps_ids(receiver)


@pytest.mark.full
def test_message_comes_again_as_the_same_when_the_power_was_cut(tmp_path: Path) -> None:
    """It is on the disk before it is sent."""
    assert comes_as_the_same(tmp_path, "")


@pytest.mark.full
def test_message_comes_again_as_another_when_its_sync_is_left_out(tmp_path: Path) -> None:
    """The control: without the sync before a message is sent, it gets another id after the cut."""
    for attempt in range(_CONTROL_CUTS):
        (tmp_path / str(attempt)).mkdir()
        if not comes_as_the_same(tmp_path / str(attempt), "outbox.sync=skip"):
            return
    pytest.fail("nothing was lost: the test is blind")
