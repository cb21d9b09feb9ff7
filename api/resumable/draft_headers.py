"""What the IETF's draft of resumable uploads says in headers: pure functions that refuse what is not legal.

Two of its versions are spoken, which it tells apart by the interop numbers 5 (draft 03) and 6 (drafts 04 and 05).
A value that is not legal is refused, not passed over: half of a file must never be taken for the whole one. Sources:
draft-ietf-httpbis-resumable-upload; the syntax is that of RFC 9651.
"""

import re
from dataclasses import replace
from typing import Final

from api.http.description import Parameter, Where
from api.http.parameters import Headers, header
from daemon.errors import Rejected
from daemon.model.schema import one_of, text

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
_BYTES: Final = text("a number of bytes", pattern="[0-9]{1,15}")
SPEAKS: Final = Parameter(
    name=INTEROP, meaning="the version of the draft", schema=one_of(sorted(number.decode() for number in INTEROPS)),
    place=Where.HEADER, required=True, refuses=("unknown_interop",))
IS_COMPLETE: Final = Parameter(
    name="Upload-Complete", meaning="whether the file ends with the body", place=Where.HEADER, required=True,
    schema=text("`?1` or `?0`", pattern=r"\?[01]"), refuses=("bad_upload_header",))
LENGTH: Final = Parameter(
    name="Upload-Length", meaning="the length of the whole file, as soon as it is known", schema=_BYTES,
    place=Where.HEADER, refuses=("bad_upload_header", "inconsistent_length"))
OFFSET: Final = Parameter(name="Upload-Offset", meaning="where the part begins", schema=_BYTES, place=Where.HEADER,
                          required=True, refuses=("bad_upload_header", "wrong_offset"))
#: What a proxy says through which no head before the answer comes.
INTERIM: Final = Parameter(name="X-Interim", meaning="`no`: a proxy does not pass a `104` on, so none is sent",
                           schema=text(), place=Where.HEADER, refuses=())
#: The same where an upload need not be resumable: only what is said with `Upload-Complete` has to be legal.
OPTIONAL: Final = (
    replace(IS_COMPLETE, required=False, without="the upload is not resumable",
            refuses=("bad_upload_header", "unknown_interop")),
    replace(SPEAKS, required=False, schema=text("`5` or `6`")), replace(LENGTH, schema=text("a number of bytes")),
    INTERIM)

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
