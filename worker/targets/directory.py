"""A directory in place of Incus: each instance is a subdirectory, and nothing leads out of it.

Paths are walked with directory descriptors and without following links in the kernel; a symbolic link is
resolved here, with the instance's directory as its root, as a chroot would.
"""

import contextlib
import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

from daemon.config import LOCAL
from daemon.errors import Undelivered
from daemon.model.names import printable
from daemon.model.upload import Destination
from worker.targets import source as spool
from worker.targets.attributes import (
    MAX_LINKS,
    Attributes,
    Wanted,
    refuse_unless_exact,
    refuse_unless_replaceable,
    refuse_unless_shallow,
    refuse_unless_trusted,
    wanted,
    wanted_directory,
    where,
)
from worker.targets.base import Delivery, Patience, Receipt, Session
from worker.targets.error_codes import classify_oserror
from worker.targets.rename import rename_new

_PIECE_BYTES: Final = 256 * 1024
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE: Final = 0o700
_FILE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC

#: What every instance has: a path that is right for one of Incus is right here too, without mkdirs.
USUAL_DIRECTORIES: Final = ("etc", "home", "opt", "root", "srv", "tmp", "usr", "var")
#: Where Linux keeps a file's access list, and what it says when there is none: no such file, none of it, none of any.
_ACCESS_LIST: Final = "system.posix_acl_access"
_NO_ACCESS_LIST: Final = frozenset({errno.ENOENT, errno.ENODATA, errno.ENOTSUP})
#: What readlink says of a name that is not a link: there is nothing, or something else.
_NO_LINK: Final = frozenset({errno.ENOENT, errno.EINVAL})


class DirectoryTarget:
    """A Target that keeps its instances below one directory; see worker.targets.base for what it promises."""

    def __init__(self, root: Path) -> None:
        """Nothing is made before the first use."""
        self._root = root

    def open(self, destination: Destination, stopped: str, patience: Patience | None = None) -> Session:
        """Open the instance's directory, made with the usual ones in it.

        `stopped` does not matter, as none ever is, nor does `patience`: the kernel makes no one wait for an answer.
        """
        directory = self._root / instance_directory(destination)
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            with contextlib.ExitStack() as opened:
                root = os.open(directory, _DIRECTORY)
                opened.callback(os.close, root)
                _furnish(root)
                opened.pop_all()
            return DirectorySession(root)
        except OSError as error:
            raise Undelivered(classify_oserror(error.errno), f"{directory}: {error.strerror}") from error

    def probe(self) -> None:
        """Return: a directory always answers."""

    def find_project(self, project: str) -> None:
        """Return: an instance's directory is made when it is needed, whatever its project."""

    def follow(
        self, on_event: Callable[[str, str, str], None], on_up: Callable[[], None], on_down: Callable[[str], None],
    ) -> None:
        """Return: nothing happens to a directory."""

    def close(self) -> None:
        """Nothing to let go of."""


def _furnish(root: int) -> None:
    """Make the usual directories. Each time: several sessions may begin at once, and none waits for another."""
    for name in USUAL_DIRECTORIES:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=root)


def instance_directory(destination: Destination) -> str:
    """The name of an instance's directory.

    `NAME` in the default project of the local remote, else `REMOTE:PROJECT_NAME`: no two instances share one,
    for an instance's name has no underscore, and a remote's no colon.
    """
    if (destination.remote, destination.project) == (LOCAL, "default"):
        return destination.instance
    return f"{destination.remote}:{destination.project}_{destination.instance}"


