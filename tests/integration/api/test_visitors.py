"""What a page in a browser of this machine can do at a door that every user reaches: nothing."""

import http.client
import signal
import socket
from collections.abc import Callable
from email.message import Message
from typing import NamedTuple

import pytest

from tests.integration.api.running import Api, wait_until
from tests.support.waiting import PATIENCE_S

Start = Callable[..., Api]
TARGET = "/v1/instances/c1/files/root/a"


class Answer(NamedTuple):
    """A whole answer, and whether the connection ends with it."""

    status: int
    headers: Message
    body: bytes
    will_close: bool


#: By which a browser gives itself away, whatever page it serves.
BROWSER = "User-Agent: Mozilla/5.0 (X11; Linux x86_64)"


def send(
    connection: socket.socket, method: str, target: str, *headers: str, version: str = "1.1", agent: str = BROWSER,
) -> Answer:
    """Send a request with an upload of one byte, and nothing in its head but what is given; return the answer."""
    lines = (f"{method} {target} HTTP/{version}", agent, *headers, "X-Container-Name: c1", "X-File-Path: /root/a",
             *(["Content-Length: 1"] if method in {"PUT", "POST"} else []), "", "x" if method in {"PUT", "POST"} else "")
    connection.sendall("\r\n".join(lines).encode())
    with http.client.HTTPResponse(connection, method=method) as answer:
        answer.begin()
        return Answer(answer.status, answer.headers, answer.read(), answer.will_close)


@pytest.mark.parametrize(("headers", "status", "code"), [
    (["Host: evil.example"], 421, "unknown_host"),
    (["Host: 127.0.0.1", "Origin: http://evil.example"], 403, "cross_site"),
    (["Host: localhost", "Sec-Fetch-Site: cross-site"], 403, "cross_site"),
    (["Host: localhost:8420", "Origin: http://localhost:3000", "Sec-Fetch-Site: same-site"], 403, "cross_site"),
])
@pytest.mark.parametrize(("method", "target"), [
    ("PUT", TARGET), ("POST", "/upload"), ("GET", "/v1/tasks"), ("GET", "/healthz"), ("OPTIONS", "/upload"), ("GET", "/"),
])
def test_page_of_another_site_is_refused_at_a_tcp_door(
    shared: Api, method: str, target: str, headers: list[str], status: int, code: str,
) -> None:
    """Whatever it asks for, nothing of it is kept, and the connection can be used again."""
    before = shared.spooled()
    with shared.raw() as connection:
        for _ in range(2):
            answer = send(connection, method, target, *headers)
            assert (answer.status, answer.will_close) == (status, False)
            assert code in answer.body.decode()
            assert "access-control-allow-origin" not in answer.headers
    assert shared.spooled() == before
    shared.logged_with("request.refused", code=code)


def test_refusal_at_upload_is_in_words(shared: Api) -> None:
    """POST /upload answers in plain text, also this."""
    with shared.raw() as connection:
        answer = send(connection, "POST", "/upload", "Host: evil.example")
        assert (answer.status, answer.headers["content-type"]) == (421, "text/plain; charset=utf-8")


@pytest.mark.parametrize(("version", "headers"), [
    ("1.1", ["Host: 127.0.0.1:8420"]), ("1.1", ["Host: LOCALHOST"]), ("1.1", ["Host: [::1]:1"]), ("1.0", []),
    ("1.0", ["Host: localhost"]), ("1.1", ["Host: localhost:8420", "Origin: http://localhost:8420", "Sec-Fetch-Site: same-origin"]),
    ("1.1", ["hOsT: localhost", "sec-fetch-site: none"]),
])
def test_page_of_our_own_is_let_in_at_a_tcp_door(shared: Api, version: str, headers: list[str]) -> None:
    """A request that names this machine, or nothing at all, is taken."""
    with shared.raw() as connection:
        assert send(connection, "PUT", TARGET, *headers, version=version).status == 202


@pytest.mark.parametrize("agent", ["User-Agent: curl/8.5.0", "Accept: */*"])
def test_program_may_call_us_what_it_likes(shared: Api, agent: str) -> None:
    """Only browsers run other people's programs: a client that sends any name, or none, is as good as its user."""
    with shared.raw() as connection:
        assert send(connection, "PUT", TARGET, "Host: uploads", agent=agent).status == 202


def test_anything_goes_at_a_unix_socket(shared: Api) -> None:
    """No browser reaches it, and its clients have no use for a host."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(str(shared.socket_path))
        answer = send(connection, "PUT", TARGET, "Host: courier", "Origin: http://evil.example", "Sec-Fetch-Site: cross-site")
        assert answer.status == 202


def test_configured_host_is_let_in(start: Start) -> None:
    """`api.hosts` says by which names this service is known besides; a reload takes them over."""
    api = start(api={"hosts": ["uploads.example.org"]})
    with api.raw() as connection:
        answer = send(connection, "PUT", TARGET, "Host: Uploads.example.org", "Origin: https://uploads.example.org")
        assert answer.status == 202
        assert send(connection, "PUT", TARGET, "Host: files.example.org").status == 421
    api.configure(api.settings, {"api": {"hosts": ["files.example.org"]}})
    api.send(signal.SIGHUP)

    def statuses() -> list[int]:
        found = []
        for host in ("files.example.org", "uploads.example.org"):
            with api.raw() as connection:
                found.append(send(connection, "PUT", TARGET, f"Host: {host}").status)
        return found

    wait_until(lambda: statuses() == [202, 421], "the new names are in force")


def test_page_is_refused_at_a_public_address_too(start: Start) -> None:
    """`allow_anonymous` lets other machines in, and no pages."""
    api = start(api={"listen": ["0.0.0.0:0"], "allow_anonymous": True, "hosts": ["uploads.example.org"]})
    port = int(api.listens_on[0].rpartition(":")[2])
    for headers, status in ((["Host: evil.example"], 421), (["Host: 192.0.2.1", "Origin: http://192.0.2.2"], 403),
                            (["Host: 192.0.2.1"], 202), (["Host: uploads.example.org"], 202)):
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
            assert send(connection, "PUT", TARGET, *headers).status == status


@pytest.mark.parametrize(("target", "host", "status"), [
    ("http://127.0.0.1:8420/v1/instances/c1/files/root/a%20b", "evil.example", 202),
    ("http://evil.example/v1/instances/c1/files/root/a%20b", "127.0.0.1", 421),
])
def test_absolute_target_is_taken_by_its_own_host(shared: Api, target: str, host: str, status: int) -> None:
    """RFC 9112, 3.2.2: a whole URL is as good as a path, and its host counts instead of the header's."""
    with shared.raw() as connection:
        answer = send(connection, "PUT", target, f"Host: {host}")
        assert answer.status == status
        assert status == 421 or b'"/root/a b"' in answer.body


def test_large_upload_of_a_page_is_refused_without_a_leak(shared: Api) -> None:
    """A refusal in the middle of a body costs no connection."""
    before = shared.descriptors()
    for _ in range(20):
        connection = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=PATIENCE_S)
        connection.request("PUT", TARGET, b"x" * 2_000_000, {"Host": "evil.example", "User-Agent": "Mozilla/5.0"})
        assert connection.getresponse().status == 421
        connection.close()
    wait_until(lambda: shared.descriptors() <= before, "the connections are closed")
