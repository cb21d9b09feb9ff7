"""A part file by SFTP: made beside the destination, private, filled, given its mode and owner, and compared."""

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO, Final

from daemon.errors import Undelivered
from daemon.model.names import MAX_PATH_BYTES, printable
from worker.targets import source as spool
from worker.targets.attributes import Wanted, refuse_unless_exact, wanted_directory, where
from worker.targets.base import Delivery
from worker.targets.error_codes import system_text
from worker.targets.incus.sftp_wire import NO_SUCH_FILE, READ_BYTES, WRITE_BYTES, SftpStatus, Wire, WireBroken

#: Writes and reads on their way at once.
_WINDOW: Final = 16
#: A part file is private until it is whole.
_PRIVATE: Final = 0o600
#: The directory that a secret one is hidden in, and its name there.
_HIDING: Final = 0o700
HIDDEN: Final = "file"


class PartFile:
    """The file that becomes the destination: made beside it, filled, and removed if anything goes wrong."""

    def __init__(self, wire: Wire, delivery: Delivery, path: bytes) -> None:
        self._wire = wire
        self._delivery = delivery
        self._directory = path.rpartition(b"/")[0]
        self._handle = b""
        self._made = False
        #: The directory that the file is hidden in, if it is.
        self._hiding = b""
        #: True from when it may be there until it is known to be gone.
        self.left = False
        self.path = self._directory + b"/" + delivery.part_name.encode()
        if len(self.path) > MAX_PATH_BYTES:
            raise Undelivered("name_too_long", f"{where(delivery)}: no room for the part file's name beside it")

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
            self._wire.heeds_mode = self._wire.attributes(self._wire.lstat(self.path)).bits == _PRIVATE
        if not self._wire.heeds_mode:
            self._hide(self.path)

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
        self.left = bool(self._hiding)
        if self._hiding:
            # The file has its name: an empty directory that stays is removed later.
            with contextlib.suppress(SftpStatus, WireBroken):
                self._wire.done(self._wire.rmdir(self._hiding))
                self.left = False

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
            if self._hiding:
                requests.append(self._wire.rmdir(self._hiding))
            self._wire.done(*requests)
            self.left = False

    def remove(self) -> bool:
        """Remove it if it is there; True if it was."""
        try:
            # A read-only filesystem refuses the removal of what is not there, too.
            found = self._wire.attributes(self._wire.lstat(self.path))
        except SftpStatus as status:
            if status.code == NO_SUCH_FILE:
                return False
            raise
        if found.is_directory:
            hidden = self._wire.remove(_in(self.path))
            self._wire.done(self._wire.rmdir(self.path))
            with contextlib.suppress(SftpStatus):
                self._wire.done(hidden)
        else:
            self._wire.done(self._wire.remove(self.path))
        return True

    def _make_parents(self) -> None:
        directories = _Directories(self._wire, self._delivery)
        missing = directories.missing(self._directory)
        if missing and not self._delivery.mkdirs:
            raise Undelivered("parent_not_found", f"{where(self._delivery)}: there is no {shown(missing[0])}")
        for path in missing:
            directories.make(path)

    def _open(self) -> None:
        self.left = True
        try:
            self._handle = self._wire.handle(self._wire.create(self.path, _PRIVATE))
        except SftpStatus as status:
            self.left = system_text(status.text) == "file exists"
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

    def _hide(self, directory: bytes) -> None:
        self._wire.done(self._wire.close_handle(self._handle), self._wire.remove(directory),
                        self._wire.mkdir(directory))
        self._handle, self._hiding, self.path = b"", directory, _in(directory)
        handle = self._wire.handle(self._wire.opendir(directory))
        self._wire.done(self._wire.chmod(handle, _HIDING), self._wire.close_handle(handle))
        self._handle = self._wire.handle(self._wire.create(self.path, _PRIVATE))

    def _in_one_go(self, source: BinaryIO, want: Wanted) -> list[int]:
        # The owner first: the mode is for the new one. Both are final before the write is taken up.
        requests = [self._wire.chown(self._handle, want.uid, want.gid),
                    self._wire.chmod(self._handle, want.mode)]
        requests += [self._wire.write(self._handle, 0, piece)
                     for piece in spool.pieces(source, self._delivery.size, WRITE_BYTES)]
        return requests

    def _step_by_step(self, source: BinaryIO, want: Wanted) -> list[int]:
        self._wire.done(self._wire.chmod(self._handle, _PRIVATE))
        self._write_all(source)
        if self._delivery.verify == "digest":
            self._compare(source)
        return [self._wire.chown(self._handle, want.uid, want.gid), self._wire.chmod(self._handle, want.mode)]

    def _write_all(self, source: BinaryIO) -> None:
        under_way: deque[int] = deque()
        offset = 0
        for piece in spool.pieces(source, self._delivery.size, WRITE_BYTES):
            under_way.append(self._wire.write(self._handle, offset, piece))
            offset += len(piece)
            if len(under_way) >= _WINDOW:
                self._wire.done(under_way.popleft())
        self._wire.done(*under_way)

    def _compare(self, source: BinaryIO) -> None:
        spool.refuse_unless_same(contents(self._wire, self._handle, self._delivery.size), source, self._delivery)


class _Directories:
    """The directories above a destination, made as `mkdirs` asks."""

    def __init__(self, wire: Wire, delivery: Delivery) -> None:
        self._wire = wire
        self._want = wanted_directory(delivery)

    def missing(self, directory: bytes) -> list[bytes]:
        """Which of `directory` and those above it are not there, the topmost first."""
        parts = directory.split(b"/")[1:]
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

    def make(self, path: bytes) -> None:
        """Make one directory, with mode and owner, unless it is there by now."""
        try:
            self._wire.done(self._wire.mkdir(path))
        except SftpStatus as status:
            if status.code == NO_SUCH_FILE:
                # The directory above is there: /proc refuses new directories with these words.
                raise Undelivered("permission_denied", f"{shown(path)} cannot be made") from status
            if system_text(status.text) != "file exists":
                raise
            # Another push may have made it meanwhile; a link that leads nowhere is no directory.
            if not self._is_there(path, self._wire.stat(path)):
                raise Undelivered("parent_not_directory", f"{shown(path)} is not a directory") from status
            return
        if not self._want.met_by(self._wire.attributes(self._wire.lstat(path))):
            self._set(path)

    def _set(self, path: bytes) -> None:
        # Through a handle: whatever a user of the instance puts at the path meanwhile, only a directory is changed.
        handle = self._wire.handle(self._wire.opendir(path))
        self._wire.done(self._wire.chown(handle, self._want.uid, self._want.gid),
                        self._wire.chmod(handle, self._want.mode), self._wire.close_handle(handle))


def _in(hiding: bytes) -> bytes:
    """The path of a part file that is hidden in a directory."""
    return hiding + b"/" + HIDDEN.encode()


def contents(wire: Wire, handle: bytes, size: int) -> Iterator[bytes]:
    """Yield what is in an open file, and up to one piece more than `size` if it is longer."""
    under_way: deque[int] = deque()
    for offset in range(0, size + 1, READ_BYTES):
        under_way.append(wire.read(handle, offset))
        if len(under_way) >= _WINDOW:
            yield wire.data(under_way.popleft())
    while under_way:
        yield wire.data(under_way.popleft())


def shown(path: bytes) -> str:
    """A path of the instance, safe to print."""
    return printable(path.decode("utf-8", "backslashreplace"))
