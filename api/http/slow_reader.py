"""What a client leaves unread: how long answers wait for it in memory.

Guarantees: a connection whose client reads nothing for `timeout_s`, or on the whole slower than `min_rate_bytes_s`, is
cut off with all that waits in it, also while it is being closed. A client that reads costs no timer.
"""

import asyncio
from collections.abc import Callable

from api.http.pace import Pace
from daemon.log import log


class Outflow:
    """The way out of one connection."""

    def __init__(
        self, transport: asyncio.WriteTransport, pace: Callable[[], Pace],
        beneath: asyncio.WriteTransport | None = None,
    ) -> None:
        """`beneath` is what a transport of TLS hands on to, which keeps most of what waits."""
        self._transport = transport
        self._beneath = beneath
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._written_bytes = 0
        #: When the client began to be waited for, and what it had read by then.
        self._since = 0.0
        self._read_before = 0
        self._read_at_last_look = 0

    def write(self, data: bytes) -> None:
        """Send `data`, or keep it until the client reads. Raises ConnectionError when the connection is closed."""
        if self._transport.is_closing():
            raise ConnectionError("the connection is closed")
        if self._timer is not None and not self._waiting_bytes:
            self.end()
        self._transport.write(data)
        self._written_bytes += len(data)
        if self._timer is None and self._waiting_bytes:
            self._since = self._loop.time()
            self._read_before = self._read_at_last_look = self._read_bytes
            self._look_again(self._pace().timeout_s)

    def end(self) -> None:
        """The connection is closed, or nothing waits: stop looking."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    @property
    def _waiting_bytes(self) -> int:
        beneath = 0 if self._beneath is None else self._beneath.get_write_buffer_size()
        return self._transport.get_write_buffer_size() + beneath

    @property
    def _read_bytes(self) -> int:
        return self._written_bytes - self._waiting_bytes

    def _look_again(self, after_s: float) -> None:
        self._timer = self._loop.call_later(after_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._waiting_bytes:
            return
        read = self._read_bytes
        patience_s = self._pace().patience_s(read - self._read_before, self._loop.time() - self._since)
        if read == self._read_at_last_look or patience_s <= 0:
            log("answer.unread", waiting_bytes=self._waiting_bytes)
            self._transport.abort()
            return
        self._read_at_last_look = read
        self._look_again(patience_s)
