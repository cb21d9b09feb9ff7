import contextlib
import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.task_queue import Notice
from daemon.webhooks import frames
from tests.support.processes import Forked, end
from tests.support.receiver import SECRET, Receiver
from tests.support.waiting import eventually

SILENT_S = 60.0


class Desk:
    """A sender in a process of its own, with one webhook."""

    def __init__(self, directory: Path, url: str) -> None:
        """Start it."""
        self._state = directory / "state"
        self._state.mkdir()
        self._config, self.log = directory / "config.toml", directory / "log"
        self.configure(url)
        self.process = Forked(["sender", "--config", str(self._config)], {}, self.log)
        eventually(lambda: "sender.started" in self._said())

    def _said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def events(self) -> list[str]:
        """What it logged."""
        return [json.loads(line)["event"] for line in self._said().splitlines()]

    def configure(self, url: str) -> None:
        """Write its configuration."""
        hook = {"name": "ci", "url": url, "secret": SECRET}
        lines = [f"[state]\ndirectory = '{self._state}'", "[log]\nformat = 'json'", "[sender]\nallow = ['127.0.0.0/8']",
                 "[[webhooks]]", *(f"{key} = '{value}'" for key, value in hook.items())]
        self._config.write_text("\n".join(lines))

    @contextlib.contextmanager
    def connected(self, *, greet: bool = True) -> Iterator[socket.socket]:
        """A connection as a worker makes it."""
        with frames.connect(self._state / "sender.sock", SILENT_S) as connection:
            if greet:
                connection.sendall(frames.greeting())
                frames.check_greeting(read(connection))
            yield connection


def read(connection: socket.socket) -> dict[str, Any]:
    """The next frame."""
    with connection.makefile("rb", buffering=0) as file:
        return frames.unpack(file.read(frames.length_of(file.read(frames.HEAD.size) or b"")) or b"")


def a_notice(number: int, webhook: str = "ci") -> Notice:
    """A notice whose id says its number."""
    return Notice(message_id=f"msg_{number}", webhook=webhook, type="webhook.test", task_id=None, body="{}", created_at=0.0)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that takes everything."""
    with Receiver() as opened:
        yield opened


@pytest.fixture
def desk(quick_path: Path, receiver: Receiver) -> Iterator[Desk]:
    """A sender that runs."""
    made = Desk(quick_path, receiver.url)
    yield made
    end(made.process)


def test_each_request_is_answered_by_its_number(desk: Desk, receiver: Receiver) -> None:
    """Also those for which nothing could be sent; a new configuration counts from the next one on."""
    with desk.connected() as connection:
        for number, notice in enumerate([a_notice(0), a_notice(1, "other"), a_notice(2)]):
            connection.sendall(frames.request(number, notice))
        answers = dict(frames.read_reply(read(connection)) for _ in range(3))
        assert {number: answer.status for number, answer in answers.items()} == {0: 204, 1: None, 2: 204}
        assert "no webhook of that name" in answers[1].detail
        desk.configure("http://127.0.0.2:1/")
        desk.process.send(signal.SIGHUP)
        eventually(lambda: "config.reloaded" in desk.events())
        connection.sendall(frames.request(9, a_notice(9)))
        number, answer = frames.read_reply(read(connection))
        assert (number, answer.status) == (9, None)
    assert {received.message_id for received in receiver.received} == {"msg_0", "msg_2"}


def test_who_says_what_is_not_understood_is_let_go(desk: Desk) -> None:
    """And nobody else: the log says so, and the next one is served."""
    wrong = [b"GET / HTTP/1.1\r\n\r\n", frames.pack({"protocol": 2}), b"\xff" * 9, frames.pack({})]
    for data in wrong:
        with desk.connected(greet=False) as connection:
            connection.sendall(data)
            assert connection.recv(1) == b""
    with desk.connected() as connection:
        connection.sendall(frames.pack({"number": 1, "webhook": "ci", "id": "a\r\nX: y", "body": ""}))
        assert connection.recv(1) == b""
    with desk.connected() as connection:
        connection.sendall(frames.request(1, a_notice(1)))
        assert frames.read_reply(read(connection))[1].taken
    assert desk.events().count("sender.refused") == len(wrong) + 1
    assert "sender.error" not in desk.events()


def test_sender_that_is_told_to_stop_answers_what_it_has(desk: Desk, receiver: Receiver) -> None:
    """What is being sent is answered, and nothing is left."""
    arrived, go_on = threading.Event(), threading.Event()

    def stand_still() -> None:
        arrived.set()
        go_on.wait(SILENT_S)

    receiver.before = stand_still
    with desk.connected() as connection:
        connection.sendall(frames.request(1, a_notice(1)))
        assert arrived.wait(SILENT_S)
        desk.process.send(signal.SIGTERM)
        go_on.set()
        assert frames.read_reply(read(connection))[1].taken
    assert end(desk.process, number=0) == 0
    assert desk.events()[-1] == "sender.stopped"
