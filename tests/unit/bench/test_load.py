"""The load that the bench puts on servers."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench import load


class _Server(socketserver.ThreadingTCPServer):
    """Answers every upload with one status, and keeps what it was asked for."""

    daemon_threads = True

    def __init__(self, status: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = status
        self.asked: list[dict[str, str]] = []


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        while self.rfile.readline():
            fields = dict(line.decode().strip().split(": ", 1) for line in iter(self.rfile.readline, b"\r\n"))
            self.rfile.read(int(fields["Content-Length"]))
            self.server.asked.append(fields)
            self.wfile.write(f"HTTP/1.1 {self.server.status}\r\nContent-Length: 2\r\n\r\nok".encode())


@contextmanager
def serving(status: str) -> Iterator[_Server]:
    """A server that gives this answer."""
    with _Server(status) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def put_load(server: _Server, *, one_path: bool) -> load.Load:
    """A short load from two connections to two instances."""
    return load.run(server.server_address[1], seconds=0.05, instances=["a", "b"], connections=2, directory="/root/in",
                    one_path=one_path)


def test_each_upload_has_a_path_of_its_own_in_the_directory() -> None:
    """Nothing supersedes anything, and what was accepted is what the server was asked for."""
    with serving("202 Accepted") as server:
        found = put_load(server, one_path=False)
    paths = [asked["X-File-Path"] for asked in server.asked]
    assert len(set(paths)) == len(paths) == found.uploads >= 2
    assert all(path.startswith("/root/in/") for path in paths)
    assert {asked["X-Container-Name"] for asked in server.asked} == {"a", "b"}


def test_one_path_is_the_same_for_all_uploads() -> None:
    """Each upload supersedes the one before."""
    with serving("202 Accepted") as server:
        put_load(server, one_path=True)
    assert len({asked["X-File-Path"] for asked in server.asked}) == 1
    assert len(server.asked) >= 2


def test_load_that_is_not_accepted_is_no_figure() -> None:
    """A server that refuses quickly is not a fast one."""
    with serving("503 Service Unavailable") as server, pytest.raises(RuntimeError, match="were not accepted"):
        put_load(server, one_path=False)
