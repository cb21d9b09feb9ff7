"""Text that is shown to people."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.model.text import escaped, escaped_json, is_plain, json_text

#: Any text that Python can hold: all characters, surrogates too.
ANY_TEXT = st.text(st.characters(codec=None) | st.characters(categories=["Cs", "Cf", "Cc", "Co", "Zl", "Zp"]))


@pytest.mark.parametrize(("text", "shown"), [
    ("\x1b[2J", r"\x1b[2J"), ("a\nb\tc", r"a\nb\tc"), ("\x7f\x9b", r"\x7f\x9b"),
    ("\u202aa\u202e", r"\u202aa\u202e"), ("\u2066a\u2069", r"\u2066a\u2069"), ("\u200e\u200f\u061c", r"\u200e\u200f\u061c"),
    ("a\u200bb\u2060\ufeff", r"a\u200bb\u2060\ufeff"), ("\u2028\u2029\x85", r"\u2028\u2029\x85"), ("\ud800", r"\ud800"),
    ("\ue000\U000e0041", r"\ue000\U000e0041"), ("\u3164\u115f\uffa0", r"\u3164\u115f\uffa0"),
])
def test_what_can_forge_or_hide_is_escaped(text: str, shown: str) -> None:
    """Control characters, those of direction or without width, separators, surrogates, private use, fillers."""
    assert escaped(text) == shown


@pytest.mark.parametrize("text", ["/root/report.pdf", "한글 이름.txt", "한글", "café", "日本語", "שלום", "العربية", "👍🏽 ❤️", "a\\nb"])
def test_what_people_write_stays_as_it_is(text: str) -> None:
    """Every script, accents and emoji."""
    assert escaped(text) == text


def test_sequence_of_emoji_is_shown_as_its_members() -> None:
    """What joins them has no width, and joins anything."""
    assert escaped("👩\u200d👧") == "👩\\u200d👧"


@given(ANY_TEXT)
def test_escaped_text_is_plain(text: str) -> None:
    """Nothing is left that a terminal would obey."""
    shown = escaped(text)
    assert is_plain(shown)
    assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} for c in shown)


@given(st.recursive(ANY_TEXT | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner)))
def test_json_is_plain_and_says_the_same(value: object) -> None:
    """Programs read what was there, and people see what is there."""
    text = json_text(value)
    assert is_plain(text)
    assert json.loads(text) == value
    assert escaped_json(text) == text
