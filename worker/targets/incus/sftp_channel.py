"""The SFTP protocol, version 3, as far as delivering a file needs it: what one piece of work asks over a wire.

A request is `channel.lstat(path)` and later `await channel.attributes(number)`. Requests leave together, so that a
small file costs three round trips, which it shares with all that is asked meanwhile. Paths are bytes.
See draft-ietf-secsh-filexfer-02 for the format.
"""

import struct
import types
from collections.abc import Generator
from functools import partial
from typing import Final

from worker.targets.attributes import Attributes
from worker.targets.incus.sftp_wire import POSIX_RENAME, Wire

#: Longest piece of a file in one write: the server takes packets of at most 256 KiB, header included.
WRITE_BYTES: Final = 255 * 1024
#: What is asked for in one read; the server gives no more at once.
READ_BYTES: Final = 32 * 1024
#: Status codes of the protocol.
OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE = 0, 1, 2, 3, 4

_OPEN, _CLOSE, _READ, _WRITE, _LSTAT = 3, 4, 5, 6, 7
_FSTAT, _FSETSTAT, _OPENDIR, _READDIR, _REMOVE, _MKDIR, _RMDIR, _STAT, _READLINK = 8, 10, 11, 12, 13, 14, 15, 17, 19
_STATUS, _HANDLE, _DATA, _NAME, _ATTRS, _EXTENDED = 101, 102, 103, 104, 105, 200
_FOR_READING, _FOR_WRITING, _CREATE, _EXCLUSIVE = 0x01, 0x02, 0x08, 0x20
_HAS_SIZE, _HAS_OWNER, _HAS_MODE, _HAS_TIMES = 0x01, 0x02, 0x04, 0x08
#: What the server tells of every file: of these, in this order, and none else.
_HAS_ALL: Final = _HAS_SIZE | _HAS_OWNER | _HAS_MODE | _HAS_TIMES
_ATTRIBUTES: Final = struct.Struct(">IQIIIII")
#: setuid, setgid and sticky, and where Go keeps them. Servers up to pkg/sftp 1.13.5 take the mode for one of Go's.
_GO_BITS: Final = ((0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20))


class SftpStatus(Exception):
    """The server refused a request; the connection is as good as before."""

    def __init__(self, code: int, text: str) -> None:
        self.code: Final = code
        self.text: Final = text
        super().__init__(text or f"SFTP status {code}")


