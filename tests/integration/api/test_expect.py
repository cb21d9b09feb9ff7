"""Clients that ask before they send a body: `Expect: 100-continue`."""

import json
import socket
import subprocess
from pathlib import Path

import pytest

from tests.integration.api.running import Api
from tests.integration.api.test_limits import CONTINUE, HEAD, answer, until_closed
from tests.support.waiting import PATIENCE_S

EXPECT = "Expect: 100-continue\r\n"

#: Heads that are refused, whatever the body would have been, and the status that says so.
REFUSED = [
    (f"{HEAD}Content-Length: {2**50}\r\n", 413), (f"{HEAD}Content-Length: 5\r\nContent-Range: bytes 1-5/9\r\n", 400),
    (f"{HEAD}Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n", 415),
    ("PUT /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n", 404),
    ("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n", 400),
    ("PUT /upload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n", 405),
    (f"{HEAD}Origin: http://evil.example\r\nContent-Length: 5\r\n", 421),
    ("PUT http://localhost:{port}/ HTTP/1.1\r\nHost: a\r\nOrigin: http://evil.example\r\nContent-Length: 5\r\n", 403),
    (f"{HEAD}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
]


@pytest.mark.parametrize(("head", "status"), REFUSED)
def test_upload_that_is_refused_gets_its_final_status_alone(shared: Api, head: str, status: int) -> None:
    """Nobody is told to send what the head alone refuses."""
    with shared.raw() as connection:
        connection.sendall(f"{head}{EXPECT}\r\n".replace("{port}", str(shared.port)).encode())
        received = answer(connection)
        connection.shutdown(socket.SHUT_WR)
        received += until_closed(connection)
    assert received.startswith(f"HTTP/1.1 {status} ".encode())
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"connection: close\r\n" in received


@pytest.mark.parametrize("framing", ["Content-Length: 1", "Transfer-Encoding: chunked"])
def test_what_follows_a_refusal_is_not_taken_for_a_request(shared: Api, framing: str) -> None:
    """It may be the body that was waited with, or not: whoever reads on guesses."""
    before = shared.tasks()
    with shared.raw() as connection:
        connection.sendall(f"{HEAD}{framing}\r\nIf-Match: *\r\n{EXPECT}\r\n".encode())
        received = answer(connection)
        connection.sendall(f"{HEAD}Content-Length: 1\r\nConnection: close\r\n\r\nx".encode())
        connection.shutdown(socket.SHUT_WR)
        received += until_closed(connection)
    assert received.count(b"HTTP/1.1 ") == 1
    assert shared.tasks() == before


@pytest.mark.parametrize(("framing", "body"), [("Content-Length: 5", b"abcde"), ("Transfer-Encoding: chunked", b"5\r\nabcde\r\n0\r\n\r\n")])
def test_client_is_told_to_send_the_body_once_it_is_let_in(shared: Api, framing: str, body: bytes) -> None:
    """Once, before anything of it is there; its connection can be used again."""
    with shared.raw() as connection:
        for _ in range(2):
            connection.sendall(f"{HEAD}{framing}\r\n{EXPECT}\r\n".encode())
            assert answer(connection) == CONTINUE
            connection.sendall(body)
            assert answer(connection).startswith(b"HTTP/1.1 202 ")


@pytest.mark.parametrize("parts", [
    (f"{HEAD}Content-Length: 0\r\n{EXPECT}\r\n",), (f"{HEAD}Content-Length: 5\r\n{EXPECT}\r\nabcde",),
    (HEAD.replace("1.1", "1.0") + f"Content-Length: 5\r\n{EXPECT}\r\n", "abcde"),
])
def test_client_is_not_told_where_nothing_has_to_come(shared: Api, parts: tuple[str, ...]) -> None:
    """Nothing is left to be sent, or it is a client of HTTP/1.0, who knows no such answer."""
    with shared.raw() as connection:
        for part in parts:
            connection.sendall(part.encode())
        assert answer(connection).startswith(b"HTTP/1.1 202 ")


def by_curl(api: Api, file: Path, path: str) -> tuple[int, str]:
    """PUT `file` with curl, which may wait for an hour to be told to; return the status and the code."""
    ran = subprocess.run(
        ["curl", "--silent", "--show-error", "--expect100-timeout", "3600", "-H", "Expect: 100-continue",
         "--write-out", "\n%{http_code}", "-T", str(file), f"http://127.0.0.1:{api.port}{path}"],
        check=True, capture_output=True, text=True, timeout=PATIENCE_S)
    body, _, status = ran.stdout.rpartition("\n")
    return int(status), json.loads(body).get("code", "")


def test_curl_is_served_and_refused(shared: Api, tmp_path: Path) -> None:
    """It sends what is let in, and understands what is not."""
    file = tmp_path / "file"
    file.write_bytes(b"x" * 2_000_000)
    assert by_curl(shared, file, "/v1/instances/c1/files/root/a") == (202, "")
    assert by_curl(shared, file, "/v1/instances/-/files/root/a") == (400, "bad_instance")
