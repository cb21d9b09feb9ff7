"""What a page of another site can do here, whatever the listener: nothing."""

import http.client
import os
import pwd
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
    port: int = 0,
) -> Answer:
    """Send a request with an upload of one byte, and nothing in its head but what is given; return the answer.

    {port} in it stands for `port`.
    """
    lines = (f"{method} {target} HTTP/{version}", agent, *headers, "X-Container-Name: c1", "X-File-Path: /root/a",
             *(["Content-Length: 1"] if method in {"PUT", "POST"} else []), "", "x" if method in {"PUT", "POST"} else "")
    connection.sendall("\r\n".join(lines).replace("{port}", str(port)).encode("latin-1"))
    with http.client.HTTPResponse(connection, method=method) as answer:
        answer.begin()
        return Answer(answer.status, answer.headers, answer.read(), answer.will_close)


@pytest.mark.parametrize(("headers", "status", "code"), [
    (["Host: evil.example"], 421, "unknown_host"),
    (["Host: 127.0.0.1:{port}", "Origin: http://evil.example"], 403, "cross_site"),
    (["Host: localhost:{port}", "Sec-Fetch-Site: cross-site"], 403, "cross_site"),
    (["Host: localhost:{port}", "Origin: http://localhost:3000", "Sec-Fetch-Site: same-site"], 403, "cross_site"),
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
            answer = send(connection, method, target, *headers, port=shared.port)
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
    ("1.1", ["Host: 127.0.0.1:{port}"]), ("1.1", ["Host: LOCALHOST:{port}"]), ("1.1", ["Host: [::1]:{port}"]), ("1.0", []),
    ("1.0", ["Host: localhost:{port}"]),
    ("1.1", ["Host: localhost:{port}", "Origin: http://localhost:{port}", "Sec-Fetch-Site: same-origin"]),
    ("1.1", ["hOsT: localhost:{port}", "sec-fetch-site: none"]), ("1.1", ["Host: localhost:{port}", "Cookie: a=b"]),
])
def test_page_of_our_own_is_let_in_at_a_tcp_door(shared: Api, version: str, headers: list[str]) -> None:
    """A request that names this machine, or nothing at all, is taken."""
    with shared.raw() as connection:
        assert send(connection, "PUT", TARGET, *headers, version=version, port=shared.port).status == 202


@pytest.mark.parametrize("host", [
    "localhost", "localhost:3000", "localhost:0{port}0", "127.0.0.1:", "[::1]:80", "[::1%25lo]:1", "LOCALHOST..:{port}", "a,localhost:{port}",
    "%6cocalhost:{port}", "localhost:99999", "", "xn--lcalhost-n2a:{port}",
])
@pytest.mark.parametrize("sign", [BROWSER, "Cookie: session=1", "Sec-Fetch-Site: same-origin", "Referer: http://localhost/"])
def test_host_in_an_odd_spelling_is_not_ours(shared: Api, host: str, sign: str) -> None:
    """Nor is one of ours at another port, by whatever a browser is known."""
    with shared.raw() as connection:
        assert send(connection, "GET", "/healthz", f"Host: {host}", agent=sign, port=shared.port).status == 421


@pytest.mark.parametrize(("request_line", "status"), [
    ("CONNECT 127.0.0.1:{port}", 404), ("CONNECT evil.example:443", 404), ("CONNECT /v1/tasks", 405),
    ("CONNECT http://127.0.0.1:{port}/v1/tasks", 405), ("CONNECT http://evil.example/v1/tasks", 421),
    ("OPTIONS *", 404), ("GET *", 404), ("GET v1/tasks", 404), ("GET //evil.example/v1/tasks", 404), ("TRACE /healthz", 405),
    ("GET HTTP://LocalHost:{port}/healthz", 200), ("GET http://localhost/healthz", 421), ("GET https://localhost:{port}/healthz", 421),
    ("GET http://user@127.0.0.1:{port}/healthz", 400), ("GET http:///healthz", 400), ("GET ftp://127.0.0.1:{port}/healthz", 404),
])
def test_target_of_another_form_opens_nothing(shared: Api, request_line: str, status: int) -> None:
    """Nothing is a proxy here, and a whole URL has to be one of this site."""
    method, target = request_line.split()
    with shared.raw() as connection:
        assert send(connection, method, target, "Host: 127.0.0.1:{port}", port=shared.port).status == status


@pytest.mark.parametrize("agent", ["User-Agent: curl/8.5.0", "Accept: */*"])
def test_program_may_call_us_what_it_likes(shared: Api, agent: str) -> None:
    """Only browsers run other people's programs: a client that sends any name, or none, is as good as its user."""
    with shared.raw() as connection:
        assert send(connection, "PUT", TARGET, "Host: uploads", agent=agent).status == 202


