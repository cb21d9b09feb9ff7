"""The SFTP protocol, version 3, as far as delivering a file needs it, over a socket that is already open.

Requests are queued, sent together and answered by number, so that a small file costs three round trips; a
request is `wire.lstat(path)` and later `wire.attributes(number)`. Paths are bytes. One thread at a time.
See draft-ietf-secsh-filexfer-02 for the format.

It is spoken here because no library sends requests together from plain threads: paramiko's client waits for the answer
to each request (but for reads and writes), and asyncssh's belongs to asyncio and brings all of SSH along.
"""

import socket
import struct
import time
from collections.abc import Callable
from typing import Final

from worker.targets.attributes import Attributes
from worker.targets.base import Patience

#: Longest piece of a file in one write: the server takes packets of at most 256 KiB, header included.
WRITE_BYTES: Final = 255 * 1024
#: What is asked for in one read; the server gives no more at once.
READ_BYTES: Final = 32 * 1024
#: Status codes of the protocol.
OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE = 0, 1, 2, 3, 4

_INIT, _VERSION, _OPEN, _CLOSE, _READ, _WRITE, _LSTAT = 1, 2, 3, 4, 5, 6, 7
_FSTAT, _FSETSTAT, _OPENDIR, _READDIR, _REMOVE, _MKDIR, _RMDIR, _STAT, _READLINK = 8, 10, 11, 12, 13, 14, 15, 17, 19
_STATUS, _HANDLE, _DATA, _NAME, _ATTRS, _EXTENDED = 101, 102, 103, 104, 105, 200
_FOR_READING, _FOR_WRITING, _CREATE, _EXCLUSIVE = 0x01, 0x02, 0x08, 0x20
_HAS_SIZE, _HAS_OWNER, _HAS_MODE, _HAS_TIMES = 0x01, 0x02, 0x04, 0x08
#: What the server tells of every file: of these, in this order, and none else.
_HAS_ALL: Final = _HAS_SIZE | _HAS_OWNER | _HAS_MODE | _HAS_TIMES
_ATTRIBUTES: Final = struct.Struct(">IQIIIII")
#: setuid, setgid and sticky, and where Go keeps them. Servers up to pkg/sftp 1.13.5 take the mode for one of Go's.
_GO_BITS: Final = ((0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20))
_VERSION_3: Final = 3
_MAX_ANSWER_BYTES: Final = 2**20
#: Pieces up to this size wait for their neighbours and leave in one send.
_GATHER_BYTES: Final = 64 * 1024
_RECEIVE_BYTES: Final = 64 * 1024
#: While nothing moves, its limit is looked at so often: it may have become shorter.
_LOOK_S: Final = 0.25
#: Seconds and microseconds, as socket(7) wants them; all zero would be no limit.
_TIMEVAL: Final = struct.Struct("@ll")
#: On, with no time to wait, as socket(7) wants it.
_RESET_ON_CLOSE: Final = struct.pack("@ii", 1, 0)
_POSIX_RENAME: Final = b"posix-rename@openssh.com"


class SftpStatus(Exception):
    """The server refused a request; the connection is as good as before."""

    def __init__(self, code: int, text: str) -> None:
        self.code: Final = code
        self.text: Final = text
        super().__init__(text or f"SFTP status {code}")


class WireBroken(Exception):
    """The connection was lost or speaks nonsense: close it."""


class WireForeign(WireBroken):
    """Said in answer to hello: it speaks something else, or too little of SFTP to deliver by it."""


class WireStalled(WireBroken):
    """Nothing moved for the whole timeout: close the connection."""


