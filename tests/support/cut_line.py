"""A line between a client and the service that is cut again and again, and what went over it."""

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Self

_PIECE_BYTES = 64 * 1024
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_OFFSET = re.compile(rb"\r\nupload-offset:[ \t]*(\d+)", re.IGNORECASE)


@dataclass
class Part:
    """One request that sent bytes of a file."""

    #: Where in the file it began.
    offset: int
    #: Bytes of its body that went on to the service.
    sent_bytes: int = 0


@dataclass
class _Requests:
    """The requests of one connection, told apart by their heads."""

    note: Callable[[Part], None]
    _head: bytes = b""
    _left: int = 0
    _part: Part = field(default_factory=lambda: Part(0))

    def take(self, data: bytes) -> None:
        """Count what went on to the service."""
        while data:
            if self._left:
                taken = min(self._left, len(data))
                self._part.sent_bytes += taken
                self._left -= taken
                data = data[taken:]
                continue
            self._head += data
            head, end, data = self._head.partition(_HEAD_END)
            if not end:
                return
            self._head = b""
            length, offset = _LENGTH.search(head), _OFFSET.search(head)
            self._left = int(length[1]) if length else 0
            self._part = Part(int(offset[1]) if offset else 0)
            if self._left:
                self.note(self._part)


class CutLine:
    """Listens at a port of its own, and passes all on to the service until each of some connections was cut.

    A connection is cut by a reset, or hangs: then the client sees it end, and the service does not.
    """

    def __init__(
        self, port: int | Callable[[], socket.socket], *, cuts: int = 0, span: tuple[int, int] = (0, 0), seed: int = 0,
        hangs: bool = False,
    ) -> None:
        """Lead to `port` of this machine, or where that connects; cut `cuts` connections after `span` bytes of a client."""
        self._reach = port if callable(port) else partial(socket.create_connection, ("127.0.0.1", port))
        self._random = Random(seed)
        self._left = cuts
        self._span = span
        self._hangs = hangs
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._kept: list[socket.socket] = []
        #: In the order in which they began.
        self.parts: list[Part] = []
        self.cut = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
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

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._converse, args=(client,), daemon=True).start()

    def _converse(self, client: socket.socket) -> None:
        try:
            service = self._reach()
        except OSError:
            _reset(client)
            return
        back = threading.Thread(target=_pump, args=(service, client), daemon=True)
        back.start()
        requests = _Requests(self._note)
        budget = self._budget()
        with contextlib.suppress(OSError):
            while data := client.recv(_PIECE_BYTES):
                if budget is not None and len(data) >= budget:
                    service.sendall(data[:budget])
                    requests.take(data[:budget])
                    self._end(client, service)
                    return
                service.sendall(data)
                requests.take(data)
                budget = None if budget is None else budget - len(data)
            service.shutdown(socket.SHUT_WR)
            back.join()
        client.close()
        service.close()

    def _budget(self) -> int | None:
        """After how many bytes a connection is cut."""
        with self._lock:
            return self._random.randint(*self._span) if self._left > 0 else None

    def _note(self, part: Part) -> None:
        with self._lock:
            self.parts.append(part)

    def _end(self, client: socket.socket, service: socket.socket) -> None:
        with self._lock:
            self._left -= 1
            self.cut += 1
        if self._hangs:
            self._kept.append(service)
        else:
            _reset(service)
        _reset(client)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_PIECE_BYTES):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _reset(connection: socket.socket) -> None:
    """End a connection as a line that breaks does, with all that is on its way."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Whoever waits to read from it is woken by that, and by a close alone he is not.
        connection.shutdown(socket.SHUT_RD)
    connection.close()
