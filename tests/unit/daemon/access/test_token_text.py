"""What a token looks like."""

import hashlib
import re
import zlib

from hypothesis import given
from hypothesis import strategies as st

from daemon.access.token_text import DIGITS, PATTERN, is_same, make, read


def test_token_is_read_as_it_was_made() -> None:
    """What is kept of it is its id and its digest; no two are alike."""
    made = {make() for _ in range(100)}
    assert len({token.key_id for token in made}) == len({token.text for token in made}) == 100
    for text, key_id, sha256 in made:
        assert read(text) == (key_id, sha256)
        assert sha256 == hashlib.sha256(text.encode()).hexdigest()
        assert is_same(sha256, hashlib.sha256(text.encode()).hexdigest())


def test_scanner_of_secrets_knows_a_token_by_its_pattern_and_its_checksum() -> None:
    """As docs/access.md says it: CRC-32 of all before it, as six base62 digits."""
    text = make().text
    found = re.findall(rf"\b{PATTERN}\b", f'{{"token": "{text}"}}')
    assert found == [text]
    number = 0
    for digit in text[-6:]:
        number = number * 62 + DIGITS.index(digit)
    assert number == zlib.crc32(text[:-6].encode())
    assert re.fullmatch(r"[A-Za-z0-9_]+", text)


@given(st.integers(0, 67), st.sampled_from([*DIGITS, "_", "-", " ", "\n", "é"]))
def test_token_that_was_typed_wrong_is_none(at: int, other: str) -> None:
    """One character that differs is enough, wherever it stands; so are one more and one less."""
    text = make().text
    changed = text[:at] + other + text[at + 1:]
    assert (read(changed) is None) == (changed != text)
    assert read(text[:at] + other + text[at:]) is None
    assert read(text[:at] + text[at + 1:]) is None


@given(st.text())
def test_any_other_text_is_no_token(text: str) -> None:
    """Whatever a client sends."""
    assert read(text) is None
