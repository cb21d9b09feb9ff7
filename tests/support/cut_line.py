"""A line between a client and the service that is cut again and again, and what went over it."""

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Self

_PIECE_BYTES = 64 * 1024
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_OFFSET = re.compile(rb"\r\nupload-offset:[ \t]*(\d+)\r", re.IGNORECASE)
#: A header that tells an offset is shorter.
_TAIL_BYTES = 64


@dataclass
class Part:
    """One request that sent bytes of a file."""

    #: Where in the file it began.
    offset: int
    #: The last offset that the service had told before.
    told: int
    #: Bytes of its body that went on to the service.
    sent_bytes: int = 0
    #: When it was cut: bytes that the service had not read by then, or more.
    unread_bytes: int | None = None


@dataclass
class _Requests:
    """The requests of one connection, told apart by their heads."""

    begin: Callable[[int], Part]
    part: Part = field(default_factory=lambda: Part(0, 0))
    _head: bytes = b""
    _left: int = 0

    def take(self, data: bytes) -> None:
        """Count what goes on to the service."""
        while data:
            if self._left:
                taken = min(self._left, len(data))
                self.part.sent_bytes += taken
                self._left -= taken
                data = data[taken:]
                continue
            self._head += data
            head, end, data = self._head.partition(_HEAD_END)
            if not end:
                return
            self._head = b""
            length, offset = _LENGTH.search(head), _OFFSET.search(head + end)
            self._left = int(length[1]) if length else 0
            if self._left:
                self.part = self.begin(int(offset[1]) if offset else 0)


class CutLine:
    """Listens at a port of its own, and passes all on to the service until each of some connections was cut.

    A connection is cut by a reset, or hangs: then the client sees it end, and the service does not. It may also stay as it
    is until something has been done to the service: see `down`.
    """

    def __init__(
        self, port: int | Callable[[], socket.socket], *, cuts: int = 0, span: tuple[int, int] = (0, 0), seed: int = 0,
        hangs: bool = False, down_at: Collection[int] = (),
    ) -> None:
        """Lead to `port` of this machine, or where that connects; cut `cuts` connections after `span` bytes of a client.

        At the cuts of the numbers `down_at`, counted from 1, it is down until somebody has it up again.
        """
        self._reach = port if callable(port) else partial(socket.create_connection, ("127.0.0.1", port))
        self._random = Random(seed)
        self._left = cuts
        self._span = span
        self._hangs = hangs
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._kept: list[socket.socket] = []
        self._told = 0
        self.down_at = down_at
        self._down: Part | None = None
        self._up = threading.Event()
        self._up.set()
        #: In the order in which they began.
        self.parts: list[Part] = []
        self.cut = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._up.set()
        for kept in self._kept:
            kept.close()

    @property
    def port(self) -> int:
        """Where clients come in."""
        return int(self._listener.getsockname()[1])

    def sent_again_bytes(self) -> int:
        """Bytes that went to the service a second time: those that were on their way when a connection was cut."""
        return sum(max(0, part.offset + part.sent_bytes - then.offset)
                   for part, then in zip(self.parts, self.parts[1:], strict=False))

    @property
    def is_down(self) -> bool:
        """True while nothing goes on, and whoever comes waits."""
        return self._down is not None

    @contextlib.contextmanager
    def down(self) -> Iterator[Part]:
        """Have it up afterwards; it has to be down. Gives the part that was under way."""
        assert self._down is not None
        yield self._down
        self._down = None
        self._up.set()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._converse, args=(client,), daemon=True).start()

    def _converse(self, client: socket.socket) -> None:
        self._up.wait()
        try:
            service = self._reach()
        except OSError:
            _reset(client)
            return
        back = threading.Thread(target=self._answer, args=(service, client), daemon=True)
        back.start()
        requests = _Requests(self._begin)
        budget = self._budget()
        with contextlib.suppress(OSError):
            while data := client.recv(_PIECE_BYTES):
                is_last = budget is not None and len(data) >= budget
                data = data[:budget] if is_last else data
                # First, as the answer may come before this goes on.
                requests.take(data)
                service.sendall(data)
                if is_last:
                    self._end(requests.part, client, service)
                    return
                budget = None if budget is None else budget - len(data)
            service.shutdown(socket.SHUT_WR)
            back.join()
        client.close()
        service.close()

    def _answer(self, service: socket.socket, client: socket.socket) -> None:
        tail = b""
        with contextlib.suppress(OSError):
            while data := service.recv(_PIECE_BYTES):
                tail += data
                for offset in _OFFSET.findall(tail):
                    self._told = int(offset)
                tail = tail[-_TAIL_BYTES:]
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)

    def _budget(self) -> int | None:
        """After how many bytes a connection is cut."""
        with self._lock:
            return self._random.randint(*self._span) if self._left > 0 else None

    def _begin(self, offset: int) -> Part:
        with self._lock:
            part = Part(offset, self._told)
            self.parts.append(part)
            return part

    def _end(self, part: Part, client: socket.socket, service: socket.socket) -> None:
        # The kernel lists no such queues of a Unix socket.
        part.unread_bytes = _unread_bytes(service) if service.family == socket.AF_INET else None
        with self._lock:
            self._left -= 1
            self.cut += 1
            is_down = self.cut in self.down_at
        if is_down:
            self._up.clear()
            self._down = part
            self._up.wait()
        if self._hangs:
            self._kept.append(service)
        else:
            _reset(service)
        _reset(client)


def _unread_bytes(connection: socket.socket) -> int:
    """Bytes that were sent on a connection within this machine, and not read at its other end; some count twice."""
    here, there = (_as_listed(address) for address in (connection.getsockname(), connection.getpeername()))
    # What moves on meanwhile is seen twice rather than not at all.
    return _queues(here, there)[0] + _queues(there, here)[1]


def _queues(here: str, there: str) -> tuple[int, int]:
    """Bytes of a connection that are not acknowledged, and bytes of it that are not read."""
    for line in Path("/proc/net/tcp").read_text().splitlines():
        _, local, remote, _, queues, *_ = line.split()
        if (local, remote) == (here, there):
            sent, _, received = queues.partition(":")
            return int(sent, 16), int(received, 16)
    return 0, 0


def _as_listed(address: tuple[str, int]) -> str:
    [number] = struct.unpack("=I", socket.inet_aton(address[0]))
    return f"{number:08X}:{address[1]:04X}"


def _reset(connection: socket.socket) -> None:
    """End a connection as a line that breaks does, with all that is on its way."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Whoever waits to read from it is woken by that, and by a close alone he is not.
        connection.shutdown(socket.SHUT_RD)
    connection.close()
