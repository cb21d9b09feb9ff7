"""A disk, or a quota, that is really full: uploads are refused, and what was accepted is delivered all the same."""

import contextlib
import errno
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daemon.state.reserve import INODES, Reserve
from tests.power.disks import BTRFS, Disk, ext4_with_inodes, run
from tests.support.client import Answer
from tests.support.command import incus_courier
from tests.support.processes import Forked
from tests.support.service import Service
from tests.support.waiting import eventually

pytestmark = pytest.mark.power

#: Nothing is turned away for its announced size: the disk itself is to say that it is full.
SETTINGS = {"limits": {"min_free_bytes": 0, "reserve_bytes": 2 * 2**20}}
FILLER = "filler"
_ROOM_BYTES = 64 * 2**20
#: What the queue writes for so many is many times the reserve.
MANY = 2000


def small_disk(file: Path, mountpoint: Path) -> Disk:
    """A disk that fills up."""
    disk = Disk(file, mountpoint, _ROOM_BYTES)
    disk.mount()
    return disk


def small_quota(file: Path, mountpoint: Path) -> Disk:
    """A disk with room to spare, and a quota that fills up: the system says EDQUOT, and SQLite an I/O error."""
    disk = Disk(file, mountpoint, 4 * _ROOM_BYTES, BTRFS)
    disk.mount()
    disk.limit(_ROOM_BYTES)
    return disk


def few_inodes(file: Path, mountpoint: Path) -> Disk:
    """A disk with room to spare, but not for many files."""
    disk = Disk(file, mountpoint, _ROOM_BYTES, ext4_with_inodes(1024))
    disk.mount()
    return disk


@pytest.fixture(params=[small_disk, small_quota])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """A service whose state, without the instances, has a small disk or quota of its own; not started yet."""
    yield from on_disk(request.param, tmp_path)


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Service]:
    """A service whose state has a disk of its own that takes few files; not started yet."""
    yield from on_disk(few_inodes, tmp_path)


def on_disk(make: Callable[[Path, Path], Disk], tmp_path: Path) -> Iterator[Service]:
    """A service whose state, without the instances, has a disk of its own."""
    with Service(tmp_path, SETTINGS) as made:
        disk = make(tmp_path / "disk", made.layout.directory)
        try:
            (tmp_path / "instances").mkdir()
            made.layout.instances.symlink_to(tmp_path / "instances")
            yield made
        finally:
            made.kill()
            eventually(disk.unmount)
            disk.file.unlink()


def fill(service: Service) -> None:
    """Leave no byte free, as some other program may.

    btrfs sets aside more than a write needs until it is done, and who comes last finds a quota full that is not. So it
    is full when nothing more fits once all is written.
    """
    descriptor = os.open(service.layout.directory / FILLER, os.O_CREAT | os.O_WRONLY)
    try:
        while _filled(descriptor):
            run("sync", "--file-system", str(service.layout.directory))
    finally:
        os.close(descriptor)


def _filled(descriptor: int) -> bool:
    """Take all that there is; True when that was anything."""
    grown = False
    for piece in (2**20, 4096):
        while _grow(descriptor, piece):
            grown = True
    return grown


def _grow(descriptor: int, piece: int) -> bool:
    try:
        os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, piece)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        return False
    return True


def crowd(service: Service) -> None:
    """Leave no inode free, as many small files may."""
    directory = service.layout.directory / FILLER
    directory.mkdir()
    while os.statvfs(directory).f_favail:
        (directory / str(os.statvfs(directory).f_favail)).touch()


def reserved(service: Service) -> bool:
    """True when the worker has set its room aside."""
    return Reserve(service.layout, 0, SETTINGS["limits"]["reserve_bytes"]).whole


def make_room(service: Service) -> None:
    """Remove what filled the disk, and see that uploads are taken again as soon as that is noticed."""
    (service.layout.directory / FILLER).unlink()
    eventually(lambda: put(service, "/again", b"x").status == 202)


def put(service: Service, path: str, data: bytes) -> Answer:
    """Upload, once more if the API had to be started again, and return the answer."""
    answer = eventually(lambda: revive(service) and service.client.put("c1", path, data))
    assert answer
    return answer


def revive(service: Service) -> bool:
    """Start again what the kernel ended, as a service manager does; True when nothing had to be.

    btrfs, and where blocks are smaller than a page any filesystem, has no other way to tell who writes to a mapped file, as
    SQLite's index of its log is, that there is no room.
    """
    dead = {name: status for name, process in service.processes.items() if (status := process.status()) is not None}
    assert set(dead.values()) <= {-signal.SIGBUS}, f"{dead}:\n{service.log_end()}"
    for name in dead:
        service.begin(name)
    return not dead


def upload(service: Service, count: int) -> None:
    """Have `count` uploads accepted, several at a time."""
    with ThreadPoolExecutor(16) as clients:
        answers = clients.map(lambda number: service.client.put("c1", f"/{number}", b"x" * 1000), range(count))
        assert [answer for answer in answers if answer is None or answer.status != 202] == []


def all_delivered(service: Service, count: int) -> bool:
    """True when `count` uploads are in the instance and their bytes are gone from the spool, and everybody is up."""
    return revive(service) and not service.spooled() and all(service.delivered("c1", f"/{number}") == b"x" * 1000 for number in range(count))


