"""Several API processes of one service."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from api.routes.app import PAGES_AT_ONCE
from tests.support.processes import ROOT
from tests.support.service import Service
from tests.support.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.slow

#: The head of an upload of five bytes whose client asks first, and what it is told when it is let in.
HEAD = b"PUT /v1/instances/c1/files/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
LET_IN = b"HTTP/1.1 100"
#: A question whose answer is of half a megabyte, with the tasks below.
ASK = b"GET /v1/tasks?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n"
DEEP = "/".join("d" * 250 for _ in range(15))
TASKS = 120


@contextmanager
def serving(directory: Path, max_connections: int) -> Iterator[Service]:
    """A service with two API processes, and room for so many uploads in all."""
    service = Service(directory, {"api": {"processes": 2, "max_connections": max_connections, "body_timeout_s": 3600.0}})
    with service.log.open("wb") as log, service:
        process = subprocess.Popen(
            [sys.executable, "-c", "from daemon.cli.main import main; main()", "--config", str(service.config), "serve"], cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT)})
        try:
            eventually(lambda: len(service.events("api.started")) == 2, PATIENCE_S, "the start of both")
            yield service
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=PATIENCE_S)


def connected(service: Service) -> socket.socket:
    """A connection to whichever process takes it."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE_S)
    connection.connect(service.address.removeprefix("unix:"))
    return connection


def apis() -> list[int]:
    """The API processes among the grandchildren of this process."""
    children = [pid for child in _children_of(os.getpid()) for pid in _children_of(child)]
    return [pid for pid in children if b"\0api\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """What comes meanwhile is for the other process."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", what="it stands still")
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def begin(service: Service, stack: ExitStack, request: bytes = HEAD) -> bytes:
    """Send `request` on a connection of its own, and leave it open; return the first word and the status of what is said."""
    connection = stack.enter_context(connected(service))
    connection.sendall(request)
    return connection.recv(len(LET_IN))


def test_uploads_are_limited_in_all_and_a_process_that_died_receives_none(tmp_path: Path) -> None:
    """It does not matter which process takes them; the places of one that is killed are free again."""
    with serving(tmp_path, max_connections=3) as service, ExitStack() as stack:
        assert [begin(service, stack) for _ in range(3)] == [LET_IN] * 3
        assert {begin(service, stack) for _ in range(20)} == {b"HTTP/1.1 503"}
        for pid in apis():
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(service.events("api.started")) == 4, what="the start of both again")
        assert begin(service, stack) == LET_IN


def test_uploads_that_come_at_once_are_never_one_too_many(tmp_path: Path) -> None:
    """Each process counts before it looks at what the other has counted."""
    with serving(tmp_path, max_connections=3) as service:
        for _ in range(10):
            with ExitStack() as stack, ThreadPoolExecutor(8) as threads:
                said = list(threads.map(lambda _, stack=stack: begin(service, stack), range(8)))
                assert said.count(LET_IN) <= 3
            eventually(lambda: is_free(service), what="the places are free again")


def is_free(service: Service) -> bool:
    """True when an upload is let in, which is not made."""
    with ExitStack() as stack:
        return begin(service, stack) == LET_IN


def test_one_client_gets_three_quarters_of_all_processes_together(tmp_path: Path) -> None:
    """Not of each: what it holds in one counts in the other."""
    with serving(tmp_path, max_connections=8) as service, ExitStack() as stack:
        first, second = apis()
        with standing_still(first):
            assert [begin(service, stack) for _ in range(5)] == [LET_IN] * 5
        with standing_still(second):
            assert [begin(service, stack) for _ in range(3)] == [LET_IN, b"HTTP/1.1 503", b"HTTP/1.1 503"]


def test_pages_that_wait_to_be_read_are_limited_in_all(tmp_path: Path) -> None:
    """Of their places, too, one client gets three quarters of all processes together."""
    allowed = PAGES_AT_ONCE * 3 // 4
    with serving(tmp_path, max_connections=100) as service, ExitStack() as stack:
        for number in range(TASKS):
            service.client.put("c1", f"/{DEEP}/{number}", b"x")
        first, second = apis()
        with standing_still(first):
            assert {begin(service, stack, ASK) for _ in range(allowed - 3)} == {b"HTTP/1.1 200"}
        with standing_still(second):
            assert [begin(service, stack, ASK) for _ in range(5)] == [b"HTTP/1.1 200"] * 3 + [b"HTTP/1.1 503"] * 2
