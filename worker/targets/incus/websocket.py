"""Reading a WebSocket (RFC 6455) that the server writes to, over a connection that was upgraded to it."""

import select
import socket
import ssl
import struct
from typing import Final

#: What asks for the upgrade. The key need not be secret or new: it only keeps caches from answering.
HEADERS: Final = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13",
                  "Sec-WebSocket-Key": "aW5jdXMtY291cmllci4uLg=="}

_TEXT_OR_MORE: Final = frozenset({0, 1, 2})
_CLOSE, _PING, _PONG = 8, 9, 10
_FINAL, _OPCODE, _MASKED, _LENGTH = 0x80, 0x0F, 0x80, 0x7F
_LONG: Final = {126: ">H", 127: ">Q"}
_MAX_FRAME_BYTES: Final = 2**22
_RECEIVE_BYTES: Final = 65536


class StreamEnded(Exception):
    """The stream ended, broke the protocol, or the other side fell silent."""


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
        self._in = bytearray()

    def next(self) -> bytes:
        """Wait for the next message, however long that takes. Raises StreamEnded."""
        message = bytearray()
        while True:
            opcode, final, payload = self._frame()
            if opcode == _CLOSE:
                raise StreamEnded("the other side ended the stream")
            if opcode == _PING:
                self._send(_PONG, payload)
            if opcode in _TEXT_OR_MORE:
                message += payload
                if final:
                    return bytes(message)

    def _frame(self) -> tuple[int, bool, bytes]:
        self._receive(2)
        first, second = self._in[0], self._in[1]
        length, start = second & _LENGTH, 2
        if length in _LONG:
            start += struct.calcsize(_LONG[length])
            self._receive(start)
            (length,) = struct.unpack_from(_LONG[length], self._in, 2)
        if second & _MASKED or length > _MAX_FRAME_BYTES:
            raise StreamEnded("not a frame that a server may send")
        self._receive(start + length)
        payload = bytes(self._in[start:start + length])
        del self._in[:start + length]
        return first & _OPCODE, bool(first & _FINAL), payload

    def _receive(self, wanted: int) -> None:
        while len(self._in) < wanted:
            if not self._wait():
                self._send(_PING, b"")
                if not self._wait():
                    raise StreamEnded(f"silent for {2 * self._idle_s:g} s")
            try:
                piece = self._connection.recv(_RECEIVE_BYTES)
            except OSError as error:
                raise StreamEnded(str(error)) from error
            if not piece:
                raise StreamEnded("the other side closed the connection")
            self._in += piece

    def _wait(self) -> bool:
        if isinstance(self._connection, ssl.SSLSocket) and self._connection.pending():
            return True
        ready = [descriptor for descriptor, _ in self._poll.poll(self._idle_s * 1000)]
        if self._waker.fileno() in ready:
            raise StreamEnded("told to end")
        return bool(ready)

    def _send(self, opcode: int, payload: bytes) -> None:
        # A client must mask what it sends; with a mask of zeros that changes nothing.
        frame = struct.pack(">BB", _FINAL | opcode, _MASKED | len(payload[:125])) + bytes(4) + payload[:125]
        try:
            self._connection.sendall(frame)
        except OSError as error:
            raise StreamEnded(str(error)) from error
