"""Where a request begins and ends on the wire, and how much may stand around the bytes of the file."""

import json
import socket

import pytest

from tests.integration.api.running import Api, wait_until
from tests.integration.api.test_limits import HEAD, until_closed
from tests.support.framing import DOUBTFUL

#: The most bytes of one head, one chunk's line, or one trailer section.
LIMIT = 16 * 1024
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
CHUNKED = f"{HEAD}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode()


def converse(api: Api, *parts: bytes) -> tuple[int, str | None]:
    """Send the parts one after the other, each in a packet of its own; return the answer's status and code."""
    with api.raw() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            connection.sendall(part)
        head, _, body = until_closed(connection).partition(b"\r\n\r\n")
    answer = json.loads(body)
    return int(head.split(b" ")[1]), answer.get("code")


@pytest.mark.parametrize("parts", [
    (b"\r\n" + GET,), (b"\r\n\r\n\r\n" + GET,), (b"\r\n", GET), (b"\r", b"\n" + GET), (b"\r", b"\n", GET)])
def test_empty_lines_before_a_request_are_passed_over(shared: Api, parts: tuple[bytes, ...]) -> None:
    """RFC 9112, 2.2: old clients send one too many after a body."""
    assert converse(shared, *parts) == (200, None)


@pytest.mark.parametrize("between", [b"\r\n", b"\r\n\r\n"])
def test_empty_lines_between_two_requests_are_passed_over(shared: Api, between: bytes) -> None:
    """Whether they come with the body before them or with the request after them."""
    first = f"{HEAD}Content-Length: 1\r\n\r\nx".encode()
    with shared.raw() as connection:
        connection.sendall(first + between + first + between + GET)
        received = until_closed(connection)
    assert [received.count(b"HTTP/1.1 202 "), received.count(b"HTTP/1.1 200 ")] == [2, 1]


