"""Whole requests as they are recognised at once: the same as the other reader finds, or nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.whole_request import MAX_HEAD_BYTES, WholeRequest, whole_request
from tests.fuzz.strategies import conversations, spice, spoiled
from tests.support.framing import DOUBTFUL
from tests.support.whole_requests import as_h11_reads

_TOKEN = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=12)
_NAMES = st.one_of(st.sampled_from(["X-File-Path", "Accept", "authorization", "Content-Type", "Prefer", "Cookie"]), _TOKEN)
_VISIBLE = st.text([chr(code) for code in [*range(0x21, 0x7f), *range(0x80, 0x100)]], min_size=1, max_size=6)
_VALUES = st.lists(_VISIBLE, max_size=4).flatmap(lambda words: st.sampled_from([" ", "\t", "  ", " \t "]).map(lambda gap: gap.join(words)))
_TARGETS = st.one_of(st.sampled_from(["/upload", "/v1/tasks?a=b&c", "*", "http://a:80/b%2f", "/%zz", "//"]), st.text([chr(code) for code in range(0x21, 0x7f)], min_size=1, max_size=20).map(lambda rest: "/" + rest))
_UNUSUAL = {"host", "content-length", "transfer-encoding", "expect", "upgrade", "connection"}


def _plain(method: str, target: str, fields: list[tuple[str, str]], body: bytes | None, at: int, stays: str) -> bytes:
    once = {name.lower(): (name, value) for name, value in fields if name.lower() not in _UNUSUAL}
    lines = [f"{name}:{' ' * (at % 2 if value else 0)}{value}" for name, value in once.values()]
    lines[at % (len(lines) + 1):0] = ["Host: localhost:80", *([] if body is None else [f"Content-Length: {len(body)}"]), *([stays] if stays else [])]
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode("latin-1") + (body or b"")


plain = st.builds(_plain, st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"]), _TARGETS, st.lists(st.tuples(_NAMES, _VALUES), max_size=6),
                  st.none() | st.binary(max_size=200), st.integers(0, 10), st.sampled_from(["", "", "Connection: Keep-Alive"]))


@given(sent=plain)
def test_plain_request_is_recognised(sent: bytes) -> None:
    """Its method, target, fields and body are those that h11 finds; so the others are tried for something."""
    assert (whole_request(sent), b"1.1") == as_h11_reads(sent)


@given(sent=st.one_of(st.builds(spoiled, plain, st.integers(0, 2**32), st.lists(spice, min_size=1, max_size=4), st.integers(1, 4)), conversations))
def test_what_is_recognised_is_what_h11_reads(sent: bytes) -> None:
    """However it is spoiled: nothing that is refused there is taken here, and nothing is read otherwise."""
    if (found := whole_request(sent)) is not None:
        assert (found, b"1.1") == as_h11_reads(sent)


def test_request_is_recognised_as_it_was_sent() -> None:
    """What the app is told of it."""
    found = whole_request(b"PUT /a%2fb?c HTTP/1.1\r\nHost: a\r\nX-A:b \t c\r\nContent-Length: 2\r\n\r\nhi")
    assert found == WholeRequest(b"PUT", b"/a%2fb?c", [(b"host", b"a"), (b"x-a", b"b \t c"), (b"content-length", b"2")], b"hi")


@pytest.mark.parametrize("sent", [
    b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\nx", b"GET / HTTP/1.1\r\nHost: a\r\n",
    b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nxy", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", b"",
    b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n",
    *(b"PUT / HTTP/1.1\r\nHost: a\r\n" + doubtful.encode() for doubtful, _ in DOUBTFUL)])
def test_anything_unusual_is_left_to_the_other_reader(sent: bytes) -> None:
    """Also what that would take: it knows what to do about it."""
    assert whole_request(sent) is None


def test_longest_head_is_recognised() -> None:
    """As long as the other reader takes, and no longer."""
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX: %s\r\n\r\n"
    room = MAX_HEAD_BYTES - len(head % b"")
    assert (whole_request(head % (b"x" * room)), b"1.1") == as_h11_reads(head % (b"x" * room))
    assert whole_request(head % (b"x" * (room + 1))) is None
