"""The Go peer, which the service is measured against."""

import http.client
import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from threading import Thread

import pytest

from bench import go_peer
from bench.go_peer import GoPeer
from tests.support.waiting import eventually

#: Go's own library is compiled once, which may take half a minute.
needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="there is no go")
HEADERS = {"X-Container-Name": "c1", "X-File-Path": "/srv/a b", "X-Host-Path": "/home/me/report"}


class _Incus(ThreadingUnixStreamServer):
    """Takes files as Incus's files API does."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Handler)
        self.taken: list[tuple[str, dict[str, str], bytes]] = []


class _Handler(BaseHTTPRequestHandler):
    server: _Incus
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take one file, which comes in chunks."""
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        self.server.taken.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def incus(tmp_path: Path) -> Iterator[_Incus]:
    """An Incus at tmp_path/incus."""
    with _Incus(tmp_path / "incus") as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def upload(peer: GoPeer, headers: dict[str, str], body: bytes = b"the bytes") -> tuple[int, str]:
    """Upload once; return the status and the text of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", peer.port, timeout=60)
    connection.request("POST", "/upload", body, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


@needs_go
@pytest.mark.slow
def test_accepted_upload_is_in_the_spool_and_in_the_log(tmp_path: Path) -> None:
    """Its bytes are under its name, and a line says where they go."""
    with GoPeer(tmp_path / "peer") as peer:
        assert upload(peer, HEADERS) == (202, "File 'report' queued for processing on container 'c1'.\n")
        (spooled,) = (tmp_path / "peer" / "spool").iterdir()
        assert spooled.read_bytes() == b"the bytes"
        assert json.loads((tmp_path / "peer" / "tasks.log").read_text()) == {
            "id": spooled.name, "container": "c1", "path": "/srv/a b", "name": "report"}


@needs_go
@pytest.mark.slow
@pytest.mark.parametrize("left_out", ["X-Container-Name", "X-File-Path"])
def test_upload_that_leads_nowhere_is_refused(tmp_path: Path, left_out: str) -> None:
    """Nothing of it is kept."""
    with GoPeer(tmp_path / "peer") as peer:
        assert upload(peer, {name: value for name, value in HEADERS.items() if name != left_out})[0] == 400
        assert not list((tmp_path / "peer" / "spool").iterdir())


@needs_go
@pytest.mark.slow
def test_delivered_upload_leaves_the_spool(tmp_path: Path, incus: _Incus) -> None:
    """It goes to Incus in one request, as its client sends it, and then its file is removed."""
    with GoPeer(tmp_path / "peer", workers=2, endpoint=str(tmp_path / "incus")) as peer:
        assert upload(peer, HEADERS)[0] == 202
        eventually(lambda: incus.taken and not list((tmp_path / "peer" / "spool").iterdir()))
    ((path, headers, body),) = incus.taken
    assert path == "/1.0/instances/c1/files?path=%2Fsrv%2Fa+b"
    assert body == b"the bytes"
    assert headers.items() >= {"x-incus-type": "file", "x-incus-mode": "0644", "x-incus-uid": "0",
                               "x-incus-gid": "0", "x-incus-write": "overwrite"}.items()


def test_machine_without_go_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line says which rows are missing, and what would bring them."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "golang-go" in (go_peer.reason_against() or "")
