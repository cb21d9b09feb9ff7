"""A push that another cell of the service has to take."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from client.push import run
from client.push.plan import PlannedFile, PushPlan
from client.push.progress import FileProgress
from client.push.record import ResumeRecord
from client.push.report import JsonReporter
from client.push.run import PushCourse, PushRun
from client.push.sending import FileSender, PushOrder
from client.push.unsent import Unsent
from client.server import ChosenServer, parse_address
from daemon.process.exit_status import Misused
from tests.support.waiting import PATIENCE_S

TASK = "01a203af-ced4-760f-ae26-10636e7e5bca"


class Cell(http.server.ThreadingHTTPServer):
    """A service that sends all uploads to the address `to`, or takes them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.to: str | None = None
        self.status = 421
        self.seen: list[tuple[str, str | None]] = []


class _Answers(http.server.BaseHTTPRequestHandler):
    server: Cell

    def do_PUT(self) -> None:
        """Answer an upload."""
        self.rfile.read(int(self.headers["Content-Length"]))
        cell = self.server
        cell.seen.append((self.path, self.headers["Authorization"]))
        problem = {"code": "other_cell", "cell": "b", "address": cell.to}
        body = json.dumps(problem if cell.to else {"id": TASK}).encode()
        self.send_response(cell.status if cell.to else 202)
        self.send_header("Content-Type", "application/problem+json" if cell.to else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def cell() -> Iterator[Cell]:
    """A cell that answers."""
    with Cell() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()


@pytest.fixture
def first() -> Iterator[Cell]:
    """The cell that the command names."""
    with cell() as made:
        yield made


def order_to(server: ChosenServer, folder: Path) -> tuple[PushOrder, PlannedFile]:
    """A file, and what holds for it."""
    (folder / "f").write_text("x")
    return PushOrder(
        server=server, instance="web1", project=None, mkdirs=False, uid=None, gid=None, retry_for_s=0.0,
        record=ResumeRecord(folder / "state", "s"), scope="s", stop=threading.Event(), reached=threading.Event(),
    ), PlannedFile(str(folder / "f"), "/srv/f", 1, 0o600)


def send(first: Cell, folder: Path) -> tuple[str, str]:
    """Send a file to web1; the task, and the address that it ended at."""
    server = ChosenServer(parse_address(first.address), "icour_secret")
    order, file = order_to(server, folder)
    with server.connect() as client:
        task = FileSender(order, client).send(file, FileProgress("f", 1))
        return task, client.address.name


def run_to(server: ChosenServer, folder: Path) -> int:
    """Push a file to web1; the exit code."""
    order, file = order_to(server, folder)
    course = PushCourse(jobs=1, wait=False, timeout_s=None)
    return PushRun(PushPlan([file]), order, server, course, JsonReporter("web1")).run()


@pytest.mark.parametrize("status", [421, 307])
def test_file_goes_to_the_cell_that_is_named(first: Cell, tmp_path: Path, status: int) -> None:
    """With the same address and credential, whether its client is told so or sent there."""
    with cell() as second:
        first.to, first.status = second.address, status
        assert send(first, tmp_path) == (TASK, second.address)
        assert first.seen == second.seen == [("/v1/instances/web1/files/srv/f?mode=0600", "Bearer icour_secret")]


def test_cells_that_name_one_another_are_left(first: Cell, tmp_path: Path) -> None:
    """Nobody goes in circles."""
    first.to = first.address
    with pytest.raises(Unsent, match="name one another") as caught:
        send(first, tmp_path)
    assert (caught.value.code, caught.value.concerns_all, len(first.seen)) == ("other_cell", True, 5)


def test_nothing_is_sent_where_it_is_less_safe() -> None:
    """By TLS it stays, and from this machine it goes by TLS alone; what is no address of a cell is none."""
    here, there = "http://127.0.0.1:1", "http://elsewhere.example"
    secure = "https://elsewhere.example"
    for first, to in ((secure, there), (secure, here), (here, there), ("unix:/run/x", there), (here, "file:///etc"), (here, ""),
                      (there, "unix:/run/x"), ("unix:/run/x", "unix:/run/y")):
        with pytest.raises(Misused):
            ChosenServer(parse_address(first)).at(to)
    for first, to in ((secure, "https://b.example"), (here, secure), ("unix:/run/x", here), (there, here), (there, secure)):
        address = ChosenServer(parse_address(first)).at(to)
        assert (address.name, address.tls is None) == (to, to.startswith("http:"))


def test_cell_that_cannot_be_gone_to_is_a_failure(
    first: Cell, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    """Also where the file is not there that says who vouches for its certificate."""
    first.to = "https://b.example"
    assert run_to(ChosenServer(parse_address(first.address), ca=tmp_path / "ca"), tmp_path) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["message"]) == ("other_cell", f"{tmp_path / 'ca'}: No such file or directory")


def test_file_that_nobody_says_anything_of_is_a_failure(
    first: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    """A mistake of the command ends with no 0."""
    died = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: died.set())
    monkeypatch.setattr(run, "FileSender", lambda *_: None)
    assert run_to(ChosenServer(parse_address(first.address)), tmp_path) == 1
    # The command does not wait until the thread has said what it died of.
    assert died.wait(PATIENCE_S)
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "internal"
