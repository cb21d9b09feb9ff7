import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socket
from typing import Any

import pytest

from daemon.task_queue import Notice
from daemon.webhooks import frames
from daemon.webhooks.frames import HEAD
from daemon.webhooks.schedule import TryAnswer
from worker.webhooks import link
from worker.webhooks.link import SenderLink, SenderLost, SenderUp, Tried

NOTICE = Notice(message_id="msg_1", webhook="ci", type="webhook.test", task_id=None, body="{}", created_at=0.0)
TAKEN = TryAnswer(status=204, detail="HTTP 204")


class Desk:
    """A sender that a test plays, and what the link tells."""

    def __init__(self, directory: Path) -> None:
        self.told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        path = directory / "sender.sock"
        self._listener = socket(AF_UNIX, SOCK_STREAM)
        with frames.reachable(path) as name:
            self._listener.bind(name)
        self._listener.listen()
        self.link = SenderLink(self.told.put)
        self.link.open(path, 0.3)

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()

    def next(self) -> Any:
        """What is told next."""
        return self.told.get(timeout=60)

    def accept(self, greeting: bytes | None = None) -> socket:
        """Take the next connection, and greet."""
        connection, _ = self._listener.accept()
        connection.recv(HEAD.size + len(b'{"protocol":1}'))
        connection.sendall(frames.greeting() if greeting is None else greeting)
        return connection


@pytest.fixture
def desk(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A link to a sender that the test plays."""
    monkeypatch.setattr(link, "_FIRST_DELAY_S", 0.01)
    made = Desk(quick_path)
    yield made
    made.close()


def read_one(connection: socket) -> int:
    """Read one request; return its number."""
    length = frames.length_of(connection.recv(HEAD.size))
    number, webhook, message_id, body = frames.read_request(frames.unpack(connection.recv(length)))
    assert (webhook, message_id, body) == ("ci", "msg_1", "{}")
    return number


def test_notice_that_is_handed_over_is_answered(desk: Desk) -> None:
    """Also when answers come in pieces and out of order."""
    with desk.accept() as sender:
        assert desk.next() == SenderUp()
        desk.link.hand_over([NOTICE, NOTICE])
        first, second = read_one(sender), read_one(sender)
        data = frames.reply(second, TAKEN) + frames.reply(first, TAKEN)
        for index in range(len(data)):
            sender.sendall(data[index:index + 1])
        assert [desk.next(), desk.next()] == [Tried(NOTICE, TAKEN)] * 2


@pytest.mark.parametrize("end", [
    lambda sender: sender.close(),
    lambda sender: sender.sendall(b"\xff" * 9),
    lambda sender: sender.sendall(frames.reply(99, TAKEN)),
    lambda sender: sender.sendall(frames.pack({"number": 1})),
    # Silence: it does not answer in time.
    lambda sender: None,
])
def test_sender_that_goes_or_errs_is_lost_and_found_again(desk: Desk, end: Callable[[socket], None]) -> None:
    """What it had is told as lost; nothing of it is sent over the next connection by itself."""
    with desk.accept() as sender:
        assert desk.next() == SenderUp()
        desk.link.hand_over([NOTICE])
        read_one(sender)
        end(sender)
        assert isinstance(desk.next(), SenderLost)
        desk.link.hand_over([NOTICE])
    with desk.accept() as again:
        assert desk.next() == SenderUp()
        desk.link.hand_over([NOTICE])
        again.sendall(frames.reply(read_one(again), TAKEN))
        assert desk.next() == Tried(NOTICE, TAKEN)


def test_sender_of_another_version_is_not_used(desk: Desk) -> None:
    """The reason says what to do."""
    with desk.accept(frames.pack({"protocol": 2})):
        lost = desk.next()
    assert isinstance(lost, SenderLost)
    assert "update both" in lost.reason
