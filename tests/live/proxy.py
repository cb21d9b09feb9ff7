"""A proxy between a test and Incus, which can stop forwarding or play an old server."""

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

#: What a server without the SFTP endpoint answers.
_BODY = b'{"type":"error","error_code":404,"error":"not found"}'
NO_SFTP = (b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: "
           + str(len(_BODY)).encode() + b"\r\n\r\n" + _BODY)


class Relay:
    """Forwards each connection that `listener` takes to one that `connect` makes, until told otherwise."""

    def __init__(self, listener: socket.socket, connect: Callable[[], socket.socket], without_sftp: bool = False,
                 stall_after: int | None = None) -> None:
        """`stall_after` bytes from the client on a connection, forward nothing more of it, either way."""
        self._listener = listener
        self._connect = connect
        self._without_sftp = without_sftp
        self._stall_after = stall_after
        self._stalled = threading.Event()
        self._open: list[socket.socket] = []
        self._listener.listen()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)
        for end in self._open:
            end.close()

    def stall(self) -> None:
        """Forward nothing more."""
        self._stalled.set()

    def cut(self) -> None:
        """End every connection."""
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            first = client.recv(65536)
            if self._without_sftp and b"/sftp" in first.split(b"\r\n", 1)[0]:
                client.sendall(NO_SFTP)
            elif first and not self._stalled.is_set():
                self._forward(client, first)

    def _forward(self, client: socket.socket, first: bytes) -> None:
        # Only now: Incus takes up no other connection as long as one has said nothing.
        server = self._connect()
        self._open.append(server)
        server.sendall(first)
        self._start(self._pump, server, client, None)
        self._pump(client, server, self._stall_after)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        forwarded = 0
        with contextlib.suppress(OSError):
            while not self._stalled.is_set() and (piece := source.recv(65536)):
                if limit is not None and forwarded + len(piece) > limit:
                    return
                if self._stalled.is_set():
                    return
                sink.sendall(piece)
                forwarded += len(piece)
            if not self._stalled.is_set():
                sink.shutdown(socket.SHUT_WR)


class Proxy(Relay):
    """Forwards from a Unix socket at `path` to Incus's own."""

    def __init__(self, path: Path, upstream: str, without_sftp: bool = False, stall_after: int | None = None) -> None:
        """As a Relay."""
        self.path = str(path)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        super().__init__(listener, lambda: connect(upstream), without_sftp, stall_after)


def connect(path: str) -> socket.socket:
    """Connect to a Unix socket."""
    made = socket.socket(socket.AF_UNIX)
    try:
        made.connect(path)
    except OSError:
        made.close()
        raise
    return made
