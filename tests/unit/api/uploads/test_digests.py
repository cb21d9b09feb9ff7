"""Announced digests."""

import base64
import hashlib

import pytest

from api.uploads.digests import announced, check
from daemon.errors import Rejected

DIGEST = hashlib.sha256(b"hello")
OURS = f"sha-256=:{base64.b64encode(DIGEST.digest()).decode()}:"
HEX = DIGEST.hexdigest()


@pytest.mark.parametrize("fields", [
    [OURS], [f"md5=:AAAA:, {OURS}"], [f"{OURS},sha-512=:AAAA:"], [f"{OURS};a=1"], [OURS, OURS], [f"  {OURS}\t"],
    [f"unixsum=30637, {OURS}"], [f"sha-256=:{'A' * 43}=:, {OURS}"],
])
def test_sha_256_is_found_among_others(fields: list[str]) -> None:
    """Other algorithms are ignored; of two members with one key the last counts."""
    assert announced(fields) == {HEX}


@pytest.mark.parametrize("fields", [[], ["md5=:AAAA:"], ["sha-512=:AAAA:"]])
def test_nothing_is_expected_when_sha_256_is_not_announced(fields: list[str]) -> None:
    """A digest that cannot be checked here is no reason to refuse."""
    assert announced(fields) == frozenset()


@pytest.mark.parametrize("field", [
    "", "sha-256", "sha-256=", "sha-256=abc", f"sha-256={HEX}", "sha-256=:AAAA:", "sha-256=:A:", "sha-256=:AA AA:",
    f"{OURS},", "SHA-256=:AAAA:", 'sha-256="abc"', "sha-256=::",
])
def test_field_is_refused_when_it_cannot_be_read(field: str) -> None:
    """A broken announcement is an error, never an unchecked body."""
    with pytest.raises(Rejected, check=lambda error: error.code == "bad_digest"):
        announced([field])


def test_body_is_taken_when_it_has_the_digest() -> None:
    """The digest of the body, or none at all, is fine."""
    check(HEX, frozenset({HEX}))
    check(HEX, frozenset())


@pytest.mark.parametrize("expected", [{"0" * 64}, {HEX, "0" * 64}])
def test_body_is_refused_when_it_has_another_digest(expected: set[str]) -> None:
    """Every announced digest must be the body's."""
    with pytest.raises(Rejected, check=lambda error: error.code == "digest_mismatch"):
        check(HEX, frozenset(expected))
