"""Requests as they are read from one connection: h11's parser, with what it leaves open decided.

- A head, the line of one chunk, and the trailers have at most `MAX_HEAD_BYTES` each, however they are cut into packets.
- What stands around the bytes of a file is read strictly (`api.http.framing`).
- Whoever waits to be told to send the body is told when somebody wants it, not before it was decided about.
- Empty lines before a request are passed over (RFC 9112, 2.2); they count as a part of its head.
- What follows a request that closes the connection is not looked at (RFC 9112, 9.6).
- Only HTTP/1.0 and HTTP/1.1 are spoken.
- A digest in a trailer is refused: nobody checks it. Other trailers are ignored (RFC 9110, 6.5.1).
- Of a large body whose length was stated h11 reads the first bytes and the last one: between them nothing can be found,
  and it copies what it reads four times.

h11 is imported here and nowhere else, and nothing of it that it does not document is used.
"""

import re
from collections.abc import Iterable
from typing import Final

import h11

from api.http.framing import fault_around_body, fault_of_head
from api.http.plain_request import MAX_HEAD_BYTES as MAX_HEAD_BYTES
from api.http.response import Answer, encoded, headers_of

#: Fields that promise a digest: RFC 9530, RFC 1864, and RFC 3230, which is obsolete.
DIGEST_FIELDS: Final = frozenset({b"repr-digest", b"content-digest", b"content-md5", b"digest"})
#: In a trailer nobody checks these either.
_PROMISES: Final = DIGEST_FIELDS | {b"upload-checksum"}
VERSIONS: Final = frozenset({b"1.0", b"1.1"})
#: When more than this of a body has yet to come, h11 does not read it.
PLAIN_LEAST_BYTES: Final = 256 * 1024

_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+")
_BAD_REQUEST: Final = 400
#: What a request is refused with that cannot be read, by the status that h11 gives it.
_CODES: Final = {431: "long_head", 501: "unknown_coding"}
#: What a client is told to send its body with (RFC 9110, 15.2.1).
CONTINUE: Final = h11.InformationalResponse(status_code=100, headers=[])

Request = h11.Request
Event = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]


