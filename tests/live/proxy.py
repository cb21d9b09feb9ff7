"""A proxy between a test and Incus, which can stop forwarding or play an old server."""

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.support.waiting import PATIENCE_S

#: What a server without the SFTP endpoint answers.
_BODY = b'{"type":"error","error_code":404,"error":"not found"}'
NO_SFTP = (b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: "
           + str(len(_BODY)).encode() + b"\r\n\r\n" + _BODY)


class Relay:
    """Forwards each connection that `listener` takes to one that `connect` makes, until told otherwise."""

    def __init__(self, listener: socket.socket, connect: Callable[[], socket.socket], without_sftp: bool = False,
                 stall_after: int | None = None, hold: bytes | None = None) -> None:
        """`stall_after` bytes from the client on a connection, forward nothing more of it, either way.

        The first piece from a client that has `hold` in it is on its way until `let_arrive`, whatever the client does.
        """
        self._listener = listener
        self._connect = connect
        self._without_sftp = without_sftp
        self._stall_after = stall_after
        self._stalled = threading.Event()
        self._hold = hold
        self.held = threading.Event()
        self._arrives = threading.Event()
        #: `stall_after` bytes were forwarded, and there was more.
        self.stalled_after = threading.Event()
        self._answered = threading.Event()
        self._open: list[socket.socket] = []
        self._listener.listen()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._arrives.set()
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

    def let_arrive(self) -> None:
        """Forward what is held, and return when it was answered."""
        self._arrives.set()
        assert self._answered.wait(PATIENCE_S)

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
        back = self._start(self._pump, server, client)
        if self._pump(client, server, self._stall_after, self._hold):
            back.join()
            self._answered.set()

    def _start(self, work: Callable[..., object], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()
        return thread

    def _pump(self, source: socket.socket, sink: socket.socket, limit: int | None = None, hold: bytes | None = None) -> bool:
        """Forward one way, to the end; return whether that was held up."""
        forwarded = 0
        was_held = False
        with contextlib.suppress(OSError):
            while not self._stalled.is_set() and (piece := source.recv(65536)):
                if limit is not None and forwarded + len(piece) > limit:
                    self.stalled_after.set()
                    return False
                if hold is not None and hold in piece and not self.held.is_set():
                    self.held.set()
                    was_held = self._arrives.wait()
                if self._stalled.is_set():
                    return False
                sink.sendall(piece)
                forwarded += len(piece)
            if not self._stalled.is_set():
                sink.shutdown(socket.SHUT_WR)
        return was_held


class Proxy(Relay):
    """Forwards from a Unix socket at `path` to Incus's own."""

    def __init__(self, path: Path, upstream: str, without_sftp: bool = False, stall_after: int | None = None,
                 hold: bytes | None = None) -> None:
        """As a Relay."""
        self.path = str(path)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        super().__init__(listener, lambda: connect(upstream), without_sftp, stall_after, hold)


def connect(path: str) -> socket.socket:
    """Connect to a Unix socket."""
    made = socket.socket(socket.AF_UNIX)
    try:
        made.connect(path)
    except OSError:
        made.close()
        raise
    return made
