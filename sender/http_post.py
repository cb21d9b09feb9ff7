"""One message to one receiver: a POST to an address that was looked at, within a bounded time.

No redirect is followed, no proxy used, and of the answer only its head is read. The connection goes to exactly the
address that was checked; a name that leads elsewhere a moment later changes nothing.
"""

import asyncio
import contextlib
import re
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

from daemon import __version__
from daemon.model.names import printable
from daemon.webhooks.schedule import DETAIL_LENGTH, TryAnswer
from sender.addresses import may_connect
from sender.names import Names

#: No head of an answer is longer, in bytes.
_MOST_HEAD: Final = 32 * 1024
#: Answers that only announce another one, before that.
_MOST_INTERIM: Final = 8
#: So much of the body is read, and dropped, for so long: a receiver that still writes is not cut off.
_MOST_BODY: Final = 64 * 1024
_BODY_S: Final = 0.5
#: Addresses of one name that are tried.
_MOST_ADDRESSES: Final = 4
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?")
_PORTS: Final = {"http": 80, "https": 443}


class NotAllowed(Exception):
    """Raised when a name leads to no address that may be connected to."""


class BadAnswer(Exception):
    """Raised when what came back is no HTTP."""


@dataclass(frozen=True, kw_only=True)
class Post:
    """What is to be sent, and where to."""

    url: str
    body: bytes
    fields: Sequence[tuple[str, str]]

    @property
    def host(self) -> str:
        """The name or address of the receiver."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Its port."""
        parts = urlsplit(self.url)
        return parts.port or _PORTS[parts.scheme]

    @property
    def secure(self) -> bool:
        """True when TLS is wanted."""
        return urlsplit(self.url).scheme == "https"

    def as_bytes(self) -> bytes:
        """The request as it is sent."""
        parts = urlsplit(self.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        fields = [("Host", parts.netloc), ("User-Agent", f"incus-courier/{__version__}"),
                  ("Content-Type", "application/json"), ("Content-Length", str(len(self.body))), ("Accept", "*/*"),
                  ("Connection", "close"), *self.fields]
        head = "".join(f"{name}: {value}\r\n" for name, value in fields)
        return f"POST {target} HTTP/1.1\r\n{head}\r\n".encode("ascii") + self.body


async def send(post: Post, names: Names, allow: Sequence[str], tls: ssl.SSLContext, timeout_s: float) -> TryAnswer:
    """Send it; return how that ended. Nothing that the network does is raised."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _send(post, names, allow, tls)
    except TimeoutError:
        return _none(f"no answer within {timeout_s:g} s")
    except NotAllowed as error:
        return _none(str(error))
    except ssl.SSLError as error:
        return _none(f"TLS: {getattr(error, 'verify_message', '') or error.reason or error}")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, BadAnswer) as error:
        return _none(f"the answer is no HTTP: {error}")
    except (OSError, UnicodeError) as error:
        return _none(f"{post.host}: {getattr(error, 'strerror', None) or error}")


async def _send(post: Post, names: Names, allow: Sequence[str], tls: ssl.SSLContext) -> TryAnswer:
    connection = await _connect(post, names, allow)
    try:
        reader, writer = await asyncio.open_connection(
            sock=connection, limit=_MOST_HEAD, ssl=tls if post.secure else None,
            server_hostname=post.host if post.secure else None)
    except BaseException:
        connection.close()
        raise
    try:
        writer.write(post.as_bytes())
        status, fields = await _read_head(reader)
        await _drop_body(reader)
    finally:
        # Without a farewell, for which a receiver could have it wait.
        writer.transport.abort()
    detail = f"HTTP {status}" + (": redirects are not followed" if 300 <= status < 400 else "")
    return TryAnswer(status=status, detail=detail, retry_after_s=retry_after_s(fields.get("retry-after"), time.time()))


async def _connect(post: Post, names: Names, allow: Sequence[str]) -> socket.socket:
    """A connection to one of the receiver's addresses that may be connected to. Raises NotAllowed and OSError."""
    loop = asyncio.get_running_loop()
    found = await names.look_up(post.host, post.port)
    allowed = [entry for entry in found if may_connect(str(entry[4][0]), allow)]
    if not allowed:
        where = ", ".join(sorted({str(entry[4][0]) for entry in found})[:_MOST_ADDRESSES])
        raise NotAllowed(f"{post.host} leads to {where}: not public, and not in sender.allow")
    failure: OSError | None = None
    for family, kind, protocol, _, address in allowed[:_MOST_ADDRESSES]:
        connection = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
        try:
            await loop.sock_connect(connection, address)
        except OSError as error:
            connection.close()
            failure = failure or error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failure or OSError("no address")


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, Mapping[str, str]]:
    """The status of the answer, and its fields. Raises BadAnswer, and what the stream raises."""
    for _ in range(_MOST_INTERIM):
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head[:-4].split(b"\r\n")
        found = _STATUS_LINE.fullmatch(first)
        if found is None:
            raise BadAnswer(printable(first[:80].decode("latin-1"), 80))
        status = int(found[1])
        if status >= 200:
            pairs = (line.decode("latin-1").partition(":") for line in lines)
            return status, {name.strip().lower(): value.strip() for name, _, value in pairs}
    raise BadAnswer("only interim answers came")


async def _drop_body(reader: asyncio.StreamReader) -> None:
    read = 0
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(_BODY_S):
            while read < _MOST_BODY and (piece := await reader.read(_MOST_BODY)):
                read += len(piece)


def retry_after_s(text: str | None, now: float) -> float | None:
    """What Retry-After asks for, in seconds from now on; None where it is not there, or not legal. Pure."""
    if text is None or len(text) > 64:
        return None
    if text.isascii() and text.isdigit():
        return float(min(int(text[:10]), 2**30))
    try:
        return min(max(0.0, parsedate_to_datetime(text).timestamp() - now), 2.0**30)
    except (ValueError, TypeError, OverflowError):
        return None


def _none(detail: Any) -> TryAnswer:
    return TryAnswer(status=None, detail=printable(str(detail), DETAIL_LENGTH))
