"""A connection on which TLS is spoken, from its handshake to its end.

Guarantees: it behaves as a plain one does. What waits to be read or to be sent is bounded, and is seen by who watches
over it. No connection is half closed: a client that says farewell is gone. Nobody waits for a client's farewell.
"""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Final, cast

from daemon.model.certificate import ShownCertificate
from daemon.process.tls import ServerTls

#: What waits to be sent before an answer has to wait: as much as without TLS.
_WRITE_BUFFER_BYTES: Final = 64 * 1024
#: What all connections are read into: as much as asyncio reads at once.
_READ_BUFFER: Final = bytearray(256 * 1024)
#: How long asyncio lets a handshake and a farewell take: who is too slow is cut off before, here and by `Outflow`.
_NO_LIMIT_S: Final = 2.0**31


@dataclass(frozen=True, slots=True)
class Secured:
    """What takes the place of a plain connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    #: What the client has shown.
    certificate: ShownCertificate | None


async def secure(plain: asyncio.StreamWriter, tls: ServerTls, *, timeout_s: float, limit: int) -> Secured:
    """Do the handshake on a connection from which nothing was read yet; it may take `timeout_s`.

    It has to be called in the turn of the event loop in which the connection came. Raises OSError when it fails: the
    connection is closed then. Streams of its own are made for what comes: those of before would bound what is read
    through the wrong transport (`StreamWriter.start_tls` in Python 3.11 to 3.13).
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=limit)
    protocol = _Protocol(reader)
    async with asyncio.timeout(timeout_s):
        transport = await loop.start_tls(
            plain.transport, protocol, tls.context, server_side=True, ssl_handshake_timeout=_NO_LIMIT_S,
            ssl_shutdown_timeout=_NO_LIMIT_S)
    assert transport is not None  # only for a connection that was lost before it began
    _share_buffer(plain.transport)
    transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
    protocol.connection_made(transport)
    writer = _Writer(transport, protocol, reader, plain)
    try:
        certificate = tls.shown(cast(ssl.SSLObject, transport.get_extra_info("ssl_object")))
    except ssl.SSLError:
        transport.abort()
        raise
    return Secured(reader, writer, certificate)


def _share_buffer(beneath: asyncio.WriteTransport) -> None:
    """Have asyncio read into memory that all connections share: it keeps 256 KiB for each of them.

    What was read is taken from there before anything else happens. Where asyncio names it otherwise, nothing changes.
    """
    protocol = vars(beneath.get_protocol())
    if "_ssl_buffer" in protocol and "_ssl_buffer_view" in protocol:
        protocol["_ssl_buffer"], protocol["_ssl_buffer_view"] = _READ_BUFFER, memoryview(_READ_BUFFER)


def why_failed(error: OSError) -> tuple[str, str | None] | None:
    """A code and a detail for the log of a handshake that failed; None when the client just went away."""
    if isinstance(error, ssl.SSLError):
        code = (error.reason or "certificate_expired").lower()
        return code, getattr(error, "verify_message", None)
    return ("handshake_timeout", None) if isinstance(error, TimeoutError) else None


class _Protocol(asyncio.StreamReaderProtocol):
    """Has the connection end when the client's side ends."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False


class _Writer(asyncio.StreamWriter):
    """Closes the connection beneath as well."""

    def __init__(self, transport: asyncio.Transport, protocol: _Protocol, reader: asyncio.StreamReader,
                 plain: asyncio.StreamWriter) -> None:
        super().__init__(transport, protocol, reader, asyncio.get_running_loop())
        self._plain = plain

    def close(self) -> None:
        # asyncio's transport cannot be asked anything after it was closed twice.
        if not self.is_closing():
            super().close()
            # It sends what it has, our farewell last, and does not wait for the client's.
            self._plain.close()

    async def wait_closed(self) -> None:
        try:
            await super().wait_closed()
        except OSError:
            # How it ended is nobody's affair any more.
            return
