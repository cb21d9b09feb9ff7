"""Answers as values: what the app says, before anything is sent."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from daemon.model.text import json_text

#: An ASGI event, and the two ends through which events travel.
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: In the state of a request's scope: who asks, as `api.http.peers` tells them apart.
PEER: Final = "peer"
#: There too: the `api.http.peers.Via` of the connection.
VIA: Final = "via"
#: There too: the `api.http.forwarded.Forwarded`, which has the address that counts.
FORWARDED: Final = "forwarded"
#: There too: the `daemon.process.listeners.Door` that the request came in by.
DOOR: Final = "door"
#: There too: the `daemon.model.certificate.ShownCertificate` of the client, or None.
CERTIFICATE: Final = "certificate"
#: There too: the `api.access.requester.Requester`.
REQUESTER: Final = "requester"
#: There too: the `Asker`.
ASKER: Final = "asker"

#: What closes the connection after an answer.
CLOSE: Final = (b"connection", b"close")

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
TEXT: Final = "text/plain; charset=utf-8"


class CutOff(Exception):  # noted by who raises it; the client notices the end
    """Raised by the pieces of an answer that cannot be brought to its end: the connection is closed where it is."""


class Asker(Protocol):
    """The client of a request, who may have asked to be told before it sends the body (RFC 9110, 10.1.1)."""

    @property
    def waits(self) -> bool:
        """True while it was not told, has sent nothing of the body, and has no answer."""

    async def invite(self) -> None:
        """Tell it to send the body."""

    async def inform(self, status: int, *headers: tuple[str, str]) -> None:
        """Send it a head before the answer (RFC 9110, 15.2), and tell it to send the body if it waits.

        A client of HTTP/1.0 is told nothing.
        """


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response: its status, media type, body and further headers."""

    status: int
    media_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def plus(self, *headers: tuple[str, str]) -> "Answer":
        """The same answer with more headers."""
        return Answer(self.status, self.media_type, self.body, self.headers + headers)


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """A response whose body comes piece by piece; `pieces` is closed in any case, and what it raises cuts it off."""

    status: int
    media_type: str
    pieces: AsyncGenerator[bytes, None]
    headers: tuple[tuple[str, str], ...] = ()


#: It was done, and there is nothing to say about it.
NOTHING: Final = Answer(204, TEXT, b"")
#: The status of an answer to who has the newest already.
UNCHANGED: Final = 304


def text_answer(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    """An answer in plain UTF-8 text."""
    return Answer(status, TEXT, text.encode("utf-8", "replace"), headers)


def json_answer(status: int, value: Mapping[str, Any], *headers: tuple[str, str], media_type: str = JSON) -> Answer:
    """An answer in JSON, one line, ending with a newline for those who read it in a terminal."""
    return Answer(status, media_type, json_bytes(value) + b"\n", headers)


def unless_known(scope: Scope, etag: str, answer: Answer) -> Answer:
    """The answer with its tag; without its body where the client says that it has that (`If-None-Match`)."""
    known = b",".join(value for name, value in scope["headers"] if name == b"if-none-match").decode("latin-1")
    unchanged = etag in known or known.strip() == "*"
    return replace(answer, status=UNCHANGED if unchanged else answer.status, body=b"" if unchanged else answer.body,
                   headers=(("ETag", etag), *answer.headers))


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """A value in JSON, as answers have it."""
    return json_text(value).encode()


async def send_answer(send: Send, answer: Answer | StreamedAnswer) -> None:
    """Send the whole of `answer`. The server leaves the body out when the request was a HEAD."""
    if isinstance(answer, StreamedAnswer):
        await _send_pieces(send, answer)
        return
    await send({"type": "http.response.start", "status": answer.status, "headers": headers_of(answer)})
    await send({"type": "http.response.body", "body": answer.body, "more_body": False})


async def _send_pieces(send: Send, answer: StreamedAnswer) -> None:
    async with aclosing(answer.pieces) as pieces:
        await send({"type": "http.response.start", "status": answer.status, "headers": [
            (b"content-type", answer.media_type.encode("ascii")), *encoded(answer.headers)]})
        try:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except CutOff:
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def as_http(answer: Answer) -> bytes:
    """The whole of `answer` as it goes over the wire, for who is refused before anything was read."""
    return head_of(answer.status, headers_of(answer)) + answer.body


def head_of(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A head as it goes over the wire."""
    return b"HTTP/1.1 %d \r\n%s\r\n" % (status, b"".join([b"%s: %s\r\n" % header for header in headers]))


def headers_of(answer: Answer) -> list[tuple[bytes, bytes]]:
    """The headers of `answer` as they go over the wire."""
    # Of what is not there nothing is said (RFC 9110, 8.6).
    headers = [] if answer.status in {NOTHING.status, UNCHANGED} else [
        (b"content-type", answer.media_type.encode("ascii")),
        (b"content-length", str(len(answer.body)).encode("ascii"))]
    return [*headers, *encoded(answer.headers)]


def encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Headers as they go over the wire."""
    return [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in headers]
