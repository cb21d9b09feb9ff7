"""Opening what is in the state directory, where nobody trusts a name.

Whoever may write in a directory can put a link, a FIFO or a device where a file is expected. So each part of a path is
opened below the one before, no link is followed, nothing is waited for, and what was opened is looked at before it is
used.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_NEVER_WAIT: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_TOPDIR_FL of linux/fs.h; the flags are an int (ioctl_iflags(2)).
_FLAGS: Final = struct.Struct("i4x")
_GET_FLAGS: Final = 0x80086601
_SET_FLAGS: Final = 0x40086602
_TOP_DIRECTORY: Final = 0x00020000
#: What opening a link, a socket, a FIFO that nobody reads, or a directory for writing ends with.
_NO_FILE: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.EISDIR})

#: So many files are kept open at most until the disk knows that they are gone.
_MOST_REMOVED: Final = 64

#: What tells that a file was written or replaced; None where there is none, or it cannot be looked at.
Stamp = tuple[int, int, int, int, int] | None


class NotOwn(OSError):
    """Raised for a name that does not lead to a plain file of the service's own."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EPERM, "not a plain file of the service's own", str(path))


def open_own(
    root: Path, path: Path, flags: int, mode: int, *, owners: Collection[int],
    is_kind: Callable[[int], bool] = stat.S_ISREG,
) -> int:
    """A descriptor of the file at `path`, which is below `root`; `flags` are those of open(2).

    Raises NotOwn for whatever is not of the kind (a regular file), has a second name, or belongs to none of `owners`,
    and OSError as open(2) does.
    """
    with opened(root, path.parent) as directory:
        try:
            descriptor = os.open(path.name, flags | _NEVER_WAIT, mode, dir_fd=directory)
        except OSError as error:
            if error.errno in _NO_FILE:
                raise NotOwn(path) from error
            raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        if not is_own(os.fstat(descriptor), owners, is_kind):
            raise NotOwn(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_own(
    found: os.stat_result, owners: Collection[int], is_kind: Callable[[int], bool] = stat.S_ISREG, *,
    most_names: int = 1,
) -> bool:
    """True for a regular file with no more than `most_names` that belongs to one of `owners`."""
    return is_kind(found.st_mode) and found.st_nlink <= most_names and found.st_uid in owners


@contextlib.contextmanager
def opened(root: Path, directory: Path) -> Iterator[int]:
    """A descriptor of a directory below `root`, or of `root` itself, to be used as `dir_fd`. Raises OSError."""
    descriptor = os.open(root, _DIRECTORY)
    try:
        for name in _names_below(os.fspath(root), os.fspath(directory)):
            above, descriptor = descriptor, _open_in(descriptor, name, directory)
            os.close(above)
        yield descriptor
    finally:
        os.close(descriptor)


def _names_below(root: str, directory: str) -> list[str]:
    # Plain text, as a bell is opened for each batch of uploads: pathlib takes several times as long.
    return [name for name in directory.removeprefix(root).split("/") if name]


def _open_in(above: int, name: str, whole: Path) -> int:
    try:
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(whole)) from error


def link_and_sync(descriptor: int, name: str, directory: int) -> None:
    """Give an open file without a name one in a directory; it is durable with the directory's own sync. Raises OSError.

    That it has one is written with the file: where ext4 has no journal, a file that says that it has none is gone after
    a power cut, whatever names it.
    """
    os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=directory, follow_symlinks=True)
    os.fsync(descriptor)


class Removal:
    """Files that lose their names, and are kept until the disk knows it: only then are their blocks free.

    Where ext4 has no journal, a block that is free is used again at once. If the disk still says that the old file has
    it, the check of the disk after a power cut (e2fsck) finds it in two files and gives one a copy. It puts the copy
    where it knows of no file; what was made durable a moment ago may be there, which it finds out later.
    """

    def __init__(self, sync: Callable[[int], None] = os.fsync) -> None:
        """`sync` is what makes the disk know; it may raise OSError."""
        self._sync = sync
        self._descriptors: list[int] = []

    def __enter__(self) -> "Removal":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def unlink(self, name: str, directory: int) -> None:
        """Take a name from a file. Raises OSError; it has the name then, or none and the disk may not know."""
        descriptor = _opened(name, directory)
        try:
            os.unlink(name, dir_fd=directory)
            if descriptor is not None and not os.fstat(descriptor).st_nlink:
                self._descriptors.append(descriptor)
                descriptor = None
        finally:
            if descriptor is not None:
                os.close(descriptor)
        if len(self._descriptors) >= _MOST_REMOVED:
            self.finish()

    def finish(self) -> None:
        """Have the disk know of all of them, and give their blocks free. Raises OSError."""
        try:
            for descriptor in self._descriptors:
                self._sync(descriptor)
        finally:
            self._close()

    def _close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())


def unlink_and_sync(name: str, directory: int) -> None:
    """Take a name from a file; if it was the last, the disk knows before its blocks are free. Raises OSError."""
    with Removal() as removal:
        removal.unlink(name, directory)
        removal.finish()


def _opened(name: str, directory: int) -> int | None:
    """A descriptor of what may lose its last name; None when it cannot be opened, or is gone."""
    try:
        return os.open(name, os.O_RDONLY | _NEVER_WAIT, dir_fd=directory)
    except OSError:
        # Whoever takes the name from it finds out why; it is no file of ours.
        return None


def stamp_of(path: str | Path) -> Stamp:
    """What the file looks like now, links followed: who finds another stamp later reads it again."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def spread(directory: Path) -> None:
    """Tell the filesystem that the directories that are made in this one have nothing to do with each other.

    ext4 places them apart then, with all that is in them, as XFS always does (chattr(1), T). A hint: where it cannot be
    given, all is well without it.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            [flags] = _FLAGS.unpack(fcntl.ioctl(descriptor, _GET_FLAGS, bytes(_FLAGS.size)))
            fcntl.ioctl(descriptor, _SET_FLAGS, _FLAGS.pack(flags | _TOP_DIRECTORY))
    finally:
        os.close(descriptor)