class DirectorySession:
    """A Session in one instance's directory; see worker.targets.base for what it promises."""

    def __init__(self, root: int) -> None:
        """`root` is the open directory; the session closes it."""
        self._root = root
        self.broken = False
        self.left_part = False

    def close(self) -> None:
        """Close the directory. Never raises."""
        with contextlib.suppress(OSError):
            os.close(self._root)

    def deliver(self, delivery: Delivery, source: BinaryIO, before_rename: Callable[[], None]) -> Receipt:
        """Put the bytes of `source` at the destination; see worker.targets.base.Session."""
        self.left_part = False
        with contextlib.ExitStack() as opened:
            with _explained(delivery):
                if delivery.left_part:
                    self._sweep(delivery)
                place = self._find(delivery, opened)
                existing = place.look()
                if delivery.recheck and _is_there(place, delivery, existing):
                    return Receipt(atomic=True, way="directory", unchanged=True)
                refuse_unless_replaceable(delivery, existing)
                want = wanted(delivery, existing)
            if delivery.replace_group == "in-place" and existing and not existing.is_link:
                _overwrite(place, delivery, source, want, before_rename)
                return Receipt(atomic=False, way="directory")
            self._replace(place, delivery, source, want, before_rename)
        return Receipt(atomic=True, way="directory")

    def _replace(self, place: "_Place", delivery: Delivery, source: BinaryIO, want: Wanted,
                 before_rename: Callable[[], None]) -> None:
        with contextlib.ExitStack() as opened:
            with _explained(delivery):
                place.remove_part()
                part = os.open(place.part, _FILE | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=place.directory)
                opened.callback(os.close, part)
            try:
                with _explained(delivery):
                    _fill(part, delivery, source, want, place.access_list())
                before_rename()
                with _explained(delivery):
                    place.rename_part(delivery)
            except BaseException:
                # The failure that led here is the one to report; what is left is removed later.
                self.left_part = True
                with contextlib.suppress(OSError):
                    place.remove_part()
                    self.left_part = False
                raise

    def confirm(self) -> None:
        """Return: the directory is open, and no other takes its place."""

    def sweep(self, delivery: Delivery) -> bool:
        """Remove the part file that a killed attempt left; see worker.targets.base.Session."""
        with _explained(delivery):
            return self._sweep(delivery)

    def _find(self, delivery: Delivery, opened: contextlib.ExitStack) -> "_Place":
        walk = _Walk(self._root, delivery, opened)
        try:
            return walk.find()
        finally:
            self.left_part = walk.left

    def _sweep(self, delivery: Delivery) -> bool:
        removed = False
        with contextlib.ExitStack() as opened:
            walk = _Walk(self._root, replace(delivery, mkdirs=False), opened)
            with contextlib.suppress(FileNotFoundError):
                removed = walk.find().remove_part()
            return walk.remove_staging() or removed


