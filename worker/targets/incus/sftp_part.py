"""A part file by SFTP: made beside the destination, private, filled, given its mode and owner, and compared."""

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO, Final

from daemon.errors import Undelivered
from daemon.model.names import MAX_PATH_BYTES
from worker.targets import source as spool
from worker.targets.attributes import (
    Wanted,
    refuse_unless_exact,
    refuse_unless_shallow,
    shown,
    wanted_directory,
    where,
)
from worker.targets.base import Delivery
from worker.targets.error_codes import system_text
from worker.targets.incus.sftp_staging import PRIVATE_FILE, Staging
from worker.targets.incus.sftp_wire import NO_SUCH_FILE, READ_BYTES, WRITE_BYTES, SftpStatus, Wire, WireBroken

#: Writes and reads on their way at once.
_WINDOW: Final = 16
#: What a server says when another push has made the directory: when it looks itself, and when the kernel finds
#: something in it that came just after that.
_MADE_MEANWHILE: Final = frozenset({"file exists", "directory not empty"})


class PartFile:
    """The file that becomes the destination: made beside it, filled, and removed if anything goes wrong."""

    def __init__(self, wire: Wire, delivery: Delivery, path: bytes) -> None:
        self._wire = wire
        self._delivery = delivery
        self._directory = path.rpartition(b"/")[0]
        self._handle = b""
        self._made = False
        self._staging = Staging(wire, delivery)
        self._left = False
        self.path = self._directory + b"/" + delivery.part_name.encode()
        if len(self.path) > MAX_PATH_BYTES:
            raise Undelivered("name_too_long", f"{where(delivery)}: no room for the part file's name beside it")

    @property
    def left(self) -> bool:
        """True from when something of it may be there until it is known to be gone."""
        return self._left or self._staging.left

    def create(self) -> None:
        """Make it, removing one that an earlier attempt left, and the directories above it if they are wanted."""
        try:
            self._open()
        except SftpStatus as status:
            if system_text(status.text) == "file exists":
                self.remove()
            elif status.code == NO_SUCH_FILE and self._directory:
                self._make_parents()
            else:
                raise
            self._open_again()

    def hide(self) -> None:
        """Have it made, still empty, where nobody else can have opened it.

        An old server makes it 0644, and who opens it before it is private reads all that comes.
        """
        if self._wire.heeds_mode is None:
            self._wire.heeds_mode = self._wire.attributes(self._wire.fstat(self._handle)).bits == PRIVATE_FILE
        if not self._wire.heeds_mode:
            exposed, self._handle = self._handle, self._staging.file(self.path)
            self._wire.done(self._wire.close_handle(exposed))

    def fill(self, source: BinaryIO, want: Wanted) -> None:
        """Write everything, give it its mode and owner, close it, and compare it with what was wanted."""
        simple = self._delivery.size <= WRITE_BYTES and not want.special and self._delivery.verify == "size"
        requests = self._in_one_go(source, want) if simple else self._step_by_step(source, want)
        requests.append(self._wire.close_handle(self._handle))
        looked = self._wire.lstat(self.path)
        self._handle = b""
        self._wire.done(*requests)
        refuse_unless_exact(self._delivery, want, self._wire.attributes(looked))

    def rename(self, path: bytes) -> None:
        """Give it its name."""
        self._wire.done(self._wire.rename(self.path, path))
        self._left = False

    def discard(self) -> None:
        """Close and remove it if it was made and the connection still works."""
        if not self._made or self._wire.broken:
            return
        self._made = False
        # The failure that led here is the one to report; what is left is removed later.
        with contextlib.suppress(SftpStatus, WireBroken):
            self._wire.drain()
            requests = [self._wire.close_handle(self._handle)] if self._handle else []
            requests.append(self._wire.remove(self.path))
            self._wire.done(*requests)
            self._left = False

    def remove(self) -> bool:
        """Remove it if it is there; True if it was."""
        try:
            # A read-only filesystem refuses the removal of what is not there, too.
            self._wire.attributes(self._wire.lstat(self.path))
        except SftpStatus as status:
            if status.code == NO_SUCH_FILE:
                return False
            raise
        self._wire.done(self._wire.remove(self.path))
        return True

    def _make_parents(self) -> None:
        tried = b""
        while missing := self._missing():
            if not self._delivery.mkdirs:
                raise Undelivered("parent_not_found", f"{where(self._delivery)}: there is no {shown(missing[0])}")
            refuse_unless_shallow(self._delivery, missing[-1].count(b"/"))
            if missing[0] == tried:
                # It is there, and leads nowhere.
                raise Undelivered("parent_not_directory", f"{shown(tried)} is not a directory")
            self._make(missing)
            tried = missing[0]

    def _make(self, missing: list[bytes]) -> None:
        try:
            self._staging.directories(missing, wanted_directory(self._delivery))
        except SftpStatus as status:
            if status.code == NO_SUCH_FILE:
                # The directory above is there: /proc refuses new directories with these words.
                raise Undelivered("permission_denied", f"{shown(missing[0])} cannot be made") from status
            if system_text(status.text) not in _MADE_MEANWHILE:
                raise

    def _missing(self) -> list[bytes]:
        """Which of the directories above the file are not there, the topmost first."""
        parts = self._directory.split(b"/")[1:]
        above = [b"/" + b"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        # Not all at once: a server whose answers nobody reads takes no more requests.
        for start in range(0, len(above), _WINDOW):
            looked = [(path, self._wire.stat(path)) for path in above[start:start + _WINDOW]]
            there = [self._is_there(path, number) for path, number in looked]
            if not all(there):
                return above[start + there.index(False):]
        return []

    def _is_there(self, path: bytes, looked: int) -> bool:
        try:
            found = self._wire.attributes(looked)
        except SftpStatus as status:
            if status.code == NO_SUCH_FILE:
                return False
            raise
        if not found.is_directory:
            raise Undelivered("parent_not_directory", f"{shown(path)} is not a directory")
        return True

    def _open(self) -> None:
        self._left = True
        try:
            self._handle = self._wire.handle(self._wire.create(self.path, PRIVATE_FILE))
        except SftpStatus as status:
            self._left = system_text(status.text) == "file exists"
            raise
        self._made = True

    def _open_again(self) -> None:
        try:
            self._open()
        except SftpStatus as status:
            if status.code == NO_SUCH_FILE:
                # The directory is there: some filesystems, /proc is one, refuse new files with these words.
                reason = f"{where(self._delivery)}: its directory takes no new files"
                raise Undelivered("permission_denied", reason) from status
            raise

    def _in_one_go(self, source: BinaryIO, want: Wanted) -> list[int]:
        # The owner first: the mode is for the new one. Both are final before the write is taken up.
        requests = [self._wire.chown(self._handle, want.uid, want.gid),
                    self._wire.chmod(self._handle, want.mode)]
        requests += [self._wire.write(self._handle, 0, piece)
                     for piece in spool.pieces(source, self._delivery.size, WRITE_BYTES)]
        return requests

    def _step_by_step(self, source: BinaryIO, want: Wanted) -> list[int]:
        self._wire.done(self._wire.chmod(self._handle, PRIVATE_FILE))
        write_all(self._wire, self._handle, source, self._delivery.size)
        if self._delivery.verify == "digest":
            self._compare(source)
        return [self._wire.chown(self._handle, want.uid, want.gid), self._wire.chmod(self._handle, want.mode)]

    def _compare(self, source: BinaryIO) -> None:
        spool.refuse_unless_same(contents(self._wire, self._handle, self._delivery.size), source, self._delivery)


@contextlib.contextmanager
def closing_handle(wire: Wire, opening: int) -> Iterator[bytes]:
    """Wait for the handle that was asked for, and close it afterwards if the connection still works."""
    handle = wire.handle(opening)
    try:
        yield handle
    finally:
        if not wire.broken:
            wire.drain()
            wire.done(wire.close_handle(handle))


def write_all(wire: Wire, handle: bytes, source: BinaryIO, size: int) -> None:
    """Write the `size` bytes of `source` into an open file, from its start."""
    under_way: deque[int] = deque()
    offset = 0
    for piece in spool.pieces(source, size, WRITE_BYTES):
        under_way.append(wire.write(handle, offset, piece))
        offset += len(piece)
        if len(under_way) >= _WINDOW:
            wire.done(under_way.popleft())
    wire.done(*under_way)


def contents(wire: Wire, handle: bytes, size: int) -> Iterator[bytes]:
    """Yield what is in an open file, and up to one piece more than `size` if it is longer."""
    under_way: deque[int] = deque()
    for offset in range(0, size + 1, READ_BYTES):
        under_way.append(wire.read(handle, offset))
        if len(under_way) >= _WINDOW:
            yield wire.data(under_way.popleft())
    while under_way:
        yield wire.data(under_way.popleft())
