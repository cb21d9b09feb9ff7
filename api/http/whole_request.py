"""A whole request that came in one read, as most do, recognised at once.

Guarantees: what is recognised, `api.http.request_reader` would read as the same request, and refuse nothing of it.
That is a strict part of what it takes: HTTP/1.1 on a connection that stays, each field once and plainly written, and a
body with a length. Everything else is None here, and is read there; nothing is refused here.
"""

import re
from dataclasses import dataclass
from typing import Final

from api.http.framing import fault_of_head

#: The most bytes of a head: no more than the other reader takes.
MAX_HEAD_BYTES: Final = 16 * 1024

_END_OF_HEAD: Final = b"\r\n\r\n"
# What was matched once is not given back: the time that a head takes is in proportion to its length.
_HEAD: Final = re.compile(
    rb"(?!CONNECT )([A-Z]++) ([!-~]++) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]++: ?(?:[!-~\x80-\xff][\t -~\x80-\xff]*+)?+(?<![\t ])\r\n)++)\r\n")
_FIELDS: Final = re.compile(rb"([^:]+): ?([^\r]*)\r\n")
#: What asks for something besides an answer, or puts something else around the body.
_UNUSUAL: Final = frozenset({b"expect", b"transfer-encoding", b"upgrade"})
_STAYS: Final = b"keep-alive"


@dataclass(frozen=True, slots=True)
class WholeRequest:
    """A request as it was sent, with the names of its fields in small letters."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes


def whole_request(data: bytes) -> WholeRequest | None:
    """The request that `data` is, no more and no less, if it is as plain as that."""
    head_bytes = data.find(_END_OF_HEAD, 0, MAX_HEAD_BYTES) + len(_END_OF_HEAD)
    head = data[:head_bytes]
    found = _HEAD.fullmatch(head)
    if found is None:
        return None
    method, target, lines = found.groups()
    headers = [(name.lower(), value) for name, value in _FIELDS.findall(lines)]
    fields = dict(headers)
    plain = (
        len(fields) == len(headers) and b"host" in fields and _UNUSUAL.isdisjoint(fields)
        and fields.get(b"connection", _STAYS).lower() == _STAYS and fault_of_head(head, target, headers) is None
        and int(fields.get(b"content-length", 0)) == len(data) - head_bytes)
    return WholeRequest(method, target, headers, data[head_bytes:]) if plain else None
