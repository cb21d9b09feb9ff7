"""Reading a WebSocket that the server writes to, over a connection that HTTP upgraded to it.

wsproto, which only this module knows, makes and checks handshake and frames (RFC 6455). The socket, the waiting and the
limits are here.
"""

import select
import socket
import ssl
from collections import deque
from typing import Final

from wsproto.connection import CLIENT, Connection
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.utilities import generate_accept_token, generate_nonce

#: Incus's and LXD's events are of a few KiB.
_MAX_MESSAGE_BYTES: Final = 2**22
_RECEIVE_BYTES: Final = 65536


class StreamEnded(Exception):
    """The stream ended, broke the protocol, or the other side fell silent."""


class Handshake:
    """One request for the upgrade: `headers` ask for it with a key that is used once."""

    def __init__(self) -> None:
        key = generate_nonce()
        self._accept: Final = generate_accept_token(key).decode()
        self.headers: Final = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key.decode()}

    def check(self, accept: str | None) -> None:
        """Raise StreamEnded unless the answer, with this Sec-WebSocket-Accept, is to this very request."""
        if accept != self._accept:
            raise StreamEnded("the answer does not accept this WebSocket")


class EventStream:
    """The messages of one WebSocket, one after the other."""

    def __init__(self, connection: socket.socket, waker: socket.socket, idle_s: float) -> None:
        """Read from `connection`; something to read on `waker` ends the stream. Both stay the caller's to close.

        After `idle_s` without a message the other side is asked whether it is there; after twice that it is not.
        """
        self._connection = connection
        self._waker = waker
        self._idle_s = idle_s
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._poll.register(waker, select.POLLIN)
        self._protocol = Connection(CLIENT)
        self._events: deque[Event] = deque()

    def next(self) -> bytes:
        """Wait for the next message, however long that takes. Raises StreamEnded."""
        message = bytearray()
        while True:
            event = self._next_event()
            if isinstance(event, CloseConnection):
                self._send(event.response())
                raise StreamEnded(event.reason or "the other side ended the stream")
            if isinstance(event, Ping):
                self._send(event.response())
            if isinstance(event, TextMessage | BytesMessage):
                message += event.data.encode() if isinstance(event, TextMessage) else event.data
                if len(message) > _MAX_MESSAGE_BYTES:
                    raise StreamEnded(f"a message of more than {_MAX_MESSAGE_BYTES} bytes")
                if event.message_finished:
                    return bytes(message)

    def _next_event(self) -> Event:
        while not self._events:
            self._protocol.receive_data(self._receive())
            self._events.extend(self._protocol.events())
        return self._events.popleft()

    def _receive(self) -> bytes:
        if not self._wait():
            self._send(Ping())
            if not self._wait():
                raise StreamEnded(f"silent for {2 * self._idle_s:g} s")
        try:
            piece = self._connection.recv(_RECEIVE_BYTES)
        except OSError as error:
            raise StreamEnded(str(error)) from error
        if not piece:
            raise StreamEnded("the other side closed the connection")
        return piece

    def _wait(self) -> bool:
        if isinstance(self._connection, ssl.SSLSocket) and self._connection.pending():
            return True
        ready = [descriptor for descriptor, _ in self._poll.poll(self._idle_s * 1000)]
        if self._waker.fileno() in ready:
            raise StreamEnded("told to end")
        return bool(ready)

    def _send(self, event: Event) -> None:
        try:
            self._connection.sendall(self._protocol.send(event))
        except OSError as error:
            raise StreamEnded(str(error)) from error