class Wire:
    """One SFTP connection. Every method may raise WireStalled or WireBroken."""

    def __init__(self, connection: socket.socket, timeout_s: float, patience: Patience) -> None:
        """Say hello on `connection`, which stays the caller's to close.

        For each step forward `timeout_s` is the limit, or that of `patience` when that is shorter.
        """
        self._connection = connection
        _limit(connection, min(_LOOK_S, timeout_s))
        self._timeout_s = timeout_s
        self._patience = patience
        self._out = bytearray()
        self._in = bytearray()
        self._landing = memoryview(bytearray(_RECEIVE_BYTES))
        self._number = 0
        self._waiting: set[int] = set()
        self._answers: dict[int, bytes] = {}
        self.broken = False
        #: Whether a new file has the mode that it was asked for at once; None until that was seen.
        self.heeds_mode: bool | None = None
        self._out += struct.pack(">IBI", 5, _INIT, _VERSION_3)
        self._flush()
        self._greet(self._next_message())

    def lstat(self, path: bytes) -> int:
        """Ask for the attributes of `path` itself, links not followed."""
        return self._queue(_LSTAT, _string(path))

    def stat(self, path: bytes) -> int:
        """Ask for the attributes of what `path` leads to."""
        return self._queue(_STAT, _string(path))

    def fstat(self, handle: bytes) -> int:
        """Ask for the attributes of an open file or directory."""
        return self._queue(_FSTAT, _string(handle))

    def readdir(self, handle: bytes) -> int:
        """Ask for some of the names in an open directory; the server gives 128 at once."""
        return self._queue(_READDIR, _string(handle))

    def readlink(self, path: bytes) -> int:
        """Ask where the symbolic link `path` points."""
        return self._queue(_READLINK, _string(path))

    def create(self, path: bytes, mode: int) -> int:
        """Make a new file; fails if there is one. Old servers ignore `mode` and use 0644: set it again."""
        flags = _FOR_READING | _FOR_WRITING | _CREATE | _EXCLUSIVE
        return self._queue(_OPEN, _string(path) + struct.pack(">III", flags, _HAS_MODE, mode))

    def open(self, path: bytes) -> int:
        """Open a file for reading."""
        return self._queue(_OPEN, _string(path) + struct.pack(">II", _FOR_READING, 0))

    def open_to_write(self, path: bytes) -> int:
        """Open a file that is there for reading and writing, as it is."""
        return self._queue(_OPEN, _string(path) + struct.pack(">II", _FOR_READING | _FOR_WRITING, 0))

    def opendir(self, path: bytes) -> int:
        """Open a directory."""
        return self._queue(_OPENDIR, _string(path))

    def mkdir(self, path: bytes) -> int:
        """Make a directory; its mode is the server's choice."""
        return self._queue(_MKDIR, _string(path) + struct.pack(">I", 0))

    def rmdir(self, path: bytes) -> int:
        """Remove an empty directory."""
        return self._queue(_RMDIR, _string(path))

    def remove(self, path: bytes) -> int:
        """Remove a file."""
        return self._queue(_REMOVE, _string(path))

    def rename(self, old: bytes, new: bytes) -> int:
        """Give the file at `old` the name `new`; what was there is replaced in one step."""
        return self._queue(_EXTENDED, _string(_POSIX_RENAME) + _string(old) + _string(new))

    def chown(self, handle: bytes, uid: int, gid: int) -> int:
        """Set the owner of an open file or directory."""
        return self._queue(_FSETSTAT, _string(handle) + struct.pack(">III", _HAS_OWNER, uid, gid))

    def chmod(self, handle: bytes, mode: int) -> int:
        """Set the permission bits of an open file or directory.

        Not together with the owner: servers up to pkg/sftp 1.13.5 mix the two up in one request.
        """
        special = sum(go for posix, go in _GO_BITS if mode & posix)
        return self._queue(_FSETSTAT, _string(handle) + struct.pack(">II", _HAS_MODE, mode | special))

    def truncate(self, handle: bytes, size: int) -> int:
        """Have an open file end after `size` bytes."""
        return self._queue(_FSETSTAT, _string(handle) + struct.pack(">IQ", _HAS_SIZE, size))

    def write(self, handle: bytes, offset: int, piece: memoryview) -> int:
        """Write `piece` (at most WRITE_BYTES) at `offset`. The piece is not used after the return."""
        body = _string(handle) + struct.pack(">QI", offset, len(piece))
        number = self._queue(_WRITE, body, len(piece))
        if len(piece) <= _GATHER_BYTES:
            self._out += piece
        else:
            self._flush()
            self._send(piece)
        return number

    def read(self, handle: bytes, offset: int) -> int:
        """Ask for up to READ_BYTES at `offset`."""
        return self._queue(_READ, _string(handle) + struct.pack(">QI", offset, READ_BYTES))

    def close_handle(self, handle: bytes) -> int:
        """Close an open file; the server finishes its writes first."""
        return self._queue(_CLOSE, _string(handle))

    def done(self, *numbers: int) -> None:
        """Wait for the answers to `numbers`; raise SftpStatus for the first that is not OK."""
        for number in numbers:
            self._answer(number, _STATUS)

    def attributes(self, number: int) -> Attributes:
        """Wait for attributes. Raises SftpStatus."""
        return self._attributes(self._answer(number, _ATTRS), 0)

    def names(self, number: int) -> list[bytes]:
        """Wait for names of a directory; none at its end. Raises SftpStatus."""
        try:
            body = self._answer(number, _NAME)
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

    def handle(self, number: int) -> bytes:
        """Wait for the handle of an open file. Raises SftpStatus."""
        return self._string_at(self._answer(number, _HANDLE))

    def link(self, number: int) -> bytes:
        """Wait for where a link points. Raises SftpStatus."""
        return self._string_at(self._answer(number, _NAME), 4)

    def data(self, number: int) -> bytes:
        """Wait for bytes that were read; none at the end of the file. Raises SftpStatus."""
        try:
            return self._string_at(self._answer(number, _DATA))
        except SftpStatus as status:
            if status.code == EOF:
                return b""
            raise

    def drain(self) -> None:
        """Wait for every answer that is still due and forget it."""
        self._until(lambda: not self._waiting)
        self._answers.clear()

    def _greet(self, message: bytes) -> None:
        is_version_3 = message[0] == _VERSION and int.from_bytes(message[1:5]) == _VERSION_3
        if not is_version_3 or _POSIX_RENAME not in message:
            self.broken = True
            raise WireForeign("not SFTP version 3 with posix-rename")

    def _queue(self, kind: int, body: bytes, following: int = 0) -> int:
        self._number = (self._number + 1) & 0xFFFFFFFF
        self._out += struct.pack(">IBI", len(body) + following + 5, kind, self._number) + body
        self._waiting.add(self._number)
        return self._number

    def _answer(self, number: int, kind: int) -> bytes:
        self._until(lambda: number in self._answers)
        message = self._answers.pop(number)
        if message[0] == _STATUS:
            code, text = _status(message)
            if code != OK:
                raise SftpStatus(code, text)
        if message[0] != kind:
            raise self._break(f"answer of kind {message[0]}")
        return message[5:]

    def _until(self, ready: Callable[[], bool]) -> None:
        self._flush()
        while not ready():
            message = self._next_message()
            number = int.from_bytes(message[1:5])
            if number not in self._waiting:
                raise self._break("an answer that nobody asked for")
            self._waiting.discard(number)
            self._answers[number] = message

    def _next_message(self) -> bytes:
        self._receive(4)
        length = int.from_bytes(self._in[:4])
        if not 5 <= length <= _MAX_ANSWER_BYTES:
            raise self._break(f"an answer of {length} bytes")
        self._receive(4 + length)
        message = bytes(self._in[4:4 + length])
        del self._in[:4 + length]
        return message

    def _receive(self, wanted: int) -> None:
        while len(self._in) < wanted:
            received = self._step(self._connection.recv_into, self._landing)
            if not received:
                raise self._break("the other side closed the connection")
            self._in += self._landing[:received]

    def _flush(self) -> None:
        if self._out:
            out, self._out = self._out, bytearray()
            self._send(memoryview(out))

    def _send(self, piece: memoryview) -> None:
        if self.broken:
            raise WireBroken("the connection is broken")
        while piece:
            piece = piece[self._step(self._connection.send, piece):]

    def _step(self, move: Callable[[memoryview], int], room: memoryview) -> int:
        """Receive or send a little, waiting for that as long as patience has it; return how many bytes moved."""
        self._patience.still_since = since = time.monotonic()
        try:
            while True:
                try:
                    return move(room)
                except (TimeoutError, BlockingIOError) as error:
                    limit_s = min(self._timeout_s, self._patience.limit_s)
                    if time.monotonic() - since >= limit_s:
                        raise self._stalled(limit_s) from error
        except OSError as error:
            raise self._break(str(error)) from error
        finally:
            self._patience.still_since = None

    def _stalled(self, limit_s: float) -> WireStalled:
        self.broken = True
        self._patience.hurried = limit_s < self._timeout_s
        # What has not left this machine never does: nobody expects a rename that arrives after all.
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        return WireStalled(f"nothing moved for {limit_s:g} s")

    def _break(self, reason: str) -> WireBroken:
        self.broken = True
        return WireBroken(reason)

    def _string_at(self, body: bytes, at: int = 0) -> bytes:
        end = at + 4 + int.from_bytes(body[at:at + 4])
        if len(body) < end:
            raise self._break("a string that ends too early")
        return body[at + 4:end]

    def _attributes(self, body: bytes, at: int) -> Attributes:
        try:
            flags, size, uid, gid, mode, _, mtime = _ATTRIBUTES.unpack_from(body, at)
        except struct.error as error:
            raise self._break(f"attributes of {len(body) - at} bytes") from error
        if flags & _HAS_ALL != _HAS_ALL:
            raise self._break("attributes without size, owner, mode or times")
        return Attributes(size, uid, gid, mode, mtime)


def _limit(connection: socket.socket, timeout_s: float) -> None:
    """Have every call on `connection` return after that time."""
    if type(connection) is not socket.socket:
        connection.settimeout(timeout_s)
        return
    # By the kernel: Python's own timeout asks with a system call more before each step whether it may wait.
    connection.settimeout(None)
    seconds = int(timeout_s)
    limit = _TIMEVAL.pack(seconds, int((timeout_s - seconds) * 1e6))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, limit)


def _string(value: bytes) -> bytes:
    return len(value).to_bytes(4) + value


def _status(message: bytes) -> tuple[int, str]:
    code = int.from_bytes(message[5:9])
    length = int.from_bytes(message[9:13])
    return code, message[13:13 + length].decode("utf-8", "replace")
