"""Delivery by SFTP: a private part file beside the destination, exact, verified, then renamed into place.

What depends on the server (pkg/sftp in Incus and LXD): commands run one after the other in the order sent,
reads and writes beside them; a command is taken up only when the one before it is done; closing a file waits
for its writes. So requests may be sent without waiting, except where a write must come first.
"""

import contextlib
import stat
from collections import deque
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from daemon.errors import Undelivered
from daemon.names import MAX_PATH_BYTES, printable
from worker.target import Delivery, Receipt
from worker.targets import source as spool
from worker.targets.attributes import (
    Attributes,
    Wanted,
    refuse_unless_exact,
    refuse_unless_replaceable,
    wanted,
    wanted_directory,
    where,
)
from worker.targets.sftp_wire import (
    NO_SUCH_FILE,
    READ_BYTES,
    WRITE_BYTES,
    SftpStatus,
    Wire,
    WireBroken,
    WireStalled,
)
from worker.verdict import classify_sftp, system_text

#: Writes and reads on their way at once.
_WINDOW: Final = 16
#: Links that are followed before it is called a loop; Linux's own number.
_MAX_LINKS: Final = 40
#: A part file is private until it is whole.
_PRIVATE: Final = 0o600


class SftpSession:
    """A Session over one SFTP connection; see worker.target for what it promises."""

    def __init__(self, wire: Wire, disconnect: Callable[[], None]) -> None:
        """Deliver over `wire`; `disconnect` ends the connection beneath it and never raises."""
        self._wire = wire
        self._disconnect = disconnect

    @property
    def broken(self) -> bool:
        """True when the connection can no longer be used."""
        return self._wire.broken

    def close(self) -> None:
        """End the connection. Never raises."""
        self._wire.broken = True
        self._disconnect()

    def deliver(self, delivery: Delivery, source: BinaryIO, before_rename: Callable[[], None]) -> Receipt:
        """Put the bytes of `source` at the destination; see worker.target.Session."""
        try:
            if delivery.recheck and self._is_there(delivery):
                return Receipt(atomic=True, way="sftp", unchanged=True)
            self._push(delivery, source, before_rename)
        except SftpStatus as status:
            reason = printable(system_text(status.text))
            raise Undelivered(classify_sftp(status.code, status.text), f"{where(delivery)}: {reason}") from status
        except WireStalled as stall:
            raise Undelivered("stalled", f"{where(delivery)}: {stall}") from stall
        except WireBroken as broken:
            raise Undelivered("connection_lost", f"{where(delivery)}: {broken}") from broken
        return Receipt(atomic=True, way="sftp")

    def _push(self, delivery: Delivery, source: BinaryIO, before_rename: Callable[[], None]) -> None:
        path = delivery.destination.path.encode()
        self._wire.drain()
        looked = self._wire.lstat(path)
        part = _PartFile(self._wire, delivery, path)
        try:
            part.create()
            existing = self._existing(looked)
            if existing and existing.is_link and delivery.symlinks == "follow":
                part.discard()
                path, existing = self._follow(path)
                part = _PartFile(self._wire, delivery, path)
                part.create()
            refuse_unless_replaceable(delivery, existing)
            part.fill(source, wanted(delivery, existing))
            before_rename()
            self._wire.done(self._wire.rename(part.path, path))
        except BaseException:
            part.discard()
            raise

    def _is_there(self, delivery: Delivery) -> bool:
        path = delivery.destination.path.encode()
        self._wire.drain()
        found = self._existing(self._wire.lstat(path))
        if found and found.is_link and delivery.symlinks == "follow":
            path, found = self._follow(path)
        if found is None or not stat.S_ISREG(found.mode) or found.size != delivery.size:
            return False
        if not wanted(delivery, found).met_by(found):
            return False
        handle = self._wire.handle(self._wire.open(path))
        try:
            return spool.digest(_contents(self._wire, handle, delivery.size)) == delivery.sha256
        finally:
            if not self._wire.broken:
                self._wire.drain()
                self._wire.done(self._wire.close_handle(handle))

    def _existing(self, looked: int) -> Attributes | None:
        try:
            return self._wire.attributes(looked)
        except SftpStatus as status:
            if status.code == NO_SUCH_FILE:
                return None
            raise

    def _follow(self, path: bytes) -> tuple[bytes, Attributes | None]:
        for _ in range(_MAX_LINKS):
            target = self._wire.link(self._wire.readlink(path))
            path = target if target.startswith(b"/") else path.rpartition(b"/")[0] + b"/" + target
            found = self._existing(self._wire.lstat(path))
            if found is None and path.rpartition(b"/")[2] in {b"", b".", b".."}:
                raise Undelivered("target_is_directory", f"the link leads to a directory, {_text(path)}")
            if found is None or not found.is_link:
                return path, found
        raise Undelivered("too_many_links", f"more than {_MAX_LINKS} symbolic links, the last at {_text(path)}")