def test_empty_lines_without_end_are_refused(shared: Api) -> None:
    """They count as a part of the head that they stand before."""
    assert converse(shared, b"\r\n" * (LIMIT // 2 + 1)) == (431, "long_head")


def test_upload_is_taken_once_and_told_so_when_more_follows_its_last_request(shared: Api) -> None:
    """What comes after a request that closes the connection is not looked at."""
    for extra in (b"\r\n", b"garbage\0", GET):
        assert converse(shared, f"{HEAD}Connection: close\r\nContent-Length: 1\r\n\r\nx".encode() + extra)[0] == 202


def head_of(size: int, part: str) -> bytes:
    """A request without a body whose head has `size` bytes; `part` says which of its parts is long."""
    address, field = "GET /v1/tasks?", " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    if part == "field":
        address, field = "GET /healthz", f"{field}X-Long: "
    rest = "\r\n\r\n" if part == "field" else f"{field}\r\n"
    start = address + (field if part == "field" else "")
    return (start + "x" * (size - len(start) - len(rest)) + rest).encode()


@pytest.mark.parametrize("part", ["address", "field"])
@pytest.mark.parametrize("packet", [LIMIT + 60_000, 1000])
def test_head_is_refused_from_the_first_byte_over_the_limit(shared: Api, part: str, packet: int) -> None:
    """However it is cut into packets; a head of just the limit is read."""
    def send(size: int) -> tuple[int, str | None]:
        head = head_of(size, part)
        assert len(head) == size
        return converse(shared, *(head[at:at + packet] for at in range(0, size, packet)))

    assert send(LIMIT)[0] in {200, 400}
    assert send(LIMIT)[1] != "long_head"
    assert send(LIMIT + 1) == (431, "long_head")


def test_head_of_a_second_request_is_refused_from_the_first_byte_over_the_limit(shared: Api) -> None:
    """Also when it came together with the request before."""
    with shared.raw() as connection:
        connection.sendall(f"{HEAD}Content-Length: 1\r\n\r\nx".encode() + head_of(LIMIT + 1, "field"))
        received = until_closed(connection)
    assert received.startswith(b"HTTP/1.1 202 ")
    assert b"HTTP/1.1 431 " in received


def test_trailers_are_refused_over_the_limit(shared: Api) -> None:
    """A body in chunks ends with at most so many bytes of them, and nothing is kept of one that has more."""
    before = shared.spooled()

    def send(size: int) -> tuple[int, str | None]:
        last, rest = b"0\r\nX-Trailer: ", b"\r\n\r\n"
        return converse(shared, CHUNKED + b"1\r\nx\r\n" + last + b"y" * (size - len(last) - len(rest)) + rest)

    assert send(LIMIT - 2)[0] == 202
    wait_until(lambda: len(shared.spooled()) == len(before) + 1, "the one that was taken")
    assert send(LIMIT + 1) == (431, "long_head")
    assert len(shared.spooled()) == len(before) + 1


def test_extension_of_a_chunk_is_refused_over_the_limit(shared: Api) -> None:
    """The line that says how long a chunk is may not go on for ever."""
    def send(size: int) -> tuple[int, str | None]:
        return converse(shared, CHUNKED + b"1;" + b"e" * (size - 4) + b"\r\nx\r\n0\r\n\r\n")

    assert send(LIMIT)[0] == 202
    assert send(LIMIT + 1) == (431, "long_head")


@pytest.mark.parametrize("method", ["put", "Put", "pUT", "get"])
def test_method_in_small_letters_is_another_method(shared: Api, method: str) -> None:
    """Methods are case-sensitive (RFC 9110, 9.1)."""
    request = HEAD.replace("PUT", method) + "Connection: close\r\nContent-Length: 0\r\n\r\n"
    assert converse(shared, request.encode()) == (405, "method_not_allowed")


def test_head_that_cannot_be_read_is_refused_without_a_body(shared: Api) -> None:
    """Also one that others would read; nothing of it is a mistake of the service."""
    with shared.raw() as connection:
        connection.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n")
        head, _, body = until_closed(connection).partition(b"\r\n\r\n")
    assert (head.split(b" ")[1], body) == (b"400", b"")
    with shared.raw() as connection:
        connection.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\ngarbage\r\n\r\n")
        assert until_closed(connection).count(b'"code": "bad_request"') == 1
    assert shared.ask("GET", "/healthz").status == 200
    assert [event for event in shared.events if event["event"] == "api.error"] == []


@pytest.mark.parametrize("version", ["0.9", "1.2", "2.0", "3.0"])
def test_other_versions_are_refused(shared: Api, version: str) -> None:
    """HTTP/1.0 and HTTP/1.1 are spoken, and nothing else."""
    assert converse(shared, f"GET /healthz HTTP/{version}\r\nHost: localhost\r\n\r\n".encode()) == (505, "http_version")


@pytest.mark.parametrize(("framing", "status"), DOUBTFUL)
def test_body_whose_end_another_might_see_elsewhere_is_refused(shared: Api, framing: str, status: int) -> None:
    """A proxy in front that reads it otherwise would let a second request through in the body of the first."""
    before = shared.spooled()
    assert converse(shared, HEAD.encode() + framing.encode())[0] == status
    assert shared.spooled() == before


@pytest.mark.parametrize("packets", [1, 1000])
def test_body_is_taken_however_its_chunks_are_cut(shared: Api, packets: int) -> None:
    """Lines that are whole only in the next packet are legal."""
    sent = CHUNKED + b"00001;a=\"b\tc\"\r\nx\r\n1\r\ny\r\n000\r\nX: a\r\n\r\n"
    size = -(-len(sent) // packets)
    assert converse(shared, *(sent[at:at + size] for at in range(0, len(sent), size)))[0] == 202


@pytest.mark.parametrize("head", [
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"])
def test_two_framings_are_refused_at_every_address(shared: Api, head: str) -> None:
    """Also where nobody reads the body."""
    request = f"GET /healthz HTTP/1.1\r\nHost: localhost\r\n{head}\r\n0\r\n\r\n"
    assert converse(shared, request.encode()) == (400, "bad_length")


@pytest.mark.parametrize("head", [
    "GET /healthz HTTP/1.1\nHost: localhost\n\n", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\n",
    "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\r\r\n\r\n",
    "GET /healthz HTTP/1.1\r\n Host: localhost\r\n\r\n", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\r\n\tb\r\n\r\n",
    "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\x1bb\r\n\r\n", "GET /healthz\rHTTP/1.1\r\nHost: localhost\r\n\r\n",
])
def test_line_that_another_might_see_end_elsewhere_is_refused(shared: Api, head: str) -> None:
    """Lines end with CR and LF, neither stands alone, none is folded, and none has control characters (RFC 9112, 2.2 and 5.2)."""
    assert converse(shared, head.encode()) == (400, "bad_request")


def greeting(host: str, target: str = "/healthz") -> bytes:
    """A question with this Host header."""
    return f"GET {target} HTTP/1.1\r\nHost:{host}\r\nConnection: close\r\n\r\n".encode("latin-1")


@pytest.mark.parametrize("host", [
    " a b", " user@localhost", " a,b c", " localhost:x", " localhost:80:90", " :80", " [::1", " ::1", " [::1]x", " a/b", " a%zz", " \xe9",
    " a\r\nHost: a", " a\r\nHost:",
])
def test_host_that_is_none_is_refused(shared: Api, host: str) -> None:
    """RFC 9112, 3.2: one Host, of a host and a port."""
    assert converse(shared, greeting(host)) == (400, "bad_request")


@pytest.mark.parametrize("host", ["", " ", " localhost", "localhost:8420", " a_b.example.", " [::1]:80", " [fe80::1%25eth0]", " 127.0.0.1:", " a%20b"])
def test_host_that_is_one_is_taken(shared: Api, host: str) -> None:
    """An empty one is that of an address without a host, as at a Unix socket (RFC 9112, 3.2)."""
    assert converse(shared, greeting(host)) == (200, None)


@pytest.mark.parametrize(("host", "target", "status"), [
    (" a", "http://a/healthz", 200), ("", "http://a/healthz", 400), (" a", "http:///healthz", 400), (" a", "http://u@a/healthz", 400),
    (" a", "http://a b/healthz", 400), (" a", "http://a?b=/c", 404),
])
def test_host_of_an_absolute_target_is_checked_too(shared: Api, host: str, target: str, status: int) -> None:
    """It is what counts then (RFC 9112, 3.2.2), and the Host header must not be empty beside it."""
    assert converse(shared, greeting(host, target))[0] == status


def test_chunks_are_refused_in_http_1_0(shared: Api) -> None:
    """That version knows none (RFC 9112, 6.1)."""
    request = HEAD.replace("HTTP/1.1", "HTTP/1.0") + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    assert converse(shared, request.encode()) == (400, "bad_request")


@pytest.mark.parametrize("trailer", ["Repr-Digest: sha-256=:AAAA:", "content-digest: x", "Content-MD5: x", "Digest: x"])
def test_digest_in_a_trailer_is_refused(shared: Api, trailer: str) -> None:
    """Nobody would check it, and its sender would believe that somebody had; nothing is kept."""
    before = shared.spooled()
    assert converse(shared, CHUNKED + b"1\r\nx\r\n0\r\n" + trailer.encode() + b"\r\n\r\n") == (400, "unchecked_digest")
    assert shared.spooled() == before


def test_other_trailers_are_ignored(shared: Api) -> None:
    """RFC 9110, 6.5.1 allows it."""
    assert converse(shared, CHUNKED + b"1\r\nx\r\n0\r\nX-Checked-By: me\r\n\r\n")[0] == 202