class RequestReader(h11.Connection):
    """The requests of one connection, one event after the other."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)
        #: Why the request is refused, when `next_event` has raised.
        self.code = "bad_request"
        #: True when the request under way takes no body as its answer (RFC 9110, 9.3.2).
        self.is_head = False
        #: What was received and is not parsed yet.
        self._unparsed = b""
        #: What came since the last event and does not belong to a file.
        self._framing = b""
        #: The beginning of what may become an empty line.
        self._begun = b""
        self._request: h11.Request | None = None
        #: Bytes of the body under way that have yet to come, if their number was stated.
        self._left = 0
        #: So many of the bytes that come next are a file's, and not for h11; and what came of them.
        self._plain_left = 0
        self._plain = b""

    @property
    def is_plain(self) -> bool:
        """True while nothing but bytes of a file can come."""
        return self._plain_left > 0

    @property
    def at_rest(self) -> bool:
        """True when nothing is there of a request that has not ended."""
        return self.their_state is h11.IDLE and not (self._unparsed or self._framing or self._begun)

    @property
    def head_begun(self) -> bool:
        """True when a part of the next request's head is there."""
        return self.their_state is h11.IDLE and bool(self._unparsed)

    @property
    def they_are_waiting_for_100_continue(self) -> bool:
        """False, so that Hypercorn does not tell them at once to send what may be refused; `waits` is the truth."""
        return False

    @property
    def waits(self) -> bool:
        """True while the client waits to be told to send the body."""
        return super().they_are_waiting_for_100_continue

    def receive_data(self, data: bytes) -> None:
        """Take what was read; nothing at all is its end."""
        if data and self.their_state is h11.MUST_CLOSE:
            return
        if data and self.their_state is h11.IDLE and not self._unparsed:
            data = self._without_empty_lines(self._begun + data)
            if not data:
                return
        if data and self._plain_left:
            plain, data = data[:self._plain_left], data[self._plain_left:]
            self._plain += plain
            self._plain_left -= len(plain)
            if not data:
                return
        self._unparsed += data
        super().receive_data(data)

    def _without_empty_lines(self, data: bytes) -> bytes:
        found = _EMPTY_LINES.match(data)
        empty_bytes = found.end() if found else 0
        self._framing += data[:empty_bytes]
        rest = data[empty_bytes:]
        self._begun = rest if rest == b"\r" else b""
        return b"" if self._begun else rest

    def next_event(self) -> Event:
        """The next event, as h11 has it. Raises h11.RemoteProtocolError; `code` says what it is refused with then."""
        if self.their_state is h11.MUST_CLOSE:
            return h11.NEED_DATA
        if self._plain:
            plain, self._plain = self._plain, b""
            return h11.Data(data=plain)
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self.code = _CODES.get(error.error_status_hint, "bad_request")
            raise
        self._take_framing(event)
        if len(self._framing) > MAX_HEAD_BYTES:
            raise self._refused("long_head")
        if event is not h11.NEED_DATA:
            self._check(event)
            self._framing = b""
            self._leave_out_plain_bytes(event)
        return event

    def _leave_out_plain_bytes(self, event: Event) -> None:
        if type(event) is h11.Request:
            self._request = event
            self._left = next((int(value) for name, value in event.headers if name == b"content-length"), 0)
        elif type(event) is h11.Data and self._request is not None:
            self._left -= len(event.data)
            if self._left > PLAIN_LEAST_BYTES and self.our_state is h11.SEND_RESPONSE:
                self._plain_left, self._left = self._left - 1, 1
                self._read_anew(self._request, self._left)

    def _read_anew(self, request: h11.Request, length: int) -> None:
        """Have h11 go on after the head of `request`, as if its body had so many bytes, and were sent unasked."""
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)
        kept = [header for header in request.headers if header[0] not in {b"content-length", b"expect"}]
        super().receive_data(b"%s %s HTTP/%s\r\n%s\r\n" % (
            request.method, request.target, request.http_version,
            b"".join(b"%s: %s\r\n" % header for header in [*kept, (b"content-length", b"%d" % length)])))
        super().next_event()

    def _take_framing(self, event: Event) -> None:
        left = self.trailing_data[0]
        data_bytes = len(event.data) if type(event) is h11.Data else 0
        self._framing += self._unparsed[:len(self._unparsed) - len(left) - data_bytes]
        self._unparsed = left

    def _check(self, event: Event) -> None:
        if type(event) is h11.Request:
            self.is_head = event.method == b"HEAD"
            self._check_version(event)
            self._refuse(fault_of_head(self._framing, event.target, event.headers))
        elif type(event) in {h11.Data, h11.EndOfMessage}:
            self._refuse(fault_around_body(self._framing))
        if type(event) is h11.EndOfMessage and any(name in _PROMISES for name, _ in event.headers):
            raise self._refused("unchecked_digest")

    def _check_version(self, request: Request) -> None:
        if request.http_version not in VERSIONS:
            raise self._refused("http_version")
        if request.http_version == b"1.0" and any(name == b"transfer-encoding" for name, _ in request.headers):
            # Whoever passed it on may have seen another end of it (RFC 9112, 6.1).
            raise self._refused("bad_request")

    def _refuse(self, code: str | None) -> None:
        if code is not None:
            raise self._refused(code)

    def _refused(self, code: str) -> h11.RemoteProtocolError:
        self.code = code
        return h11.RemoteProtocolError(code, error_status_hint=_BAD_REQUEST)

    def start_next_cycle(self) -> None:
        """Go on with the next request; what came of it already is read anew."""
        rest, ended = self.trailing_data
        self.is_head = False
        super().start_next_cycle()
        if rest:
            super().__init__(h11.SERVER, MAX_HEAD_BYTES)
            self._unparsed = b""
            self.receive_data(rest)
            if ended:
                self.receive_data(b"")


def informational(status: int, headers: Iterable[tuple[str, str]]) -> h11.InformationalResponse:
    """A head that comes before the answer."""
    return h11.InformationalResponse(status_code=status, headers=encoded(headers))


def events_of(answer: Answer, *, is_head: bool) -> tuple[h11.Response, h11.Data, h11.EndOfMessage]:
    """The whole of `answer`, for who is refused before the app is asked; its head alone if a HEAD is answered."""
    return (h11.Response(status_code=answer.status, headers=headers_of(answer)),
            h11.Data(data=b"" if is_head else answer.body), h11.EndOfMessage())
