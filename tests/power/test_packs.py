"""The power is cut while small uploads are accepted in batches, so that they share files of the spool."""

import itertools
import json
import os
import random
import select
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from api.uploads.group_commit import CommitResult, GroupCommit
from daemon import failpoints
from daemon.model.task import State
from daemon.model.upload import Upload
from daemon.spool import Incoming
from daemon.spool.store import FileSpool
from daemon.state.layout import Layout
from tests.integration.recovery.world import World
from tests.power.disks import EXT4, EXT4_WITHOUT_JOURNAL, Disk, Filesystem, snapshot
from tests.support.depot import an_upload

pytestmark = pytest.mark.power

_DISK_BYTES = 64 * 2**20
#: So many bytes are uploaded at most: the disk is never full.
_MOST_BYTES = 24 * 2**20
#: The cut comes so long after the first uploads were acknowledged, at most.
_LONGEST_S = 0.5
#: Sizes of uploads; the last one has a file of its own.
_SIZES = (0, 100, 1000, 4000, 16_000, 40_000)
#: Most uploads of one batch.
_MOST = 40
#: A control run must lose something in one of so many cuts.
_CONTROL_CUTS = 20


def accept_until_killed(layout: Layout, seed: int, told: int) -> None:
    """Accept batches of uploads, each to a path of its own, and tell through a pipe which are acknowledged."""
    chance, spool, left = random.Random(seed), FileSpool(layout), _MOST_BYTES

    def prepare(upload: Upload, body: bytes) -> tuple[Incoming, Upload]:
        incoming = spool.begin()
        incoming.write(body)
        return incoming, upload

    commits, numbers = GroupCommit(layout, 0, spool, supersede=lambda: True), itertools.count()
    while left > 0:
        bodies = [chance.randbytes(chance.choice(_SIZES)) for _ in range(chance.randint(1, _MOST))]
        batch = [an_upload(f"/{next(numbers)}", body, instance=f"c{chance.randrange(9)}") for body in bodies]
        answers = commits.commit([partial(prepare, *one) for one in zip(batch, bodies, strict=True)])
        assert all(isinstance(answer, CommitResult) for answer in answers)
        os.write(told, b"".join(json.dumps(upload.task_id).encode() + b"\n" for upload in batch))
        left -= sum(map(len, bodies))
    threading.Event().wait()


def begin(child: Callable[[int], None]) -> tuple[int, int]:
    """Run something in a process of its own; return its id, and where to read what it tells."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            child(theirs)
        finally:
            os._exit(1)
    os.close(theirs)
    return pid, ours


def layout_on(disk: Disk) -> Layout:
    """The state on a disk, whose own lost+found is none of it."""
    return Layout(disk.mountpoint / "courier")


def acknowledged_until_cut(directory: Path, seed: int, faults: str, filesystem: Filesystem) -> tuple[set[str], Disk]:
    """Accept uploads, and cut the power at a random moment; return what had been acknowledged, and the disk."""
    disk = Disk(directory / "state.disk", directory / "state", _DISK_BYTES, filesystem)
    disk.mount()
    layout = layout_on(disk)
    layout.create()
    os.sync()

    def child(told: int) -> None:
        failpoints.arm(faults)
        accept_until_killed(layout, seed, told)

    pid, told = begin(child)
    assert select.select([told], [], [], 30)[0]
    threading.Event().wait(random.Random(seed).uniform(0, _LONGEST_S))
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    [copy] = snapshot([disk])
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with os.fdopen(told, "rb") as pipe:
        # The last line may be cut off: nobody had read it.
        ids = {json.loads(line) for line in pipe.read().splitlines(keepends=True) if line.endswith(b"\n")}
    assert disk.unmount()
    copy.replace(disk.file)
    disk.mount()
    return ids, disk


def lost(directory: Path, seed: int, faults: str = "", filesystem: Filesystem = EXT4) -> set[str]:
    """Cut the power while uploads come; return which were acknowledged and are not there, whole, after recovery."""
    acknowledged, disk = acknowledged_until_cut(directory, seed, faults, filesystem)
    world = World(layout_on(disk).directory)
    try:
        found = set(world.compare(thorough=True))
        whole = {task.task_id for task in world.queue.page(limit=100_000)
                 if task.state is State.QUEUED and is_whole(world, task.upload)}
        if not faults:
            assert found <= {"row_missing"}
            assert world.compare(thorough=True) == world.lost_found() == []
            assert {path.name for path in world.layout.spool.rglob("*") if path.is_file()} == whole
            assert any(path.stat().st_nlink > 1 for path in world.layout.spool.rglob("*") if path.is_file())
        return acknowledged - whole
    finally:
        world.close()
        assert disk.unmount()
        disk.file.unlink()


def is_whole(world: World, upload: Upload) -> bool:
    """True when an upload has exactly the bytes that came."""
    with world.spool.open(upload) as source:
        return an_upload(data=source.read(upload.size)).sha256 == upload.sha256


def test_every_acknowledged_upload_of_a_pack_is_there_when_the_power_was_cut(pack_cut: int, tmp_path: Path) -> None:
    """Whole, with its row; and of the others each is whole or not at all, whatever became of its neighbours."""
    assert lost(tmp_path, pack_cut) == set()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.full) for seed in range(1, 10))])
def test_every_acknowledged_upload_is_there_when_there_is_no_journal(seed: int, tmp_path: Path) -> None:
    """Nothing but the syncs keeps a file and its names together, and the check of the disk clears what does not agree."""
    assert lost(tmp_path, seed, filesystem=EXT4_WITHOUT_JOURNAL) == set()


@pytest.mark.full
@pytest.mark.parametrize(("left_out", "filesystem"), [
    ("spool.sync=skip spool.linksync=skip", EXT4), ("spool.linksync=skip", EXT4_WITHOUT_JOURNAL)])
def test_uploads_of_packs_are_lost_when_a_sync_is_left_out(left_out: str, filesystem: Filesystem, tmp_path: Path) -> None:
    """The control: with names that are durable, and bytes or inodes that are not, this test sees losses."""
    for attempt in range(_CONTROL_CUTS):
        (tmp_path / str(attempt)).mkdir()
        if lost(tmp_path / str(attempt), attempt, left_out, filesystem):
            return
    pytest.fail("nothing was lost: the test is blind")
