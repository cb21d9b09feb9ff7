"""The parts of a `multipart/form-data` body (RFC 7578), as its bytes come.

Guarantees: what a part says of itself is bounded, and its bytes are handed on as they come. However the body is cut
into pieces, the same parts come out. Nothing is written anywhere.

python-multipart is imported here and nowhere else, and of it only the parser that calls back.
"""

import logging
import re
from collections import deque
from enum import Enum
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from api.http.parameters import Headers
from daemon.errors import Rejected

#: Header lines of one part, and bytes of each. A browser sends two.
MAX_PART_HEADERS: Final = 8
MAX_PART_HEADER_BYTES: Final = 8 * 1024
#: What may separate parts (RFC 2046, 5.1.1).
_BOUNDARY: Final = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
#: What has no place in a header. The parser lets most of it through.
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

# It warns of what clients send; that is told in the answers.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


class EndOf(Enum):
    """What has ended."""

    PART = "part"
    FORM = "form"


#: A part begins with its headers, goes on with its bytes, and ends.
FormEvent = Headers | bytes | EndOf


class MultipartReader:
    """Reads one form."""

    def __init__(self, boundary: bytes, *, max_parts: int) -> None:
        """`boundary` is what the form's Content-Type says. Raises Rejected('bad_form') when it cannot be one."""
        if not _BOUNDARY.fullmatch(boundary):
            raise Rejected("bad_form", "The boundary is not legal.")
        #: What has been read, the oldest first, for others to take away.
        self.events: Final[deque[FormEvent]] = deque()
        #: True once more than empty lines has come.
        self._begun = False
        self._max_parts = max_parts
        self._parts = 0
        self._headers: dict[bytes, list[bytes]] = {}
        self._name = self._value = b""
        self._parser = MultipartParser(
            boundary, {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_name, "on_header_value": self._add_value,
                "on_header_end": self._end_header, "on_headers_finished": self._end_headers,
                "on_part_data": self._add_data, "on_part_end": lambda: self.events.append(EndOf.PART),
                "on_end": lambda: self.events.append(EndOf.FORM),
            }, max_header_count=MAX_PART_HEADERS, max_header_size=MAX_PART_HEADER_BYTES)

    def feed(self, data: bytes) -> None:
        """Read more. Raises Rejected('bad_form' or 'long_form'); what came before that is in `events`."""
        if not self._begun:
            # Of what stands behind them the parser would pass over as much as comes in the same piece.
            data = data.lstrip(b"\r\n")
            self._begun = data != b""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise Rejected("bad_form", "The form is not legal multipart/form-data.") from error

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > self._max_parts:
            raise Rejected("long_form", f"The form has more than {self._max_parts} parts.")
        self._headers = {}

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if _CONTROL.search(self._value):
            raise Rejected("bad_form", "A header of a part has a control character in it.")
        self._headers.setdefault(self._name.lower(), []).append(self._value.strip(b" \t"))
        self._name = self._value = b""

    def _end_headers(self) -> None:
        self.events.append(self._headers)

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self.events.append(data[start:end])