class Channel:
    """What one piece of work asks, and its answers. What it asks or waits for may raise WireStalled or WireBroken."""

    def __init__(self, wire: Wire) -> None:
        self.wire: Final = wire
        self._ask = partial(wire.ask, self)
        self._answers: dict[int, bytes] = {}
        #: The number that is waited for; None: all that are due.
        self._wanted: int | None = None

    def lstat(self, path: bytes) -> int:
        """Ask for the attributes of `path` itself, links not followed."""
        return self._ask(_LSTAT, _string(path))

    def stat(self, path: bytes) -> int:
        """Ask for the attributes of what `path` leads to."""
        return self._ask(_STAT, _string(path))

    def fstat(self, handle: bytes) -> int:
        """Ask for the attributes of an open file or directory."""
        return self._ask(_FSTAT, _string(handle))

    def readdir(self, handle: bytes) -> int:
        """Ask for some of the names in an open directory; the server gives 128 at once."""
        return self._ask(_READDIR, _string(handle))

    def readlink(self, path: bytes) -> int:
        """Ask where the symbolic link `path` points."""
        return self._ask(_READLINK, _string(path))

    def create(self, path: bytes, mode: int) -> int:
        """Make a new file; fails if there is one. Old servers ignore `mode` and use 0644: set it again."""
        flags = _FOR_READING | _FOR_WRITING | _CREATE | _EXCLUSIVE
        return self._ask(_OPEN, _string(path) + struct.pack(">III", flags, _HAS_MODE, mode))

    def open(self, path: bytes) -> int:
        """Open a file for reading."""
        return self._ask(_OPEN, _string(path) + struct.pack(">II", _FOR_READING, 0))

    def open_to_write(self, path: bytes) -> int:
        """Open a file that is there for reading and writing, as it is."""
        return self._ask(_OPEN, _string(path) + struct.pack(">II", _FOR_READING | _FOR_WRITING, 0))

    def opendir(self, path: bytes) -> int:
        """Open a directory."""
        return self._ask(_OPENDIR, _string(path))

    def mkdir(self, path: bytes) -> int:
        """Make a directory; its mode is the server's choice."""
        return self._ask(_MKDIR, _string(path) + struct.pack(">I", 0))

    def rmdir(self, path: bytes) -> int:
        """Remove an empty directory."""
        return self._ask(_RMDIR, _string(path))

    def remove(self, path: bytes) -> int:
        """Remove a file."""
        return self._ask(_REMOVE, _string(path))

    def rename(self, old: bytes, new: bytes) -> int:
        """Give the file at `old` the name `new`; what was there is replaced in one step."""
        return self._ask(_EXTENDED, _string(POSIX_RENAME) + _string(old) + _string(new))

    def chown(self, handle: bytes, uid: int, gid: int) -> int:
        """Set the owner of an open file or directory."""
        return self._ask(_FSETSTAT, _string(handle) + struct.pack(">III", _HAS_OWNER, uid, gid))

    def chmod(self, handle: bytes, mode: int) -> int:
        """Set the permission bits of an open file or directory.

        Not together with the owner: servers up to pkg/sftp 1.13.5 mix the two up in one request.
        """
        special = sum(go for posix, go in _GO_BITS if mode & posix)
        return self._ask(_FSETSTAT, _string(handle) + struct.pack(">II", _HAS_MODE, mode | special))

    def truncate(self, handle: bytes, size: int) -> int:
        """Have an open file end after `size` bytes."""
        return self._ask(_FSETSTAT, _string(handle) + struct.pack(">IQ", _HAS_SIZE, size))

    def write(self, handle: bytes, offset: int, piece: memoryview) -> int:
        """Write `piece` (at most WRITE_BYTES) at `offset`. The piece is not used after the return."""
        return self._ask(_WRITE, _string(handle) + struct.pack(">QI", offset, len(piece)), piece)

    def read(self, handle: bytes, offset: int) -> int:
        """Ask for up to READ_BYTES at `offset`."""
        return self._ask(_READ, _string(handle) + struct.pack(">QI", offset, READ_BYTES))

    def close_handle(self, handle: bytes) -> int:
        """Close an open file; the server finishes its writes first."""
        return self._ask(_CLOSE, _string(handle))

    async def done(self, *numbers: int) -> None:
        """Wait for the answers to `numbers`; raise SftpStatus for the first that is not OK."""
        for number in numbers:
            await self._answer(number, _STATUS)

    async def attributes(self, number: int) -> Attributes:
        """Wait for attributes. Raises SftpStatus."""
        return self._attributes(await self._answer(number, _ATTRS), 0)

    async def names(self, number: int) -> list[bytes]:
        """Wait for names of a directory; none at its end. Raises SftpStatus."""
        try:
            body = await self._answer(number, _NAME)
        except SftpStatus as status:
            if status.code == EOF:
                return []
            raise
        names = []
        at = 4
        for _ in range(int.from_bytes(body[:4])):
            names.append(self._string_at(body, at))
            at += 4 + len(names[-1])
            at += 4 + len(self._string_at(body, at))
            self._attributes(body, at)
            at += _ATTRIBUTES.size
        return names

    async def handle(self, number: int) -> bytes:
        """Wait for the handle of an open file. Raises SftpStatus."""
        return self._string_at(await self._answer(number, _HANDLE))

    async def link(self, number: int) -> bytes:
        """Wait for where a link points. Raises SftpStatus."""
        return self._string_at(await self._answer(number, _NAME), 4)

    async def data(self, number: int) -> bytes:
        """Wait for bytes that were read; none at the end of the file. Raises SftpStatus."""
        try:
            return self._string_at(await self._answer(number, _DATA))
        except SftpStatus as status:
            if status.code == EOF:
                return b""
            raise

    async def drain(self) -> None:
        """Wait for every answer that is still due and forget it."""
        if self.wire.owes(self):
            await self._arrival(None)
        self._answers.clear()

    def take(self, number: int, message: bytes) -> bool:
        """Take an answer; return True when this was what is waited for."""
        self._answers[number] = message
        return not self.wire.owes(self) if self._wanted is None else self._wanted == number

    @types.coroutine
    def _arrival(self, number: int | None) -> Generator[None, None, None]:
        """Wait for an answer, or for all that are due: `wire` goes on with this when they are there."""
        self._wanted = number
        yield

    async def _answer(self, number: int, kind: int) -> bytes:
        if number not in self._answers:
            await self._arrival(number)
        message = self._answers.pop(number)
        if message[0] == _STATUS:
            code = int.from_bytes(message[5:9])
            if code != OK:
                raise SftpStatus(code, _text(message))
        if message[0] != kind:
            raise self.wire.breaks(f"answer of kind {message[0]}")
        return message[5:]

    def _string_at(self, body: bytes, at: int = 0) -> bytes:
        end = at + 4 + int.from_bytes(body[at:at + 4])
        if len(body) < end:
            raise self.wire.breaks("a string that ends too early")
        return body[at + 4:end]

    def _attributes(self, body: bytes, at: int) -> Attributes:
        try:
            flags, size, uid, gid, mode, _, mtime = _ATTRIBUTES.unpack_from(body, at)
        except struct.error as error:
            raise self.wire.breaks(f"attributes of {len(body) - at} bytes") from error
        if flags & _HAS_ALL != _HAS_ALL:
            raise self.wire.breaks("attributes without size, owner, mode or times")
        return Attributes(size, uid, gid, mode, mtime)


def _string(value: bytes) -> bytes:
    return len(value).to_bytes(4) + value


def _text(message: bytes) -> str:
    """What a status says to people."""
    length = int.from_bytes(message[9:13])
    return message[13:13 + length].decode("utf-8", "replace")
