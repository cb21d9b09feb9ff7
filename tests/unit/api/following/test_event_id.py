"""The ids of events: they lead back to where they were given, and nothing else leads anywhere."""

import re
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.following.event_id import from_id, to_id
from daemon.task_queue import Position

positions = st.lists(st.builds(Position, st.binary(min_size=6, max_size=6).map(bytes.hex), st.integers(0, 2**63 - 1)),
                     min_size=1, max_size=64).map(tuple)


@given(positions)
def test_id_leads_back_to_its_positions(some: tuple[Position, ...]) -> None:
    """It may stand in a header, and for another number of shards it is none."""
    text = to_id(some)
    assert re.fullmatch(r"[\w-]{19,2000}", text, re.ASCII)
    assert from_id(text, len(some)) == some
    assert from_id(text, len(some) + 1) is None


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{0,40}", fullmatch=True), st.integers(1, 3))
def test_text_is_an_id_or_none(text: str, shards: int) -> None:
    """Whatever it is."""
    found = from_id(text, shards)
    assert found is None or (len(found) == shards and all(0 <= position.seq < 2**63 for position in found))


@pytest.mark.parametrize("text", [
    "", "x", "\0", "A" * 19 + "\n", "A" * 100_000, "ü" * 19, "٣" * 19, "A" * 17, "+" * 19, "AAAAAAAAAAAAAAAAAA==",
    urlsafe_b64encode(b"\xff" * 14).decode().rstrip("="),
])
def test_text_that_was_never_given_is_no_id(text: str) -> None:
    """Nor is a number that no event can have."""
    assert from_id(text, 1) is None
