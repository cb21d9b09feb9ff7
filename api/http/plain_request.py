"""A request whose head came in one read, as most do, recognised at once, with as much of its body as is there.

Guarantees: what is recognised, `api.http.request_reader` would read as the same request, and refuse nothing of it.
That is a strict part of what it takes: HTTP/1.1, each field once and plainly written, and a body with a length.
Everything else is None here, and is read there; nothing is refused here.
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
_KEEP_ALIVE: Final = b"keep-alive"
_CLOSE: Final = b"close"
_CONNECTIONS: Final = frozenset({_KEEP_ALIVE, _CLOSE})


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """A request as it was sent, with the names of its fields in small letters."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    #: As much of it as has come.
    body: bytes
    missing_bytes: int = 0
    #: False when its sender wants the connection to end with the answer.
    stays: bool = True

    @property
    def length(self) -> int:
        """The bytes of its whole body."""
        return len(self.body) + self.missing_bytes


def plain_request(data: bytes) -> PlainRequest | None:
    """The request that `data` is, and nothing more, if it is as plain as that; its head is whole."""
    head_bytes = data.find(_END_OF_HEAD, 0, MAX_HEAD_BYTES) + len(_END_OF_HEAD)
    head = data[:head_bytes]
    found = _HEAD.fullmatch(head)
    if found is None:
        return None
    method, target, lines = found.groups()
    headers = [(name.lower(), value) for name, value in _FIELDS.findall(lines)]
    fields = dict(headers)
    connection = fields.get(b"connection", _KEEP_ALIVE).lower()
    if not (len(fields) == len(headers) and b"host" in fields and _UNUSUAL.isdisjoint(fields)
            and connection in _CONNECTIONS and fault_of_head(head, target, headers) is None):
        return None
    missing_bytes = int(fields.get(b"content-length", 0)) + head_bytes - len(data)
    if missing_bytes < 0:
        return None
    return PlainRequest(method, target, headers, data[head_bytes:], missing_bytes, stays=connection != _CLOSE)
