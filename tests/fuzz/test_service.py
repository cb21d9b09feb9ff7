"""A live API: whatever is sent, it answers as is documented, leaks nothing, and goes on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.conftest import Fuzz
from tests.fuzz.strategies import UPLOAD, appends, conversations, creations, cut, cuts, posts
from tests.fuzz.victim import Victim

pytestmark = [pytest.mark.fuzz, pytest.mark.full]


def test_conversations(fuzz: Fuzz, victim: Victim) -> None:
    """Heads, bodies, queries and ranges, good and spoiled, several on one connection."""
    @given(sent=conversations, places=cuts)
    def examine(sent: bytes, places: list[int]) -> None:
        victim.send(cut(sent, places))

    fuzz(examine)
    victim.check()


def test_forms(fuzz: Fuzz, victim: Victim) -> None:
    """Forms, good and spoiled, with a length, with a wrong one, or in chunks, and then perhaps something else."""
    @given(sent=posts, places=cuts, more=st.just(b"") | conversations)
    def examine(sent: bytes, places: list[int], more: bytes) -> None:
        victim.send([*cut(sent, places), more])

    fuzz(examine)
    victim.check()


def test_resumable_uploads(fuzz: Fuzz, victim: Victim) -> None:
    """Made and gone on with, by tus and by the IETF's draft, good and spoiled."""
    @given(first=creations, then=appends, places=cuts)
    def examine(first: bytes, then: bytes, places: list[int]) -> None:
        victim.send([first])
        victim.send(cut(then.replace(UPLOAD, victim.made), places))

    fuzz(examine)
    victim.check()
