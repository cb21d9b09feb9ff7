import errno
import fcntl
import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.errors import CannotStart
from daemon.state import shard_count
from daemon.state.append_lease import AppendLease
from daemon.state.doorbell import Doorbell, ring
from daemon.state.files import NotOwn, Removal, open_own, spread
from daemon.state.layout import Layout
from daemon.state.shard_lock import ShardLock, holder

_STRANGER = 4_000_000_001


def link(path: Path) -> None:
    """A symbolic link to a device that never ends."""
    path.symlink_to("/dev/zero")


def link_to_file(path: Path) -> None:
    """A symbolic link to a file outside."""
    outside = path.parents[2] / "outside"
    outside.write_text("precious")
    path.symlink_to(outside)


def second_name(path: Path) -> None:
    """A second name of a file outside."""
    outside = path.parents[2] / "outside"
    outside.write_text("precious")
    path.hardlink_to(outside)


def unix_socket(path: Path) -> None:
    """The name of a Unix socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


#: What may stand where a file is expected.
PLANTS = [link, link_to_file, second_name, os.mkfifo, unix_socket, os.mkdir]
Plant = Callable[[Path], None]


def untouched(layout: Layout) -> bool:
    """True when the file outside is as it was, if there is one."""
    outside = layout.directory.parent / "outside"
    return not outside.exists() or outside.read_text() == "precious"


@pytest.mark.parametrize("plant", PLANTS)
def test_file_is_refused_when_something_else_has_its_name(layout: Layout, plant: Plant) -> None:
    """Neither a link, nor a second name, nor what is no file is opened, and nothing is waited for."""
    path = layout.queue / "planted"
    plant(path)
    for flags in (os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREAT):
        with pytest.raises(OSError, match=r"own|directory"):
            layout.open(path, flags)
    assert untouched(layout)


def test_file_is_refused_when_a_directory_on_its_way_is_a_link(layout: Layout) -> None:
    """A directory that somebody replaced by a link leads nowhere."""
    (layout.directory / "elsewhere").mkdir()
    (layout.directory / "elsewhere/file").touch()
    (layout.queue / "shard-00").symlink_to("../elsewhere")
    with pytest.raises(NotADirectoryError, match="shard-00"):
        layout.open(layout.queue / "shard-00/file", os.O_RDONLY)


def test_file_is_refused_when_it_belongs_to_another(layout: Layout) -> None:
    """What neither of the service's users made is not theirs."""
    path = layout.queue / "file"
    path.touch()
    with pytest.raises(NotOwn, match="not a plain file of the service's own"):
        open_own(layout.directory, path, os.O_RDONLY, 0, owners={_STRANGER})


def test_state_directory_itself_may_be_reached_by_a_link(tmp_path: Path, layout: Layout) -> None:
    """Where the state is, is said by the administrator: only what is inside is not trusted."""
    (tmp_path / "link").symlink_to(layout.directory)
    other = Layout(tmp_path / "link")
    other.touch(other.append_lock)
    assert layout.append_lock.exists()


def test_made_file_can_be_written_by_all_users_of_the_state_whatever_the_umask(layout: Layout) -> None:
    """The other user must be able to lock it, too."""
    os.umask(0o077)
    layout.directory.chmod(0o2770)
    shared = Layout(layout.directory)
    shared.touch(shared.append_lock)
    assert stat.S_IMODE(shared.append_lock.stat().st_mode) == 0o660


@pytest.mark.parametrize("plant", PLANTS)
def test_number_of_shards_is_refused_when_its_file_is_none(layout: Layout, plant: Plant) -> None:
    """A process says so and ends, and neither hangs nor reads for ever."""
    plant(layout.shards_file)
    with pytest.raises((CannotStart, IsADirectoryError), match="shards"):
        shard_count.read(layout)


def test_number_of_shards_is_not_read_from_a_file_without_an_end(layout: Layout) -> None:
    """As much as a number takes is read, and no more."""
    with layout.shards_file.open("w") as file:
        file.write("2\n")
        file.truncate(2**40)
    with pytest.raises(CannotStart, match="damaged"):
        shard_count.read(layout)