def test_upload_is_refused_and_leaves_nothing_when_the_disk_is_full(service: Service) -> None:
    """507 while it is full, whatever the size; 202 as soon as there is room."""
    service.start()
    upload(service, 1)
    service.wait_quiet()
    # One that finds the disk full gives its reserve free, sooner or later, and that is room for uploads, too.
    service.stop("worker-0")
    fill(service)
    for size in (1, 1000, 300_000, 5_000_000):
        answer = put(service, "/refused", b"x" * size)
        assert (answer.status, answer.code) == (507, "no_room")
    assert service.spooled() == []
    make_room(service)
    service.begin("worker-0")
    service.wait_quiet()
    assert service.delivered("c1", "/refused") is None
    assert not service.mistakes()


def test_what_was_accepted_is_delivered_when_the_disk_is_full(service: Service) -> None:
    """The worker settles and unlinks with the room of its reserve, and goes on where it was."""
    service.start()
    worker = service.processes["worker-0"]
    assert isinstance(worker, Forked)
    eventually(lambda: reserved(service))
    # Held back this way, and not by SIGSTOP, it never keeps a transaction open.
    worker.arm("queue.claim=EIO")
    upload(service, 200)
    fill(service)
    revive(service)
    # One that was started again is not held back, whoever else was; one that ends just now cannot be told.
    if service.processes["worker-0"] is worker:
        with contextlib.suppress(ConnectionError, EOFError):
            worker.arm("")
    eventually(lambda: all_delivered(service, 200))
    make_room(service)
    service.wait_quiet()
    assert not service.mistakes()


def test_what_was_accepted_is_delivered_when_the_disk_filled_up_before_a_start(service: Service) -> None:
    """API and worker start on a full disk and finish what there is."""
    service.start()
    eventually(lambda: reserved(service))
    service.kill("worker-0")
    upload(service, MANY)
    # Its last connections take the write-ahead logs along, and so the room in them.
    service.stop("api")
    fill(service)
    service.begin("api")
    service.begin("worker-0")
    eventually(lambda: all_delivered(service, MANY))
    make_room(service)
    service.wait_quiet()
    assert not service.mistakes()


def test_what_was_accepted_is_delivered_when_all_died_before_the_disk_filled_up(service: Service) -> None:
    """Also an upload whose row was never written gets one with the room of the reserve."""
    service.start()
    eventually(lambda: reserved(service))
    service.kill("worker-0")
    upload(service, 200)
    service.kill("api")
    service.begin("api", "spool.dirsync=kill@1")
    eventually(lambda: service.client.get("/healthz"))
    assert service.client.put("c1", "/orphan", b"whole") is None
    service.kill("api")
    fill(service)
    service.begin("api")
    service.begin("worker-0")
    eventually(lambda: all_delivered(service, 200) and service.delivered("c1", "/orphan") == b"whole")
    make_room(service)
    service.wait_quiet()
    assert not service.mistakes()


def test_what_was_accepted_is_delivered_when_no_inode_was_left_at_a_start(crowded: Service) -> None:
    """SQLite's log and its index are files, and so is the mark that a worker runs: the reserve has inodes for them."""
    crowded.start()
    eventually(lambda: reserved(crowded))
    crowded.kill("worker-0")
    upload(crowded, 100)
    crowded.stop("api")
    crowd(crowded)
    crowded.begin("worker-0")
    eventually(lambda: all_delivered(crowded, 100))
    crowded.wait_quiet()
    assert not crowded.mistakes()


def test_clients_are_told_when_there_was_no_room_at_a_start(service: Service) -> None:
    """The API begins without a worker that gives it the reserve, and goes on by itself when there is room again."""
    service.start()
    service.stop()
    fill(service)
    service.begin("api")
    ready = eventually(lambda: revive(service) and service.client.get("/readyz"))
    assert ready
    refused = put(service, "/refused", b"x")
    assert (ready.status, refused.status, refused.code) == (503, 507, "no_room")
    make_room(service)
    assert not service.mistakes()


def test_clients_and_people_are_told_that_inodes_are_missing(crowded: Service) -> None:
    """API and worker begin without any, and without a reserve, and go on by themselves when there are some again."""
    crowded.start()
    crowded.stop()
    for path in crowded.layout.reserves(0, INODES):
        path.unlink()
    crowd(crowded)
    crowded.begin("api")
    crowded.begin("worker-0")
    eventually(lambda: any("inodes" in event["reason"] for event in crowded.events("worker.waiting")))
    ready = eventually(lambda: crowded.client.get("/readyz"))
    refused = put(crowded, "/refused", b"x")
    assert ready is not None
    assert (ready.status, refused.status, refused.code) == (503, 507, "no_room")
    assert "inodes" in refused.json["detail"]
    assert "inodes" in json.dumps(ready.json)
    for command in (["status"], ["tasks", "list"], ["fsck"]):
        told = incus_courier("--config", str(crowded.config), *command)
        assert told.code == 1
        assert "inodes" in told.out + told.err
        assert "damaged" not in told.out + told.err
    shutil.rmtree(crowded.layout.directory / FILLER)
    eventually(lambda: put(crowded, "/again", b"x").status == 202)
    crowded.wait_quiet()
    assert crowded.delivered("c1", "/again") == b"x"
    assert not crowded.mistakes()
