import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.errors import CannotStart
from daemon.state.layout import Layout
from daemon.state.shard_lock import ShardLock, holder
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[4]
_HOLD = """
import sys
from pathlib import Path
from daemon.state.layout import Layout
from daemon.state.shard_lock import ShardLock
ShardLock(Layout(Path(sys.argv[1])), 0).acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(layout: Layout) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock of shard 0 until its input ends."""
    process = subprocess.Popen([sys.executable, "-c", _HOLD, str(layout.directory)], cwd=ROOT, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.stdin.close()
    process.stdout.close()
    process.wait()


def test_lock_is_refused_and_the_holder_named_when_another_process_has_it(
    layout: Layout, other: subprocess.Popen[bytes],
) -> None:
    """A second worker for a shard is told who serves it."""
    with pytest.raises(CannotStart) as caught:
        ShardLock(layout, 0).acquire()
    assert caught.value.code == "shard_taken"
    assert str(other.pid) in caught.value.detail


def test_lock_ends_with_its_process_whatever_ends_it(layout: Layout, other: subprocess.Popen[bytes]) -> None:
    """After a kill the next worker has the shard at once, without waiting for any clock."""
    assert holder(layout, 0) == other.pid
    other.kill()
    other.wait()
    assert holder(layout, 0) is None
    ShardLock(layout, 0).acquire()


def test_lock_is_for_one_shard(layout: Layout, other: subprocess.Popen[bytes]) -> None:
    """The other shards are free."""
    assert holder(layout, 1) is None
    lock = ShardLock(layout, 1)
    lock.acquire()
    assert holder(layout, 1) == os.getpid()
    lock.release()


def test_lock_is_not_taken_by_asking_for_its_holder(layout: Layout) -> None:
    """Readiness and status may ask at any moment; a worker that starts just then is not turned away."""
    lock = ShardLock(layout, 0)
    lock.acquire()
    lock.release()
    assert holder(layout, 0) is None
    again = ShardLock(layout, 0)
    again.acquire()
    assert holder(layout, 0) == os.getpid()
    again.release()
    again.release()


def test_lock_is_refused_within_one_process_too(layout: Layout) -> None:
    """The lock belongs to the open file, not to the process: opening it twice does not share it."""
    first = ShardLock(layout, 0)
    first.acquire()
    with pytest.raises(CannotStart):
        ShardLock(layout, 0).acquire()
    assert holder(layout, 0) == os.getpid()
    first.release()


def test_holder_is_nobody_before_the_first_start(layout: Layout) -> None:
    """Where there is no lock file nobody serves, and none is made."""
    assert holder(layout, 0) is None
    assert not layout.lock(0).exists()


def test_holder_is_unknown_when_the_file_says_nothing(layout: Layout, other: subprocess.Popen[bytes]) -> None:
    """That somebody holds the lock is known from the kernel; the file only says who."""
    layout.lock(0).write_text("damaged")
    assert holder(layout, 0) == 0
    with pytest.raises(CannotStart, match="unknown"):
        ShardLock(layout, 0).acquire()


def test_lock_file_is_never_replaced(layout: Layout) -> None:
    """Two workers would hold two files of the same name."""
    lock = ShardLock(layout, 0)
    lock.acquire()
    inode = layout.lock(0).stat().st_ino
    lock.release()
    ShardLock(layout, 0).acquire()
    assert layout.lock(0).stat().st_ino == inode


def test_lock_is_found_held_as_long_as_a_child_has_the_file(layout: Layout) -> None:
    """The descriptor is not inherited: a child that outlives its worker keeps no shard."""
    lock = ShardLock(layout, 0)
    lock.acquire()
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, close_fds=False)
    lock.release()
    eventually(lambda: holder(layout, 0) is None)
    assert child.stdin is not None
    child.stdin.close()
    child.wait()


def test_holder_is_found_on_a_read_only_filesystem(
    layout: Layout, other: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A look at the state writes nothing, so it opens nothing for writing."""
    really_open = os.open

    def on_a_read_only_filesystem(path: Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return really_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", on_a_read_only_filesystem)
    assert holder(layout, 0) == other.pid


def test_lock_is_taken_when_the_disk_has_no_room_for_the_name_of_its_holder(
    layout: Layout, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker that begins on a full disk is the one that makes room; who it is can be told without."""
    def fail(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", fail)
    lock = ShardLock(layout, 0)
    lock.acquire()
    assert holder(layout, 0) == 0
    lock.release()
    assert holder(layout, 0) is None
