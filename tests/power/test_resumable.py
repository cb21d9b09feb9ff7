"""The power is cut while resumable uploads come; every byte that was told is there afterwards, and each becomes one task."""

import asyncio
import os
import random
import signal
import threading
from pathlib import Path

import pytest

from daemon.errors import CourierError
from daemon.state.layout import Layout
from tests.power.disks import EXT4, EXT4_WITHOUT_JOURNAL, Disk, Filesystem, snapshot
from tests.support.resumables import Sender, Told, finish, kit
from tests.support.waiting import eventually

pytestmark = pytest.mark.power

_DISK_BYTES = 96 * 2**20
_UPLOADS = 48
_LARGEST_BYTES = 2 * 2**20
#: The cut comes at most so long after the first bytes were told.
_LONGEST_S = 0.8
#: A control run must lose something in one of so many cuts.
_CONTROL_CUTS = 20


def cut_power(disk: Disk, directory: Path, chance: random.Random, faults: str = "") -> dict[str, Told]:
    """Send to a state on a disk that loses its power at a random moment; return what was told before."""
    sizes = [chance.choice([1, chance.randint(1, 5000), chance.randint(1, _LARGEST_BYTES)]) for _ in range(_UPLOADS)]
    sender = Sender(directory, [chance.randrange(2**32) for _ in sizes], sizes, faults)
    eventually(lambda: any(one.progress.offset for one in sender.told().values()) or sender.process.exitcode is not None)
    threading.Event().wait(chance.uniform(0, _LONGEST_S))
    sender.send(signal.SIGSTOP)
    told = sender.told()
    [copy] = snapshot([disk])
    sender.send(signal.SIGKILL)
    sender.process.join()
    eventually(disk.unmount)
    copy.replace(disk.file)
    return told


async def go_on(layout: Layout, told: dict[str, Told]) -> None:
    """Finish all of them, and find one task for each."""
    async with kit(layout) as made:
        done = [await finish(made, one) for one in told.values()]
        assert len({progress.task_id for progress in done}) == len(told)


def new_state(directory: Path, filesystem: Filesystem = EXT4) -> tuple[Disk, Path]:
    """A disk with an empty state."""
    disk = Disk(directory / "state.disk", directory / "state", _DISK_BYTES, filesystem)
    disk.mount()
    state = disk.mountpoint / "courier"
    Layout(state).create()
    os.sync()
    return disk, state


def test_every_told_byte_is_there_when_the_power_was_cut(resumable_cut: int, tmp_path: Path) -> None:
    """What is sent again is what was not told, and what was complete has its task."""
    disk, state = new_state(tmp_path)
    try:
        told = cut_power(disk, state, random.Random(resumable_cut))
        disk.mount()
        asyncio.run(go_on(Layout(state), told))
    finally:
        eventually(disk.unmount)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(10))
def test_every_complete_upload_is_there_when_there_is_no_journal(seed: int, tmp_path: Path) -> None:
    """One that was just moving into the spool may have two names then, and be set aside: it had not been told as complete."""
    disk, state = new_state(tmp_path, EXT4_WITHOUT_JOURNAL)
    try:
        told = cut_power(disk, state, random.Random(seed))
        disk.mount()
        asyncio.run(go_on(Layout(state), {upload_id: one for upload_id, one in told.items() if one.progress.complete}))
    finally:
        eventually(disk.unmount)


@pytest.mark.full
def test_told_bytes_are_lost_when_the_syncs_are_left_out(tmp_path: Path) -> None:
    """The control: without the sync before the offset is told, this test sees losses."""
    for attempt in range(_CONTROL_CUTS):
        (tmp_path / str(attempt)).mkdir()
        disk, state = new_state(tmp_path / str(attempt))
        try:
            told = cut_power(disk, state, random.Random(attempt), "partials.sync=skip spool.sync=skip")
            disk.mount()
            asyncio.run(go_on(Layout(state), told))
        except (AssertionError, CourierError):
            return
        finally:
            eventually(disk.unmount)
    pytest.fail("nothing was lost: the test is blind")