@pytest.mark.parametrize(("headers", "status"), [
    (["Host: courier", "Origin: http://evil.example", "Sec-Fetch-Site: cross-site"], 421), (["Host: courier", BROWSER], 421),
    (["Host: courier", "Cookie: a=b"], 421), (["Host: localhost", "Origin: http://localhost"], 403), (["Host: localhost", "Origin: null"], 403),
    (["Host: localhost", "Sec-Fetch-Site: same-site"], 403), (["Host: localhost", "Sec-Fetch-Site: same-origin"], 202),
    (["Host: localhost:1", BROWSER], 202), (["Host: courier"], 202), (["Host:"], 202),
])
def test_page_is_refused_at_a_unix_socket_too(shared: Api, headers: list[str], status: int) -> None:
    """A proxy may pass on what browsers send; programs, which have no use for a host there, may say what they like."""
    with shared.raw("unix") as connection:
        assert send(connection, "PUT", TARGET, *headers, agent="Accept: */*").status == status


def test_configured_sites_are_let_in(start: Start) -> None:
    """By `api.hosts` the listener is known, and each of `api.origins` is a site of its own; a reload takes them over."""
    api = start(api={"hosts": ["uploads.example.org"], "origins": ["https://files.example.org"]})

    def statuses(*headers: str) -> list[int]:
        found = []
        for source in ("127.0.0.1", "unix"):
            with api.raw(source) as connection:
                found.append(send(connection, "PUT", TARGET, *headers, port=api.port).status)
        return found

    # No page is from the socket.
    assert statuses("Host: Uploads.example.org:{port}", "Origin: http://uploads.example.org:{port}") == [202, 403]
    assert statuses("Host: uploads.example.org", "Origin: https://uploads.example.org") == [421, 403]
    # A proxy that ends TLS and leaves Host as it is.
    assert statuses("Host: files.example.org", "Origin: https://files.example.org") == [202, 202]
    assert statuses("Host: files.example.org", "Origin: http://files.example.org") == [403, 403]
    assert statuses("Host: localhost:{port}", "Origin: https://files.example.org") == [403, 403]
    assert statuses("Host: new.example.org:{port}") == [421, 421]
    api.configure(api.settings, {"api": {"hosts": ["new.example.org"]}})
    api.send(signal.SIGHUP)
    wait_until(lambda: statuses("Host: new.example.org:{port}") == [202, 202], "the new name is in force")
    assert statuses("Host: uploads.example.org:{port}") == [421, 421]


def own_address() -> str:
    """The address of this machine that others see, if they see it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.1", 9))
        except OSError:
            return "127.0.0.2"
        return str(probe.getsockname()[0])


def test_word_of_a_proxy_counts_at_a_socket_that_tells_who_it_is(start: Start) -> None:
    """And nobody else's, wherever he comes from: not from loopback, nor from an address of this machine that is listed."""
    own, user = own_address(), pwd.getpwuid(os.geteuid()).pw_name
    listed = [] if own.startswith("127.") else [own]
    api = start(api={"origins": ["https://files.example.org"], "anonymous": "all"}, proxy={"trusted": [f"user:{user}", *listed]})
    word = ("X-Forwarded-Host: evil.example, files.example.org", "X-Forwarded-Proto: https", "Origin: https://files.example.org")

    def answers(source: str, *headers: str) -> int:
        with api.raw(source) as connection:
            return send(connection, "PUT", TARGET, "Host: localhost:{port}", *headers, port=api.port).status

    def heard() -> list[tuple[int, int]]:
        return [(answers(source, *word), answers(source, "X-Forwarded-User: alice", "X-Forwarded-User: root"))
                for source in ("unix", "127.0.0.1", own)]

    assert heard() == [(202, 400), (403, 202), (403, 202)]
    api.logged_with("request.refused", code="bad_forwarded")
    for forged in ("X_Forwarded_Host", "x-forwarded_host"):
        assert answers("unix", f"{forged}: files.example.org", "Origin: https://files.example.org") == 403
    api.configure(api.settings, {"proxy": {"trusted": ["user:daemon", *listed]}})
    api.send(signal.SIGHUP)
    wait_until(lambda: heard() == [(403, 202)] * 3, "the other user is trusted, and this one no more")


def test_page_is_refused_at_a_public_address_too(start: Start) -> None:
    """`allow_anonymous` lets other machines in, and no pages."""
    api = start(api={"listen": ["0.0.0.0:0"], "allow_anonymous": True, "hosts": ["uploads.example.org"]})
    port = int(api.listens_on[0].rpartition(":")[2])
    for headers, status in ((["Host: evil.example:{port}"], 421), (["Host: 192.0.2.1:{port}", "Origin: http://192.0.2.2:{port}"], 403),
                            (["Host: 192.0.2.1:{port}"], 202), (["Host: uploads.example.org:{port}"], 202)):
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
            assert send(connection, "PUT", TARGET, *headers, port=port).status == status


@pytest.mark.parametrize(("target", "host", "status"), [
    ("http://127.0.0.1:{port}/v1/instances/c1/files/root/a%20b", "evil.example", 202),
    ("http://evil.example/v1/instances/c1/files/root/a%20b", "127.0.0.1:{port}", 421),
])
def test_absolute_target_is_taken_by_its_own_host(shared: Api, target: str, host: str, status: int) -> None:
    """RFC 9112, 3.2.2: a whole URL is as good as a path, and its host counts instead of the header's."""
    with shared.raw() as connection:
        answer = send(connection, "PUT", target, f"Host: {host}", port=shared.port)
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
