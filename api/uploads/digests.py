"""The digests that a client announces: RFC 9530 `Repr-Digest` and `Content-Digest`, sha-256 only.

The body is stored as it is sent, so both fields are about the same bytes. Other algorithms are ignored, as
the RFC allows. Source of the syntax: RFC 8941, dictionaries of byte sequences.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final

from daemon.errors import Rejected

ALGORITHM: Final = "sha-256"
SHA256_BYTES: Final = 32

_KEY: Final = r"[a-z*][a-z0-9_.*-]*"
#: One member: a byte sequence, or what another algorithm may have instead; parameters are dropped.
_MEMBER: Final = re.compile(rf"({_KEY})=(?::([A-Za-z0-9+/=]*):|([^,:\"]+))(?:;[^,]*)?\Z")


def announced(fields: Iterable[str]) -> frozenset[str]:
    """The hexadecimal sha256 digests that `fields`, the values of the digest headers, announce.

    Empty when none names sha-256. More than one means that they contradict each other: no body has both.
    Raises Rejected('bad_digest') when a field cannot be read.
    """
    return frozenset(digest for field in fields if (digest := _sha256_of(field)) is not None)


def check(sha256: str, expected: frozenset[str]) -> None:
    """Raise Rejected('digest_mismatch') unless every one of the `expected` digests is `sha256`."""
    if expected - {sha256}:
        raise Rejected("digest_mismatch")


def _sha256_of(field: str) -> str | None:
    found = None
    for member in field.split(","):
        match = _MEMBER.match(member.strip(" \t"))
        if match is None:
            raise Rejected("bad_digest")
        if match[1] == ALGORITHM:
            found = _decoded(match[2])
    return found


def _decoded(encoded: str | None) -> str:
    try:
        digest = base64.b64decode(encoded or "", validate=True)
    except binascii.Error as error:
        raise Rejected("bad_digest") from error
    if len(digest) != SHA256_BYTES:
        raise Rejected("bad_digest", "A sha-256 digest has 32 bytes.")
    return digest.hex()
