"""Several API processes of one service."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.processes import ROOT
from tests.support.service import Service
from tests.support.waiting import PATIENCE_S, eventually

pytestmark = pytest.mark.slow

#: The head of an upload of five bytes.
HEAD = b"PUT /v1/instances/c1/files/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service with two API processes, and room for three uploads in all."""
    service = Service(tmp_path, {"api": {"processes": 2, "max_connections": 3}})
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


def code_of(service: Service) -> str | None:
    """What an upload is refused with, or None when it is taken."""
    with connected(service) as connection:
        connection.sendall(HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + b"abcde")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    code: str | None = json.loads(answer.partition(b"\r\n\r\n")[2]).get("code")
    return code


def begin_uploads(service: Service, stack: ExitStack) -> int:
    """Begin uploads, one after the other, until one more is refused; return how many.

    The processes see them in any order: what is asked last may be let in before what was begun first.
    """
    begun = 0
    while code_of(service) is None:
        stack.enter_context(connected(service)).sendall(HEAD + b"ab")
        begun += 1
    return begun


def test_uploads_are_limited_in_all_and_a_process_that_died_receives_none(service: Service) -> None:
    """It does not matter which process takes them; the places of one that is killed are free again."""
    with ExitStack() as stack:
        assert begin_uploads(service, stack) >= 3
        assert {code_of(service) for _ in range(20)} == {"too_busy"}
        for pid in apis():
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(service.events("api.started")) == 4, what="the start of both again")
        assert code_of(service) is None
