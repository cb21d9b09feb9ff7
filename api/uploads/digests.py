"""The digests that a client announces: RFC 9530 `Repr-Digest` and `Content-Digest`, sha-256 and sha-512.

The body is stored as it is sent, so both fields are about the same bytes. What is announced is compared, or refused:
other algorithms, and other fields, are ignored only beside one that is compared, as the RFC allows. Source of the
syntax: RFC 8941, dictionaries of byte sequences.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Final

from api.http.parameters import Headers
from api.http.request_reader import DIGEST_FIELDS
from daemon.errors import Rejected

#: An algorithm, and a digest in hexadecimal.
Digest = tuple[str, str]

SHA256: Final = "sha-256"
SHA512: Final = "sha-512"
#: Bytes of a digest, by its algorithm.
_SIZES: Final = {SHA256: 32, SHA512: 64}
#: The fields of RFC 9530.
_FIELDS: Final = (b"repr-digest", b"content-digest")
#: Without any of these a head announces no digest, neither in it nor in a trailer.
_ANNOUNCING: Final = DIGEST_FIELDS | {b"trailer"}
_NOTHING: Final = frozenset[Digest]()

_KEY: Final = r"[a-z*][a-z0-9_.*-]*"
#: One member: a byte sequence, or what another algorithm may have instead; parameters are dropped.
_MEMBER: Final = re.compile(rf"({_KEY})=(?::([A-Za-z0-9+/=]*):|([^,:\"]+))(?:;[^,]*)?\Z")


def announced(headers: Headers) -> frozenset[Digest]:
    """The digests that a head announces and that are compared; empty when it announces none.

    Two of one algorithm contradict each other: no body has both. Raises Rejected('bad_digest') when a field cannot be
    read, and Rejected('unchecked_digest') when nothing of what is announced can be compared.
    """
    if _ANNOUNCING.isdisjoint(headers):
        return _NOTHING
    fields = [field.decode("latin-1") for name in _FIELDS for field in headers.get(name, [])]
    found = frozenset(digest for field in fields for digest in _digests_of(field))
    if not found and (not DIGEST_FIELDS.isdisjoint(headers) or not DIGEST_FIELDS.isdisjoint(_trailers(headers))):
        raise Rejected("unchecked_digest")
    return found


def _trailers(headers: Headers) -> Iterator[bytes]:
    """The names of the trailers that a head announces."""
    for field in headers.get(b"trailer", []):
        yield from (name.strip(b" \t").lower() for name in field.split(b","))


def _digests_of(field: str) -> Iterable[Digest]:
    """The digests of one field; of two members with one key the last counts."""
    members = [_MEMBER.match(member.strip(" \t")) for member in field.split(",")]
    if None in members:
        raise Rejected("bad_digest")
    encoded = {member[1]: member[2] for member in members if member and member[1] in _SIZES}
    return [(algorithm, _decoded(algorithm, digest)) for algorithm, digest in encoded.items()]


def _decoded(algorithm: str, encoded: str | None) -> str:
    try:
        digest = base64.b64decode(encoded or "", validate=True)
    except binascii.Error as error:
        raise Rejected("bad_digest") from error
    if len(digest) != _SIZES[algorithm]:
        raise Rejected("bad_digest", f"A {algorithm} digest has {_SIZES[algorithm]} bytes.")
    return digest.hex()


class Check:
    """Compares one body with what was announced."""

    def __init__(self, expected: frozenset[Digest]) -> None:
        self._expected = expected
        # Twice the work, so only where it is wanted; everybody's sha256 is taken anyway.
        self._sha512 = hashlib.sha512() if any(algorithm == SHA512 for algorithm, _ in expected) else None

    def update(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        if self._sha512 is not None:
            self._sha512.update(data)

    def conclude(self, sha256: str) -> None:
        """Raise Rejected('digest_mismatch') unless the body, whose sha256 this is, has every announced digest."""
        own = {(SHA256, sha256)} if self._sha512 is None else {(SHA256, sha256), (SHA512, self._sha512.hexdigest())}
        if self._expected - own:
            raise Rejected("digest_mismatch")