class _PartFile:
    """The file that becomes the destination: made beside it, filled, and removed if anything goes wrong."""

    def __init__(self, wire: Wire, delivery: Delivery, path: bytes) -> None:
        self._wire = wire
        self._delivery = delivery
        self._directory = path.rpartition(b"/")[0]
        self._handle = b""
        self._made = False
        self.path = self._directory + b"/" + delivery.part_name.encode()
        if len(self.path) > MAX_PATH_BYTES:
            raise Undelivered("name_too_long", f"{where(delivery)}: no room for the part file's name beside it")

    def create(self) -> None:
        """Make it, removing one that an earlier attempt left, and the directories above it if they are wanted."""
        try:
            self._open()
        except SftpStatus as status:
            if system_text(status.text) == "file exists":
                self._wire.done(self._wire.remove(self.path))
            elif status.code == NO_SUCH_FILE and self._directory:
                self._make_parents()
            else:
                raise
            self._open_again()

    def fill(self, source: BinaryIO, want: Wanted) -> None:
        """Write everything, give it its mode and owner, close it, and compare it with what was wanted."""
        simple = self._delivery.size <= WRITE_BYTES and not want.special and self._delivery.verify == "size"
        requests = self._in_one_go(source, want) if simple else self._step_by_step(source, want)
        requests.append(self._wire.close_handle(self._handle))
        looked = self._wire.lstat(self.path)
        self._handle = b""
        self._wire.done(*requests)
        refuse_unless_exact(self._delivery, want, self._wire.attributes(looked))

    def discard(self) -> None:
        """Close and remove it if it was made and the connection still works."""
        if not self._made or self._wire.broken:
            return
        self._made = False
        # The failure that led here is the one to report; what is left is removed by the next attempt.
        with contextlib.suppress(SftpStatus, WireBroken):
            self._wire.drain()
            requests = [self._wire.close_handle(self._handle)] if self._handle else []
            self._wire.done(*requests, self._wire.remove(self.path))

    def _make_parents(self) -> None:
        directories = _Directories(self._wire, self._delivery)
        missing = directories.missing(self._directory)
        if missing and not self._delivery.mkdirs:
            raise Undelivered("parent_not_found", f"{where(self._delivery)}: there is no {_text(missing[0])}")
        for path in missing:
            directories.make(path)

    def _open(self) -> None:
        self._handle = self._wire.handle(self._wire.create(self.path, _PRIVATE))
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
        # The mode is final, so never too open, before the write is taken up; the owner in between sees to that.
        requests = [self._wire.chmod(self._handle, want.mode),
                    self._wire.chown(self._handle, want.uid, want.gid)]
        requests += [self._wire.write(self._handle, 0, piece)
                     for piece in spool.pieces(source, self._delivery.size, WRITE_BYTES)]
        return requests

    def _step_by_step(self, source: BinaryIO, want: Wanted) -> list[int]:
        self._wire.done(self._wire.chmod(self._handle, _PRIVATE))
        self._write_all(source)
        if self._delivery.verify == "digest":
            self._compare()
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

    def _compare(self) -> None:
        if spool.digest(_contents(self._wire, self._handle, self._delivery.size)) != self._delivery.sha256:
            raise Undelivered("verify_failed", f"{where(self._delivery)}: the bytes read back are others")


class _Directories:
    """The directories above a destination, made as `mkdirs` asks."""

    def __init__(self, wire: Wire, delivery: Delivery) -> None:
        self._wire = wire
        self._want = wanted_directory(delivery)

    def missing(self, directory: bytes) -> list[bytes]:
        """Which of `directory` and those above it are not there, the topmost first."""
        parts = directory.split(b"/")[1:]
        above = [b"/" + b"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        looked = [self._wire.stat(path) for path in above]
        return [path for path, number in zip(above, looked, strict=True) if not self._is_there(path, number)]

    def _is_there(self, path: bytes, looked: int) -> bool:
        try:
            found = self._wire.attributes(looked)
        except SftpStatus as status:
            if status.code == NO_SUCH_FILE:
                return False
            raise
        if not found.is_directory:
            raise Undelivered("parent_not_directory", f"{_text(path)} is not a directory")
        return True

    def make(self, path: bytes) -> None:
        """Make one directory, with mode and owner, unless it is there by now."""
        try:
            self._wire.done(self._wire.mkdir(path))
        except SftpStatus as status:
            # Another push may have made it meanwhile; a link that leads nowhere is no directory.
            if system_text(status.text) != "file exists" or not self._is_there(path, self._wire.stat(path)):
                raise Undelivered("parent_not_directory", f"{_text(path)} is not a directory") from status
            return
        if not self._want.met_by(self._wire.attributes(self._wire.lstat(path))):
            self._set(path)

    def _set(self, path: bytes) -> None:
        # Through a handle: whatever a user of the instance puts at the path meanwhile, only a directory is changed.
        handle = self._wire.handle(self._wire.opendir(path))
        self._wire.done(self._wire.chown(handle, self._want.uid, self._want.gid),
                        self._wire.chmod(handle, self._want.mode), self._wire.close_handle(handle))


def _contents(wire: Wire, handle: bytes, size: int) -> Iterator[bytes]:
    """Yield what is in an open file, and up to one piece more than `size` if it is longer."""
    under_way: deque[int] = deque()
    for offset in range(0, size + 1, READ_BYTES):
        under_way.append(wire.read(handle, offset))
        if len(under_way) >= _WINDOW:
            yield wire.data(under_way.popleft())
    while under_way:
        yield wire.data(under_way.popleft())



def _text(path: bytes) -> str:
    return printable(path.decode("utf-8", "backslashreplace"))
