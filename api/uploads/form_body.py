"""The body of a form as it arrives: one part after the other, each as if it were the body of a request.

Guarantees: it is read no faster than its parts are, and memory is bounded whatever its size. What ended it once ends it
for all who go on reading. What belongs to no file that is taken is bounded.
"""

import sys
from collections.abc import Mapping
from typing import Any, Final

from api.http.multipart import EndOf, FormEvent, MultipartReader
from api.http.pace import Pace
from api.http.parameters import Headers
from api.http.response import Receive
from api.uploads.body import Body
from daemon.errors import Rejected

#: Files of one form.
MAX_FILES: Final = 1000
#: Parts of one form: those, the fields, and the inputs for files that were left empty.
MAX_PARTS: Final = MAX_FILES + 100
#: Bytes of one form that belong to no file, or to one that is refused.
MAX_LEFT_BYTES: Final = 16 * 2**20


class FormBody:
    """Reads one form. One part is read at a time."""

    def __init__(self, receive: Receive, boundary: bytes, *, length: int | None, pace: Pace) -> None:
        """Read with `receive` what has `length` bytes, if that is known. Raises Rejected('bad_form')."""
        self._body = Body(receive, length=length, max_bytes=sys.maxsize, pace=pace)
        self._reader = MultipartReader(boundary, max_parts=MAX_PARTS)
        #: What ended it before its end.
        self.refusal: Rejected | None = None
        self._given_bytes = 0
        #: True while the part that began last has bytes left.
        self._within = False

    async def next_part(self) -> Headers | None:
        """The headers of the next part, or None at the end; what is left of the part before is passed over.

        Raises Rejected('bad_form', 'long_form', 'too_slow' or 'incomplete_body') and ClientGone.
        """
        while (event := await self._next()) is not EndOf.FORM:
            if isinstance(event, Mapping):
                self._within = True
                return event
        await self._pass_over_epilogue()
        return None

    async def receive(self) -> dict[str, Any]:
        """The next piece of the part that began last, as a server tells of the body of a request.

        Raises as `next_part` does.
        """
        piece = await self._next() if self._within else EndOf.PART
        if not isinstance(piece, bytes):
            self._within = False
            return {"type": "http.request", "body": b"", "more_body": False}
        self._given_bytes += len(piece)
        return {"type": "http.request", "body": piece, "more_body": True}

    async def is_empty(self) -> bool:
        """True when the part that began last has no bytes; none of them is taken. Raises as `next_part` does."""
        return await self._first() is EndOf.PART

    async def _next(self) -> FormEvent:
        await self._first()
        return self._reader.events.popleft()

    async def _first(self) -> FormEvent:
        while not self._reader.events:
            await self._feed()
        return self._reader.events[0]

    async def _feed(self) -> None:
        if self.refusal is not None:
            raise self.refusal
        try:
            if self._body.ended:
                raise Rejected("bad_form", "The form ends before its last boundary.")
            for piece in await self._body.pieces(1):
                self._reader.feed(piece)
            if self._body.received_bytes - self._given_bytes > MAX_LEFT_BYTES:
                raise Rejected("long_form", f"More than {MAX_LEFT_BYTES} bytes of it belong to no file that is taken.")
        except Rejected as refusal:
            self.refusal = refusal
            if not self._reader.events:
                raise

    async def _pass_over_epilogue(self) -> None:
        """Read to the end, so that the connection can be used again; nothing there matters any more."""
        epilogue_bytes = self._body.received_bytes
        try:
            while not self._body.ended and self._body.received_bytes - epilogue_bytes <= MAX_LEFT_BYTES:
                await self._body.pieces(1)
        except Rejected:
            return
