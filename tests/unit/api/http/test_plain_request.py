"""Plain requests as they are recognised at once: the same as the other reader finds, or nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.plain_request import MAX_HEAD_BYTES, PlainRequest, plain_request
from tests.fuzz.strategies import conversations, plain_requests, spoils
from tests.support.framing import DOUBTFUL
from tests.support.plain_requests import as_h11_reads


@given(sent=plain_requests)
def test_plain_request_is_recognised(sent: bytes) -> None:
    """Its method, target, fields and body are those that h11 finds; so the others are tried for something."""
    assert (plain_request(sent), b"1.1") == as_h11_reads(sent)


@given(sent=plain_requests, share=st.floats(0, 1))
def test_plain_request_is_recognised_by_its_head(sent: bytes, share: float) -> None:
    """However much of its body is there; and how much is missing is told."""
    head_bytes = sent.index(b"\r\n\r\n") + 4
    there = sent[:head_bytes + int(share * (len(sent) - head_bytes))]
    assert (found := plain_request(there)) is not None
    assert (found, b"1.1") == as_h11_reads(there)
    assert found.missing_bytes == len(sent) - len(there)


@given(sent=st.one_of(spoils(plain_requests), conversations))
def test_what_is_recognised_is_what_h11_reads(sent: bytes) -> None:
    """However it is spoiled: nothing that is refused there is taken here, and nothing is read otherwise."""
    if (found := plain_request(sent)) is not None:
        assert (found, b"1.1") == as_h11_reads(sent)


def test_request_is_recognised_as_it_was_sent() -> None:
    """What the app is told of it."""
    found = plain_request(b"PUT /a%2fb?c HTTP/1.1\r\nHost: a\r\nX-A:b \t c\r\nContent-Length: 2\r\n\r\nhi")
    assert found == PlainRequest(b"PUT", b"/a%2fb?c", [(b"host", b"a"), (b"x-a", b"b \t c"), (b"content-length", b"2")], b"hi")


@pytest.mark.parametrize("sent", [
    b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\nx", b"GET / HTTP/1.1\r\nHost: a\r\n",
    b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nxy", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", b"",
    b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n",
    *(b"PUT / HTTP/1.1\r\nHost: a\r\n" + doubtful.encode() for doubtful, _ in DOUBTFUL)])
def test_anything_unusual_is_left_to_the_other_reader(sent: bytes) -> None:
    """Also what that would take: it knows what to do about it."""
    assert plain_request(sent) is None


def test_longest_head_is_recognised() -> None:
    """As long as the other reader takes, and no longer."""
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX: %s\r\n\r\n"
    room = MAX_HEAD_BYTES - len(head % b"")
    assert (plain_request(head % (b"x" * room)), b"1.1") == as_h11_reads(head % (b"x" * room))
    assert plain_request(head % (b"x" * (room + 1))) is None
