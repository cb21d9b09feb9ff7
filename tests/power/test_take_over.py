"""A host is lost at any moment, and another one begins with what was on its disk: nothing acknowledged is missing."""

import random
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.model.task import State
from tests.power.disks import XFS_TOOLS
from tests.power.load import Load, Sent
from tests.power.two_hosts import FILESYSTEMS, Host, TwoHosts
from tests.support.bodies import body
from tests.support.packages import provide
from tests.support.waiting import eventually

pytestmark = [pytest.mark.power, pytest.mark.full]

#: The host stands still at most so long after the first uploads were acknowledged.
_LONGEST_S = 1.5
_TAKEN_OVER = 6
#: A control run must lose something in one of so many.
_CONTROLS = 10
#: Longer than what was written through counts.
_ASLEEP_S = 3.0


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    provide(XFS_TOOLS)


def lose_host(hosts: TwoHosts, load: Load, chance: random.Random, check: Callable[[Host], object], faults: str = "") -> None:
    """Upload to the old host until it stands still at a random moment; have another take over, and look at that one.

    Then the device of the old host is gone, and the old host wakes. Clients that waited are told something by then.
    """
    hosts.old.service.start(faults)
    with load.running(hosts.old, chance):
        try:
            eventually(lambda: load.acknowledged)
            threading.Event().wait(chance.uniform(0, _LONGEST_S))
            load.stop()
            hosts.old.freeze()
            check(hosts.take_over())
            hosts.old.disk.lose()
            before = hosts.delivered()
            hosts.old.thaw()
            eventually(lambda: is_troubled(hosts.old))
            threading.Event().wait(_ASLEEP_S)
            assert hosts.delivered() == before
        finally:
            hosts.old.service.kill()


def is_troubled(host: Host) -> bool:
    """True when a worker has found out that it cannot go on."""
    return bool(host.service.events("worker.waiting")) or any(
        process.status() is not None for process in host.service.processes.values())


def upload_again(load: Load, host: Host) -> list[tuple[str, str]]:
    """Send something newer to each path that was sent to several times; return where."""
    places = [place for place in list(load.sent) if place[1].endswith("/again")]
    for place in places:
        answer = host.service.client.put(*place, body(1, 100))
        assert answer is not None
        assert answer.status == 202
    return places


@pytest.mark.parametrize("number", range(_TAKEN_OVER))
@pytest.mark.parametrize("kind", FILESYSTEMS)
def test_every_acknowledged_upload_is_delivered_by_the_host_that_takes_over(
    kind: str, number: int, tmp_path: Path,
) -> None:
    """Whole, never older bytes over newer, also when the old host wakes once it has lost its disk."""
    load = Load()
    newer: list[tuple[str, str]] = []

    def check(new: Host) -> None:
        newer.extend(upload_again(load, new))
        new.service.wait_quiet()
        assert [task for task in new.service.tasks() if task.state is State.FAILED] == []
        assert new.service.mistakes() == []

    with TwoHosts(tmp_path, kind) as hosts:
        lose_host(hosts, load, random.Random(number), check)
        assert hosts.new is not None
        for sent in load.sent.values():
            # What the old host refused after it woke may have been whole on its disk before.
            sent[:] = [replace(each, refused=False) for each in sent]
        for place in newer:
            load.sent[place].append(Sent(1, 100, acknowledged=True, refused=False))
        assert load.losses(hosts.new) == []


@pytest.mark.parametrize("kind", FILESYSTEMS)
def test_uploads_are_lost_with_the_host_when_the_syncs_are_left_out(kind: str, tmp_path: Path) -> None:
    """The control: without the syncs before the answer, this test sees losses."""
    for number in range(_CONTROLS):
        load = Load()
        (tmp_path / str(number)).mkdir()
        with TwoHosts(tmp_path / str(number), kind) as hosts:
            lose_host(hosts, load, random.Random(number), lambda new: eventually(new.service.idle),
                      "spool.sync=skip spool.linksync=skip spool.dirsync=skip")
            assert hosts.new is not None
            if load.losses(hosts.new):
                return
    pytest.fail("nothing was lost: the test is blind")


# --- the host that wakes -----------------------------------------------------------------------------------


def wakes_in_a_push(hosts: TwoHosts, lose: Callable[[Host], None], faults: str = "") -> bytes | None:
    """What is in an instance after the old host stood still in a push, and goes on when it has lost its state.

    Another one has delivered something newer to the path meanwhile, and has removed what the old one left there. So the
    old one stands still before it begins to write.
    """
    old = hosts.old
    old.service.start(f"push.write=stop@2 {faults}")
    assert old.service.client.put("c1", "/before", b"x")
    eventually(lambda: old.service.delivered("c1", "/before"))
    assert old.service.client.put("c1", "/a", b"older")
    eventually(lambda: any(stands_still(process.pid) for process in old.service.processes.values()))
    old.freeze()
    new = hosts.take_over()
    new.service.wait_quiet()
    assert new.service.client.put("c1", "/a", b"newer")
    new.service.wait_quiet()
    threading.Event().wait(_ASLEEP_S)
    lose(old)
    old.thaw()
    eventually(lambda: is_troubled(old) or new.service.delivered("c1", "/a") == b"older")
    # What was written has got its name by then, or was removed.
    threading.Event().wait(_ASLEEP_S)
    return new.service.delivered("c1", "/a")


def stands_still(pid: int) -> bool:
    """True when a process was stopped."""
    return "State:\tT" in Path(f"/proc/{pid}/status").read_text()


def lose_device(host: Host) -> None:
    """The storage keeps the old host out."""
    host.disk.lose()


def unmount(host: Host) -> None:
    """Its directory is another one, while what it has open stays."""
    host.disk.detach()


@pytest.mark.parametrize("lose", [lose_device, unmount])
@pytest.mark.parametrize("kind", FILESYSTEMS)
def test_host_that_wakes_in_a_push_leaves_what_is_newer(
    kind: str, lose: Callable[[Host], None], tmp_path: Path,
) -> None:
    """It looks once more before what it wrote gets its name, and finds its state gone."""
    with TwoHosts(tmp_path, kind) as hosts:
        assert wakes_in_a_push(hosts, lose) == b"newer"


def test_host_that_wakes_and_does_not_look_puts_older_bytes_in_place(tmp_path: Path) -> None:
    """The control: nothing but the look keeps it from that, where it can still read what it had begun with."""
    with TwoHosts(tmp_path, "ext4") as hosts:
        assert wakes_in_a_push(hosts, unmount, "fence.check=skip") == b"older"
