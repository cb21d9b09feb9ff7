"""The bytes of one answer to a request of HTTP/1.1."""

import re
from collections.abc import Sequence
from typing import Final

from api.http.response import CLOSE, NOTHING, UNCHANGED, head_of

#: Statuses whose answers have no body, and do not say how long it is.
_BODILESS: Final = frozenset({NOTHING.status, UNCHANGED})
_CHUNKED: Final = (b"Transfer-Encoding", b"chunked")
_LAST: Final = (b"Connection", b"close")
_LAST_CHUNK: Final = b"0\r\n\r\n"
#: Lines as they should be; how many there are is to be counted.
_LEGAL: Final = re.compile(rb"HTTP/1\.1 [0-9]{3} \r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++: [^\0\n\v\f\r]*+\r\n)*+\r\n")


class AnswerWriter:
    """One answer: its head, which is kept until something is to be sent with it, and its body piece by piece.

    A body that says how long it is has that length; the others leave in chunks.
    """

    __slots__ = ("_head", "_in_chunks", "_is_head", "_left_bytes", "begun", "complete", "stays")

    def __init__(self, *, is_head: bool, stays: bool) -> None:
        """`is_head`: a HEAD is answered, with the head of what a GET is. `stays`: the client may want more."""
        self._is_head = is_head
        self._head = b""
        self._in_chunks = False
        #: How much of the body is to come; None where the body is left out.
        self._left_bytes: int | None = None
        self.begun = False
        self.complete = False
        #: True when the client may send its next request on the same connection.
        self.stays = stays

    def begin(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Take the head."""
        if self.begun:
            raise RuntimeError("an answer has one head")
        length = dict(headers).get(b"content-length")
        has_body = status not in _BODILESS
        in_chunks = has_body and length is None
        sent = [*headers, _CHUNKED] if in_chunks else headers
        if not self.stays:
            sent = [*(header for header in sent if header != CLOSE), _LAST]
        head = head_of(status, sent)
        if head.count(b"\n") != len(sent) + 2 or not _LEGAL.fullmatch(head):
            raise ValueError("a header has what belongs into none")
        if has_body and not self._is_head:
            self._in_chunks = in_chunks
            self._left_bytes = int(length or 0)
        self._head = head
        self.stays &= CLOSE not in headers
        self.begun = True

    def add(self, piece: bytes, *, last: bool) -> bytes:
        """Take the next of the body; return what is to be sent now."""
        if not self.begun or self.complete:
            raise RuntimeError("a body comes after its head, and ends once")
        if self._left_bytes is None:
            piece = b""
        if not (piece or last):
            return b""
        head, self._head = self._head, b""
        framed = self._framed(piece, last=last)
        self.complete = last
        return head + framed

    def _framed(self, piece: bytes, *, last: bool) -> bytes:
        if self._in_chunks:
            chunk = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
            return chunk + _LAST_CHUNK if last else chunk
        if self._left_bytes is not None:
            self._left_bytes -= len(piece)
            if self._left_bytes < 0 or (last and self._left_bytes):
                raise RuntimeError("a body is as long as its head says")
        return piece
