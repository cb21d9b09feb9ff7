"""The connection to the sender, on a thread of its own: the main loop hands messages over and never waits."""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from daemon.task_queue import Notice
from daemon.webhooks import frames
from daemon.webhooks.frames import BadFrame
from daemon.webhooks.schedule import TryAnswer
from worker.mailbox import Inbox

#: How long connecting, the greeting, and taking what is sent may each take.
_PATIENCE_S: Final = 5.0
#: Between two tries to connect: the first time, and at most.
_FIRST_DELAY_S: Final = 0.2
_MOST_DELAY_S: Final = 15.0
_PIECE_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class SenderUp:
    """The sender takes messages."""


@dataclass(frozen=True)
class SenderLost:
    """The sender cannot be reached; what it was handed and has not answered may have been sent, or not."""

    reason: str


@dataclass(frozen=True)
class Tried:
    """The sender has tried to send a notice."""

    notice: Notice
    answer: TryAnswer


class SenderLink:
    """Hands notices over, for as long as the process runs: a thread ends with it, whatever it waits for.

    `open` and `hand_over` are for the main loop; `tell` is called from the thread.
    """

    def __init__(self, tell: Callable[[Any], None]) -> None:
        self._tell = tell
        self._orders = Inbox()
        self._thread: threading.Thread | None = None
        #: What was handed over and is not answered, by number.
        self._open: dict[int, Notice] = {}
        self._number = 0

    def open(self, path: Path, answer_s: float) -> None:
        """Begin to connect, unless that has begun: `SenderUp` is told when the sender is there.

        An answer that does not come within `answer_s` after the last one counts as a connection that is lost.
        """
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, args=(path, answer_s), name="webhooks", daemon=True)
            self._thread.start()

    def hand_over(self, notices: list[Notice]) -> None:
        """Have notices sent. What becomes of each is told as `Tried`, or of all of them as `SenderLost`."""
        self._orders.put(*notices)

    def _run(self, path: Path, answer_s: float) -> NoReturn:
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                with contextlib.closing(frames.connect(path, _PATIENCE_S)) as connection:
                    buffer = self._greet(connection)
                    # What was handed over before the main loop knew of the loss is handed over again.
                    self._orders.drain(2**30)
                    self._tell(SenderUp())
                    delay_s = _FIRST_DELAY_S
                    self._serve(connection, buffer, answer_s)
            except OSError as error:
                reason = f"{path}: {error.strerror or error}"
            except BadFrame as error:
                reason = str(error)
            self._open.clear()
            self._tell(SenderLost(reason))
            time.sleep(delay_s)
            delay_s = min(2 * delay_s, _MOST_DELAY_S)

    def _greet(self, connection: socket.socket) -> bytearray:
        connection.sendall(frames.greeting())
        buffer = bytearray()
        while (found := _take_frame(buffer)) is None:
            buffer += _received(connection)
        frames.check_greeting(found)
        return buffer

    def _serve(self, connection: socket.socket, buffer: bytearray, answer_s: float) -> NoReturn:
        """Send what is handed over and tell the answers, until OSError or BadFrame is raised."""
        poll = select.poll()
        poll.register(self._orders.fileno(), select.POLLIN)
        poll.register(connection.fileno(), select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll(answer_s * 1000 if self._open else None)}
            if not ready:
                raise TimeoutError(None, "the sender does not answer")
            if connection.fileno() in ready:
                buffer += _received(connection)
                while (found := _take_frame(buffer)) is not None:
                    self._answered(*frames.read_reply(found))
            for order in self._orders.drain(frames.MOST_OPEN):
                self._number += 1
                self._open[self._number] = order
                connection.sendall(frames.request(self._number, order))

    def _answered(self, number: int, answer: TryAnswer) -> None:
        notice = self._open.pop(number, None)
        if notice is None:
            raise BadFrame("the sender answered what it was not asked")
        self._tell(Tried(notice, answer))


def _received(connection: socket.socket) -> bytes:
    piece = connection.recv(_PIECE_BYTES)
    if not piece:
        raise ConnectionResetError(None, "the sender went away")
    return piece


def _take_frame(buffer: bytearray) -> dict[str, Any] | None:
    """The next frame at the beginning of a buffer, taken out of it; None while it is not whole. Raises BadFrame."""
    if len(buffer) < frames.HEAD.size:
        return None
    end = frames.HEAD.size + frames.length_of(bytes(buffer[:frames.HEAD.size]))
    if len(buffer) < end:
        return None
    data = bytes(buffer[frames.HEAD.size:end])
    del buffer[:end]
    return frames.unpack(data)