@pytest.mark.parametrize("plant", PLANTS)
def test_lock_is_refused_when_its_file_is_none(layout: Layout, plant: Plant) -> None:
    """A lock is never written into what another name leads to."""
    plant(layout.lock(0))
    with pytest.raises(OSError, match=r"own|directory"):
        ShardLock(layout, 0).acquire()
    with pytest.raises(OSError, match=r"own|directory"):
        holder(layout, 0)
    assert untouched(layout)


@pytest.mark.parametrize("plant", PLANTS)
def test_lease_is_refused_when_its_file_is_none(layout: Layout, plant: Plant) -> None:
    """What another name leads to is neither locked nor given a new date."""
    plant(layout.append_lock)
    with pytest.raises(OSError, match=r"own|directory"):
        AppendLease(layout, 1).acquire()
    assert untouched(layout)


@pytest.mark.parametrize("plant", [plant for plant in PLANTS if plant is not os.mkfifo])
def test_bell_writes_into_nothing_else(layout: Layout, plant: Plant) -> None:
    """A ring is lost when something else has the bell's name."""
    plant(layout.bell(0))
    ring(layout, 0)
    assert untouched(layout)


def test_bell_is_hung_in_the_place_of_what_was_planted(layout: Layout) -> None:
    """A link is removed, and what it led to stays."""
    link_to_file(layout.bell(0))
    Doorbell(layout, 0).close()
    assert stat.S_ISFIFO(layout.bell(0).lstat().st_mode)
    assert untouched(layout)


def test_files_are_synced_once_their_last_name_is_gone_and_let_go_then(tmp_path: Path) -> None:
    """A file with another name stays as it is; nothing is open in the end, and few are at any time."""
    synced, directory, names = list[int](), os.open(tmp_path, os.O_RDONLY), [str(number) for number in range(200)]
    before = len(os.listdir("/proc/self/fd"))
    open_at_most = 0

    def sync(descriptor: int) -> None:
        nonlocal open_at_most
        assert os.fstat(descriptor).st_nlink == 0
        synced.append(descriptor)
        open_at_most = max(open_at_most, len(os.listdir("/proc/self/fd")) - before)

    for name in names:
        (tmp_path / name).touch()
    os.link(tmp_path / "7", tmp_path / "other")
    (tmp_path / "link").symlink_to("other")
    with Removal(sync) as removal:
        for name in [*names, "link"]:
            removal.unlink(name, directory)
        with pytest.raises(FileNotFoundError):
            removal.unlink("7", directory)
        removal.finish()
    assert len(synced) == len(names) - 1
    assert open_at_most < 100
    assert (len(os.listdir("/proc/self/fd")), os.listdir(tmp_path)) == (before, ["other"])
    os.close(directory)


def test_file_that_cannot_be_synced_is_let_go_all_the_same(tmp_path: Path) -> None:
    """Who removes it is told."""
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    (tmp_path / "x").touch()
    directory = os.open(tmp_path, os.O_RDONLY)
    before = len(os.listdir("/proc/self/fd"))
    with Removal(fail) as removal:
        removal.unlink("x", directory)
        with pytest.raises(OSError, match="broken"):
            removal.finish()
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(directory)


def test_directories_are_spread_where_the_filesystem_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One flag is added to those that a directory has."""
    flags = 0x80000

    def ioctl(_descriptor: int, request: int, argument: bytes) -> bytes:
        nonlocal flags
        if request == 0x40086602:
            flags = int.from_bytes(argument, sys.byteorder)
        return flags.to_bytes(8, sys.byteorder)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    spread(tmp_path)
    assert flags == 0x80000 | 0x20000


def test_filesystem_that_cannot_spread_directories_is_as_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a hint."""
    def ioctl(*_: object) -> bytes:
        raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    spread(tmp_path)
