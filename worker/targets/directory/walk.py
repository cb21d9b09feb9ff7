"""The way to a destination: walked below a root, directories made on it, without ever leaving it."""

import contextlib
import errno
import os
import posixpath
from collections import deque
from typing import Final

from daemon.errors import Undelivered
from worker.targets.attributes import (
    MAX_LINKS,
    refuse_unless_allowed,
    refuse_unless_shallow,
    refuse_unless_trusted,
    wanted_directory,
    where,
)
from worker.targets.base import Delivery
from worker.targets.directory.content import attributes_of, own
from worker.targets.directory.entry import Entry
from worker.targets.rename import rename_new

#: How a directory is opened.
OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE: Final = 0o700
#: What readlink says of a name that is not a link: there is nothing, or something else.
_NO_LINK: Final = frozenset({errno.ENOENT, errno.EINVAL})


class Walk:
    """Finds a destination below a root without ever leaving it."""

    def __init__(self, root: int, delivery: Delivery, opened: contextlib.ExitStack) -> None:
        self._delivery = delivery
        self._opened = opened
        self._above = [root]
        #: The names of the directories below the root.
        self._names: list[bytes] = []
        self._ahead = deque(delivery.destination.path.encode().split(b"/"))
        self._links = 0
        self._staging = delivery.staging_name.encode()
        #: True while something of a directory that is being made may be left.
        self.left = False

    def find(self) -> Entry:
        """Return the entry of the destination, making directories if the delivery says so."""
        while True:
            name = self._ahead.popleft()
            last = not any(self._ahead)
            if name == b"..":
                self._above = self._above[:-1] or self._above
                self._names = self._names[:-1]
            elif name not in {b"", b"."}:
                target = None if last and self._delivery.symlinks == "replace" else self._link(name)
                if target is not None:
                    self._turn(target)
                elif last and not self._ahead:
                    refuse_unless_allowed(self._delivery, self._path_to(name))
                    return Entry(self._above[-1], name, self._delivery.part_name.encode())
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
        refuse_unless_trusted(self._delivery, attributes_of(link), attributes_of(os.fstat(above)), os.geteuid())
        return target

    def _turn(self, target: bytes) -> None:
        self._links += 1
        if self._links > MAX_LINKS:
            raise Undelivered("too_many_links", f"{where(self._delivery)}: more than {MAX_LINKS} symbolic links")
        if target.startswith(b"/"):
            del self._above[1:]
            self._names = []
        self._ahead.extendleft(reversed(target.split(b"/")))

    def _enter(self, name: bytes) -> None:
        try:
            directory = self._open(name)
        except FileNotFoundError:
            bounded = self._delivery.path_rule is not None
            # No link comes after what is not there; but a link may have told to leave what would be made.
            if not self._delivery.mkdirs or (bounded and b".." in self._ahead):
                raise
            refuse_unless_allowed(self._delivery, self._path_to(name, *self._ahead))
            self._make(name)
            directory = self._open(name)
        self._above.append(directory)
        self._names.append(name)

    def _path_to(self, *names: bytes) -> bytes:
        return posixpath.normpath(b"/" + b"/".join([*self._names, *names]))

    def _open(self, name: bytes, above: int | None = None) -> int:
        directory = os.open(name, OPEN_DIRECTORY, dir_fd=self._above[-1] if above is None else above)
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
        own(directory, self._delivery, want)
        os.fchmod(directory, want.mode)
        with contextlib.suppress(FileExistsError):
            rename_new(self._staging, name, src_dir_fd=apart, dst_dir_fd=above)
