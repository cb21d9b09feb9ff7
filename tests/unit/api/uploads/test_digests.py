"""Announced digests."""

import base64
import hashlib
from collections.abc import Iterable

import pytest

from api.uploads.digests import Check, Digest, announced
from daemon.errors import Rejected

BODY = b"hello"
DIGESTS = {"sha-256": hashlib.sha256(BODY), "sha-512": hashlib.sha512(BODY)}
HEX = {name: digest.hexdigest() for name, digest in DIGESTS.items()}
SHA256, SHA512 = (f"{name}=:{base64.b64encode(digest.digest()).decode()}:" for name, digest in DIGESTS.items())


def repr_digest(*fields: str) -> dict[bytes, list[bytes]]:
    """The headers of a request with these Repr-Digest fields."""
    return {b"repr-digest": [field.encode() for field in fields]} if fields else {}


def conclude(body: Iterable[bytes], expected: Iterable[Digest]) -> None:
    """Check a whole body."""
    checking = Check(frozenset(expected))
    pieces = list(body)
    for piece in pieces:
        checking.update(piece)
    checking.conclude(hashlib.sha256(b"".join(pieces)).hexdigest())


@pytest.mark.parametrize("fields", [
    [SHA256], [f"md5=:AAAA:, {SHA256}"], [f"{SHA256},sha=:AAAA:"], [f"{SHA256};a=1"], [SHA256, SHA256], [f"  {SHA256}\t"],
    [f"unixsum=30637, {SHA256}"], [f"sha-256=:{'A' * 43}=:, {SHA256}"], ["md5=:AAAA:", SHA256],
])
def test_sha_256_is_found_among_others(fields: list[str]) -> None:
    """Other algorithms are ignored beside it; of two members with one key the last counts."""
    assert announced(repr_digest(*fields)) == {("sha-256", HEX["sha-256"])}


def test_sha_512_is_found_in_either_field() -> None:
    """RFC 9530 has two fields and names two algorithms that are safe."""
    headers = {b"content-digest": [SHA512.encode()], **repr_digest(SHA256)}
    assert announced(headers) == set(HEX.items())


def test_nothing_is_expected_when_nothing_is_announced() -> None:
    """A body needs no digest."""
    assert announced({b"trailer": [b"X-Signature"]}) == frozenset()


UNCHECKED = [
    repr_digest("md5=:AAAA:"), repr_digest("sha=:AAAA:", "unixsum=1"), {b"content-digest": [b"crc32c=:AAAA:"]},
    {b"content-md5": [b"XUFAKrxLKna5cZ2REBfFkg=="]}, {b"digest": [b"SHA-256=abc"]}, {b"trailer": [b"X-A, Repr-Digest"]},
]


@pytest.mark.parametrize("headers", UNCHECKED)
def test_digest_is_refused_when_no_announced_one_is_checked(headers: dict[bytes, list[bytes]]) -> None:
    """Its sender would believe that somebody compared it."""
    with pytest.raises(Rejected, check=lambda error: error.code == "unchecked_digest"):
        announced(headers)


@pytest.mark.parametrize("headers", UNCHECKED)
def test_digest_is_ignored_beside_one_that_is_checked(headers: dict[bytes, list[bytes]]) -> None:
    """The body is compared, by the better of the two."""
    fields = [*headers.get(b"repr-digest", []), SHA512.encode()]
    assert announced({**headers, b"repr-digest": fields}) == {("sha-512", HEX["sha-512"])}


@pytest.mark.parametrize("field", [
    "", "sha-256", "sha-256=", "sha-256=abc", f"sha-256={HEX['sha-256']}", "sha-256=:AAAA:", "sha-256=:A:", "sha-256=:AA AA:",
    f"{SHA256},", "SHA-256=:AAAA:", 'sha-256="abc"', "sha-256=::", f"sha-512={SHA256[7:]}", "sha-512=:AAAA:",
])
def test_field_is_refused_when_it_cannot_be_read(field: str) -> None:
    """A broken announcement is an error, never an unchecked body."""
    with pytest.raises(Rejected, check=lambda error: error.code == "bad_digest"):
        announced(repr_digest(field))


@pytest.mark.parametrize("expected", [[], ["sha-256"], ["sha-512"], ["sha-256", "sha-512"]])
def test_body_is_taken_when_it_has_the_digests(expected: list[str]) -> None:
    """The digests of the body, or none at all, are fine."""
    conclude([b"he", b"llo"], [(name, HEX[name]) for name in expected])


@pytest.mark.parametrize("expected", [
    [("sha-256", "0" * 64)], [("sha-256", HEX["sha-256"]), ("sha-256", "0" * 64)], [("sha-512", "0" * 128)],
    [("sha-256", HEX["sha-256"]), ("sha-512", "0" * 128)],
])
def test_body_is_refused_when_it_has_another_digest(expected: list[Digest]) -> None:
    """Every announced digest must be the body's."""
    with pytest.raises(Rejected, check=lambda error: error.code == "digest_mismatch"):
        conclude([BODY], expected)
