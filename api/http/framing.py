"""What may stand around the bytes of a file, where h11 takes more than RFC 9112 has. Pure functions.

Guarantees: of what is let through, whoever passed it on has seen the same end. Where the RFC leaves a choice between
repairing and refusing, it is refused: lines that end with LF alone (2.2), a CR or another control character within one
(2.2; RFC 9110, 5.5), folded lines (5.2), a length that is said twice, even if it is the same (6.3), and chunks together
with a length (6.1).
"""

import re
from collections.abc import Sequence
from typing import Final

from api.http.request_target import split

_CONTROLS: Final = bytes({*range(0x20), 0x7f} - set(b"\t\r\n"))
#: A number of so many digits is the same to everybody, in 64 bits.
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_LENGTHS: Final = re.compile(rb"\ncontent-length:[ \t]*([^\r]*?)[ \t]*\r", re.IGNORECASE)
#: The line of a chunk, and the end of the chunk before it. No chunk has 2^60 bytes.
_CHUNK_LINE: Final = re.compile(rb"(?:\r\n)?[0-9A-Fa-f]{1,15}(?:;[^\r\n]*)?\r\n")
#: A host, and perhaps a port (RFC 3986, 3.2.2; RFC 6874).
_AUTHORITY: Final = re.compile(
    rb"(?:\[[0-9A-Za-z:.%~_-]+\]|(?:[0-9A-Za-z._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+)(?::[0-9]*)?")


def fault_of_head(head: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """The code of the error that a head is refused with, or None; `target` and `headers` are what h11 found in it."""
    fields = dict(headers)
    if b"content-length" in fields and b"transfer-encoding" in fields:
        return "bad_length"
    legal = (_has_whole_lines(head) and (b"content-length" not in fields or _has_one_length(head))
             and _has_legal_host(fields.get(b"host"), target))
    return None if legal else "bad_request"


def fault_around_body(framing: bytes) -> str | None:
    """The code of the error that the line of a chunk, or the last one with the trailers, is refused with, or None."""
    legal = not framing or (_has_whole_lines(framing) and _CHUNK_LINE.match(framing))
    return None if legal else "bad_request"


def _has_whole_lines(text: bytes) -> bool:
    """True when nothing in it ends a line, or goes on with one, for some readers alone."""
    ends = text.count(b"\r\n")
    return (text.count(b"\r") == text.count(b"\n") == ends and b"\n " not in text and b"\n\t" not in text
            and len(text.translate(None, _CONTROLS)) == len(text))


def _has_one_length(head: bytes) -> bool:
    lengths = _LENGTHS.findall(head)
    return len(lengths) == 1 and bool(_LENGTH.fullmatch(lengths[0]))


def _has_legal_host(host: bytes | None, target: bytes) -> bool:
    """None is for h11 to judge. An empty one says that the address has no host (RFC 9112, 3.2): an absolute one has."""
    authority, _ = split(target)
    return (authority is None or bool(_AUTHORITY.fullmatch(authority))) and (
        host is None or bool(_AUTHORITY.fullmatch(host)) or (host == b"" and authority is None))
