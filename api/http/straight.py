"""What comes on a connection, as its transport reads it: not through a stream, which copies it twice.

Guarantees: what the transport reads at once, 256 KiB, is the most that waits here. Whatever else the connection's
protocol has to know it is told meanwhile, and what was not taken here it gets in the end, unless all is over.
"""

import asyncio
from typing import cast


class Straight(asyncio.Protocol):
    """Stands in for a connection's protocol, which has nothing left to be taken from it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._usual = cast(asyncio.Protocol, transport.get_protocol())
        self._piece = b""
        self._came = asyncio.Event()
        self._over = False
        transport.set_protocol(self)

    async def read(self) -> bytes:
        """What came next; nothing when it was the last. One reader at a time."""
        if not self._piece and not self._over:
            self._transport.resume_reading()
            self._came.clear()
            await self._came.wait()
        piece, self._piece = self._piece, b""
        return piece

    def leave(self) -> None:
        """Let the protocol stand for itself again."""
        self._transport.set_protocol(self._usual)
        self._transport.resume_reading()
        if self._piece and not self._over:
            self._usual.data_received(self._piece)

    # --- what the transport says ----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Keep it, and take no more until somebody has taken it."""
        self._piece += data
        self._transport.pause_reading()
        self._came.set()

    def eof_received(self) -> bool | None:
        """The client sends no more."""
        self._end()
        return self._usual.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing comes any more."""
        self._end()
        self._usual.connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read what it is sent."""
        self._usual.pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self._usual.resume_writing()

    def _end(self) -> None:
        self._over = True
        self._came.set()
