"""The parts of a form, however they come."""

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.multipart import EndOf, FormEvent, MultipartReader
from daemon.errors import Rejected
from tests.support.forms import BOUNDARY, form

Parts = list[tuple[dict[bytes, list[bytes]], bytes]]
#: What looks like the end of a part, or a piece of it.
_TRAPS = [b"\r\n--", b"\r\n--B", b"\r", b"\n", b"--", b"\r\n--BB\r\n", b"\r\n--Bx\r\n", b"\r\n\r\n--"]


def events_of(pieces: Iterable[bytes], boundary: bytes = b"B", max_parts: int = 10) -> list[FormEvent]:
    """All that is read of a form."""
    reader = MultipartReader(boundary, max_parts=max_parts)
    for piece in pieces:
        reader.feed(piece)
    return list(reader.events)


def outcome(pieces: Iterable[bytes]) -> tuple[Parts, bool, str]:
    """The parts with their bytes together, whether the form has ended, and why it was refused."""
    reader, code = MultipartReader(b"B", max_parts=10), ""
    try:
        for piece in pieces:
            reader.feed(piece)
    except Rejected as refusal:
        code = refusal.code
    parts: Parts = []
    for event in reader.events:
        if isinstance(event, bytes):
            parts[-1] = (parts[-1][0], parts[-1][1] + event)
        elif not isinstance(event, EndOf):
            parts.append(({name: list(values) for name, values in event.items()}, b""))
    return parts, EndOf.FORM in reader.events, code


@given(bodies=st.lists(st.lists(st.one_of(st.binary(max_size=8), st.sampled_from(_TRAPS)), max_size=6).map(b"".join), min_size=1, max_size=4),
       cuts=st.lists(st.integers(0, 400), max_size=12))
def test_same_parts_come_out_however_the_form_is_cut(bodies: list[bytes], cuts: list[int]) -> None:
    """What looks like a boundary and is none is the file's; it may come in any number of pieces."""
    whole = form([("f", f"{number}", body) for number, body in enumerate(bodies)], boundary="B")
    ends = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
    cut_up = outcome([whole[start:end] for start, end in pairwise(ends)])
    assert cut_up == outcome([whole]) == outcome([whole[at:at + 1] for at in range(len(whole))])
    if not any(b"--B" in body + b"\r\n" for body in bodies):
        assert [body for _, body in cut_up[0]] == bodies
        assert cut_up[1:] == (True, "")


@given(st.binary(max_size=300), st.integers(1, 7))
def test_whatever_comes_is_read_or_refused(data: bytes, size: int) -> None:
    """Nothing but a refusal comes out of what is no form."""
    for text in (data, b"--B\r\n" + data, form([("f", "x", data)], boundary="B")):
        assert outcome([text[at:at + size] for at in range(0, len(text), size)])[2] in {"", "bad_form", "long_form"}


@pytest.mark.parametrize("boundary", [b"", b"a" * 71, b"a ", b"a\r", b"\xe4", b'a"b'])
def test_boundary_is_refused_that_cannot_be_one(boundary: bytes) -> None:
    """1 to 70 characters of RFC 2046."""
    with pytest.raises(Rejected, check=lambda error: error.code == "bad_form"):
        MultipartReader(boundary, max_parts=1)


@pytest.mark.parametrize(("text", "code"), [
    ("--X\r\n", "bad_form"), ("text", "bad_form"), ("--B\n", "bad_form"), ("--B\r\na b: c\r\n", "bad_form"),
    ("--B\r\nContent-Type: a\nb\r\n\r\n", "bad_form"), ("--B\r\na: b\x00c\r\n\r\n", "bad_form"),
    ("--B\r\na: b\r\n c\r\n\r\n", "bad_form"), ("--B\r\n: b\r\n\r\n", "bad_form"),
    ("--B\r\na: " + "b" * 9000, "bad_form"), ("--B\r\n" + "b" * 9000, "bad_form"), ("--B\r\n" + "a: b\r\n" * 9, "bad_form"),
    ("--B\r\n\r\n\r\n" * 11, "long_form"),
])
def test_what_is_no_form_or_too_much_is_refused(text: str, code: str) -> None:
    """Each has a code; nothing is kept without a bound."""
    with pytest.raises(Rejected, check=lambda error: error.code == code):
        events_of([text.encode()])


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(("begin", "code"), [("", ""), ("\r\n", ""), ("\n\r\r\n", ""), ("x", "bad_form"), ("\r\nx", "bad_form"), ("\r\nx\r\n", "bad_form")])
def test_empty_lines_may_stand_before_a_form_and_nothing_else(begin: str, code: str, size: int) -> None:
    """In however many pieces that comes."""
    sent = begin.encode() + form([("f", "a", b"hello")], boundary="B")
    parts, ended, refused = outcome([sent[at:at + size] for at in range(0, len(sent), size)])
    assert (refused, ended) == (code, not code)
    assert [data for _, data in parts] == ([] if code else [b"hello"])


def test_bytes_of_a_part_are_handed_on_as_they_come() -> None:
    """A large file is never in memory as a whole: of each piece at most what may begin a boundary is held back."""
    reader = MultipartReader(BOUNDARY.encode(), max_parts=1)
    reader.feed(form([("f", "x", b"")])[:-len(BOUNDARY) - 8])
    for _ in range(3):
        reader.events.clear()
        reader.feed(b"x" * 1000)
        assert sum(len(event) for event in reader.events if isinstance(event, bytes)) >= 1000