class _Place:
    """Where a file goes: an open directory and a name in it."""

    def __init__(self, directory: int, name: bytes, part: bytes) -> None:
        self.directory = directory
        self.name = name
        self.part = part

    def look(self) -> Attributes | None:
        """What is there, or None."""
        try:
            return _attributes(os.stat(self.name, dir_fd=self.directory, follow_symlinks=False))
        except FileNotFoundError:
            return None

    def access_list(self) -> bytes | None:
        """The access list of what is there, or None."""
        path = b"/proc/self/fd/%d/%b" % (self.directory, self.name)
        try:
            return os.getxattr(path, _ACCESS_LIST, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NO_ACCESS_LIST:
                return None
            raise

    def rename_part(self, delivery: Delivery) -> None:
        """Give the part file its name. Raises Undelivered when it is gone, and OSError."""
        try:
            os.rename(self.part, self.name, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        except FileNotFoundError as error:
            raise Undelivered("verify_failed", f"{where(delivery)}: its part file is gone") from error

    def remove_part(self) -> bool:
        """Remove the part file; True if there was one."""
        try:
            os.unlink(self.part, dir_fd=self.directory)
        except FileNotFoundError:
            return False
        return True


class _Walk:
    """Finds a destination below a root without ever leaving it."""

    def __init__(self, root: int, delivery: Delivery, opened: contextlib.ExitStack) -> None:
        self._delivery = delivery
        self._opened = opened
        self._above = [root]
        self._ahead = deque(delivery.destination.path.encode().split(b"/"))
        self._links = 0
        self._staging = delivery.staging_name.encode()
        #: True while something of a directory that is being made may be left.
        self.left = False

    def find(self) -> _Place:
        """Return the place of the destination, making directories if the delivery says so."""
        while True:
            name = self._ahead.popleft()
            last = not any(self._ahead)
            if name == b"..":
                self._above = self._above[:-1] or self._above
            elif name not in {b"", b"."}:
                target = None if last and self._delivery.symlinks == "replace" else self._link(name)
                if target is not None:
                    self._turn(target)
                elif last and not self._ahead:
                    return _Place(self._above[-1], name, self._delivery.part_name.encode())
                else:
                    self._enter(name)
            if not self._ahead:
                raise Undelivered("target_is_directory", f"{where(self._delivery)}: a link leads to a directory")

    def _link(self, name: bytes) -> bytes | None:
        above = self._above[-1]
        try:
            # First whose it is: what is root's, no user can put another link in the place of.
            link = os.stat(name, dir_fd=above, follow_symlinks=False)
            target = os.readlink(name, dir_fd=above)
        except OSError as error:
            if error.errno in _NO_LINK:
                return None
            raise
        refuse_unless_trusted(self._delivery, _attributes(link), _attributes(os.fstat(above)), os.geteuid())
        return target

    def _turn(self, target: bytes) -> None:
        self._links += 1
        if self._links > MAX_LINKS:
            raise Undelivered("too_many_links", f"{where(self._delivery)}: more than {MAX_LINKS} symbolic links")
        if target.startswith(b"/"):
            del self._above[1:]
        self._ahead.extendleft(reversed(target.split(b"/")))

    def _enter(self, name: bytes) -> None:
        try:
            directory = self._open(name)
        except FileNotFoundError:
            if not self._delivery.mkdirs:
                raise
            self._make(name)
            directory = self._open(name)
        self._above.append(directory)

    def _open(self, name: bytes, above: int | None = None) -> int:
        directory = os.open(name, _DIRECTORY, dir_fd=self._above[-1] if above is None else above)
        self._opened.callback(os.close, directory)
        return directory

    def remove_staging(self) -> bool:
        """Remove what a killed attempt was making in a directory on the way; True if there was something."""
        removed = [self._remove_staging(directory) for directory in self._above]
        return any(removed)

    def _remove_staging(self, above: int) -> bool:
        try:
            apart = self._open(self._staging, above)
        except FileNotFoundError:
            return False
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self._staging, dir_fd=apart)
        os.rmdir(self._staging, dir_fd=above)
        return True

    def _make(self, name: bytes) -> None:
        refuse_unless_shallow(self._delivery, len(self._above) + sum(map(bool, self._ahead)) - 1)
        above = self._above[-1]
        self._remove_staging(above)
        self.left = True
        try:
            os.mkdir(self._staging, _PRIVATE, dir_fd=above)
            self._make_apart(name, self._open_private(), above)
        except BaseException:
            # The failure that led here is the one to report; what is left is removed later.
            with contextlib.suppress(OSError):
                self._remove_staging(above)
                self.left = False
            raise
        self._remove_staging(above)
        self.left = False

    def _open_private(self) -> int:
        """Open the directory that was just made to be the only one to enter it; what is in it nobody else can swap."""
        directory = self._open(self._staging)
        found = os.fstat(directory)
        if found.st_uid != os.geteuid() or found.st_mode & 0o777 != _PRIVATE:
            raise Undelivered("verify_failed", f"{where(self._delivery)}: something else is where a directory was made")
        return directory

    def _make_apart(self, name: bytes, apart: int, above: int) -> None:
        os.mkdir(self._staging, _PRIVATE, dir_fd=apart)
        directory = self._open(self._staging, apart)
        want = wanted_directory(self._delivery)
        _own(directory, self._delivery, want)
        os.fchmod(directory, want.mode)
        with contextlib.suppress(FileExistsError):
            rename_new(self._staging, name, src_dir_fd=apart, dst_dir_fd=above)


def _overwrite(place: _Place, delivery: Delivery, source: BinaryIO, want: Wanted,
               before_write: Callable[[], None]) -> None:
    with contextlib.ExitStack() as opened:
        with _explained(delivery):
            file = os.open(place.name, _FILE, dir_fd=place.directory)
            opened.callback(os.close, file)
        before_write()
        with _explained(delivery):
            _fill(file, delivery, source, want, None)


def _fill(part: int, delivery: Delivery, source: BinaryIO, want: Wanted, access_list: bytes | None) -> None:
    for piece in spool.pieces(source, delivery.size, _PIECE_BYTES):
        written = 0
        while written < len(piece):
            written += os.write(part, piece[written:])
    os.ftruncate(part, delivery.size)
    want = _own(part, delivery, want)
    if access_list:
        os.setxattr(part, _ACCESS_LIST, access_list)
    os.fchmod(part, want.mode)
    refuse_unless_exact(delivery, want, _attributes(os.fstat(part)))
    if delivery.verify == "digest":
        spool.refuse_unless_same(_contents(part), source, delivery)


def _own(file: int, delivery: Delivery, want: Wanted) -> Wanted:
    """Set the owner and return what could be had: an owner that nobody asked for is left out if it is not allowed."""
    try:
        os.fchown(file, want.uid, want.gid)
    except PermissionError:
        asked = [-1 if owner is None else owner for owner in (delivery.uid, delivery.gid)]
        if asked != [-1, -1]:
            os.fchown(file, *asked)
        found = os.fstat(file)
        return Wanted(want.mode, found.st_uid, found.st_gid)
    return want


def _is_there(place: _Place, delivery: Delivery, found: Attributes | None) -> bool:
    if found is None or not stat.S_ISREG(found.mode) or found.size != delivery.size:
        return False
    if not wanted(delivery, found).met_by(found):
        return False
    file = os.open(place.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.directory)
    try:
        return spool.digest(_contents(file)) == delivery.sha256
    finally:
        os.close(file)


def _contents(file: int) -> Iterator[bytes]:
    offset = 0
    while piece := os.pread(file, _PIECE_BYTES, offset):
        offset += len(piece)
        yield piece


def _attributes(found: os.stat_result) -> Attributes:
    return Attributes(found.st_size, found.st_uid, found.st_gid, found.st_mode)


@contextlib.contextmanager
def _explained(delivery: Delivery) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = printable(error.strerror or str(error))
        raise Undelivered(classify_oserror(error.errno), f"{where(delivery)}: {what}") from error
