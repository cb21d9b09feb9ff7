"""What the IETF's draft of resumable uploads says in headers: pure functions that refuse what is not legal.

Two of its versions are spoken, which it tells apart by the interop numbers 5 (draft 03) and 6 (drafts 04 and 05).
A value that is not legal is refused, not passed over: half of a file must never be taken for the whole one. Sources:
draft-ietf-httpbis-resumable-upload; the syntax is that of RFC 9651.
"""

import re
from typing import Final

from api.http.parameters import Headers, header
from daemon.errors import Rejected

INTEROP: Final = "Upload-Draft-Interop-Version"
#: The interop numbers that are spoken.
INTEROPS: Final = frozenset({b"5", b"6"})
#: From this one on a part has a media type.
_TYPED: Final = b"6"
#: The media type of a part.
PART: Final = b"application/partial-upload"
#: The status of the answer that tells where an upload can go on (104, Upload Resumption Supported).
RESUMPTION_SUPPORTED: Final = 104
#: What `type` a problem has, by its code.
PROBLEM_TYPES: Final = {
    "wrong_offset": "https://iana.org/assignments/http-problem-types#mismatching-upload-offset",
    "inconsistent_length": "https://iana.org/assignments/http-problem-types#inconsistent-upload-length",
    "upload_completed": "https://iana.org/assignments/http-problem-types#completed-upload",
}

#: What tells a request of the draft from any other.
COMPLETE: Final = b"upload-complete"
_INTEGER: Final = re.compile(r"(0|[1-9][0-9]{0,14}|0[0-9]{1,14})(?:;.*)?")
_BOOLEAN: Final = re.compile(r"\?([01])(?:;.*)?")


def interop_of(headers: Headers) -> bytes | None:
    """The interop number of a request, or None when it has none that is spoken here."""
    number = headers.get(INTEROP.lower().encode())
    return number[0] if number is not None and len(number) == 1 and number[0] in INTEROPS else None


def takes_interim(headers: Headers) -> bool:
    """False when a proxy says that a head before the answer does not come through."""
    return headers.get(b"x-interim") != [b"no"]


def is_resumable(headers: Headers) -> bool:
    """True when an upload may go on later. Raises Rejected('unknown_interop') when one must that cannot."""
    if COMPLETE not in headers:
        return False
    if interop_of(headers) is not None:
        return True
    if not read_complete(headers):
        raise Rejected("unknown_interop")
    return False


def require_interop(headers: Headers) -> bytes:
    """The interop number of a request. Raises Rejected('unknown_interop')."""
    number = interop_of(headers)
    if number is None:
        raise Rejected("unknown_interop")
    return number


def read_complete(headers: Headers) -> bool:
    """Whether the file ends with the body."""
    found = _BOOLEAN.fullmatch(header(headers, COMPLETE, "bad_upload_header") or "")
    if found is None:
        raise Rejected("bad_upload_header", "Upload-Complete is neither ?1 nor ?0.")
    return found[1] == "1"


def read_offset(headers: Headers) -> int:
    """Where the part begins."""
    offset = _integer(headers, "Upload-Offset")
    if offset is None:
        raise Rejected("bad_upload_header", "Send Upload-Offset.")
    return offset


def _integer(headers: Headers, name: str) -> int | None:
    text = header(headers, name.lower().encode(), "bad_upload_header")
    if text is None:
        return None
    found = _INTEGER.fullmatch(text)
    if found is None:
        raise Rejected("bad_upload_header", f"{name} is not a number of bytes.")
    return int(found[1])


def check_part(headers: Headers, interop: bytes) -> None:
    """Raise Rejected('part_type') unless the body is a part."""
    if interop >= _TYPED and headers.get(b"content-type") != [PART]:
        raise Rejected("part_type", f"The body of a part is of the type {PART.decode()}.")


def whole_length(headers: Headers, *, offset: int, body_bytes: int | None, complete: bool) -> int | None:
    """The length of the whole file, as far as this request says it, or None; `body_bytes` is Content-Length.

    Raises Rejected('inconsistent_length') when it says two.
    """
    length = _integer(headers, "Upload-Length")
    end = None if body_bytes is None else offset + body_bytes
    if complete and end is not None and length not in {None, end}:
        raise Rejected("inconsistent_length")
    if length is not None and end is not None and end > length:
        raise Rejected("inconsistent_length")
    return end if complete and length is None else length


def limits(*, max_bytes: int, max_age_s: int | None) -> str:
    """What Upload-Limit says: the largest file, and how long an unfinished one is kept."""
    age = "" if max_age_s is None else f", max-age={max_age_s}"
    return f"max-size={max_bytes}{age}"


def sf_boolean(value: bool) -> str:
    """A boolean as these headers have it."""
    return "?1" if value else "?0"
