"""Reading a WebSocket against a server that the test plays, and what a lifecycle event says."""

import contextlib
import json
import queue
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from wsproto.connection import SERVER, Connection
from wsproto.events import CloseConnection, Event, Ping, Pong

from daemon.config import Remote
from tests.support.waiting import PATIENCE_S
from worker.targets.incus.endpoints import Endpoints
from worker.targets.incus.lifecycle import Lifecycle, parse
from worker.targets.incus.websocket import EventStream, Handshake, StreamEnded


class Server:
    """The server's end, and what can be done to the stream."""

    def __init__(self, end: socket.socket, wake: socket.socket) -> None:
        self.end = end
        self.wake = wake

    def say(self, payload: bytes, opcode: int = 1, final: bool = True) -> None:
        """Send one frame."""
        length = (bytes([len(payload)]) if len(payload) < 126 else
                  b"\x7e" + struct.pack(">H", len(payload)) if len(payload) < 65536 else
                  b"\x7f" + struct.pack(">Q", len(payload)))
        self.end.sendall(bytes([(0x80 if final else 0) | opcode]) + length + payload)

    def heard(self) -> Event:
        """The next thing that a client said, by the rules for a server: a frame that is not masked is nonsense."""
        protocol = Connection(SERVER)
        protocol.receive_data(self.end.recv(100))
        return next(protocol.events())


@pytest.fixture
def ends() -> Iterator[tuple[EventStream, Server]]:
    """A stream and its server."""
    ours, theirs = socket.socketpair()
    waker, wake = socket.socketpair()
    with contextlib.ExitStack() as stack:
        for end in (ours, theirs, waker, wake):
            end.settimeout(PATIENCE_S)
            stack.enter_context(contextlib.closing(end))
        yield EventStream(ours, waker, 0.2), Server(theirs, wake)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_message_of_any_length_is_read(ends: tuple[EventStream, Server], size: int) -> None:
    """The three forms of a frame's length are understood."""
    stream, server = ends
    server.say(b"x" * size)
    assert stream.next() == b"x" * size


def test_message_in_several_frames_is_put_together(ends: tuple[EventStream, Server]) -> None:
    """A message may be split, and a ping may come in between."""
    stream, server = ends
    server.say(b"one ", final=False)
    server.say(b"?", opcode=9)
    server.say(b"two", opcode=0)
    assert stream.next() == b"one two"
    assert server.heard() == Pong(b"?")


def test_silence_ends_the_stream_after_a_ping(ends: tuple[EventStream, Server]) -> None:
    """A server that says nothing is asked, and given up when it stays silent."""
    stream, server = ends
    with pytest.raises(StreamEnded, match="silent"):
        stream.next()
    assert server.heard() == Ping()


def test_waking_ends_the_stream(ends: tuple[EventStream, Server]) -> None:
    """Whoever closes the waker's other end is not kept waiting."""
    stream, server = ends
    server.wake.close()
    with pytest.raises(StreamEnded, match="told"):
        stream.next()


@pytest.mark.parametrize("frame", [b"\x88\x00", b"\x81\x80" + bytes(4), b"\x81\x7f" + b"\x7f" * 8])
def test_close_and_nonsense_end_the_stream(ends: tuple[EventStream, Server], frame: bytes) -> None:
    """A close, a masked frame and an absurd length each end the stream."""
    stream, server = ends
    server.end.sendall(frame)
    with pytest.raises(StreamEnded):
        stream.next()


def test_close_is_answered(ends: tuple[EventStream, Server]) -> None:
    """The server need not wait for the end of the connection."""
    stream, server = ends
    server.say(struct.pack(">H", 1001) + b"going away", opcode=8)
    with pytest.raises(StreamEnded, match="going away"):
        stream.next()
    assert server.heard() == CloseConnection(1001, "going away")


def test_message_without_end_ends_the_stream(ends: tuple[EventStream, Server]) -> None:
    """However many frames a message is split into, it takes no more memory than the longest that may come."""
    stream, server = ends

    def say_on() -> None:
        server.say(b"x" * 2**22, final=False)
        server.say(b"x", opcode=0, final=False)

    saying = threading.Thread(target=say_on)
    saying.start()
    with pytest.raises(StreamEnded, match="more than"):
        stream.next()
    saying.join()


def test_keys_of_two_handshakes_differ() -> None:
    """Nobody can answer a request that was not made yet."""
    assert Handshake().headers["Sec-WebSocket-Key"] != Handshake().headers["Sec-WebSocket-Key"]


@pytest.mark.parametrize("accept", ["", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"], ids=["none", "another's"])
def test_events_are_not_followed_when_the_answer_is_to_another_request(tmp_path: Path, accept: str) -> None:
    """What answers 101 without having read the key speaks no WebSocket: what it says is not taken for events."""
    said: queue.Queue[str] = queue.Queue()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        answering = threading.Thread(target=upgrade_once, args=(listener, accept))
        answering.start()
        following = Lifecycle(Endpoints("local", Remote(endpoint=str(tmp_path / "s"))), lambda *event: said.put("event"),
                              lambda: said.put("up"), said.put)
        try:
            assert said.get(timeout=PATIENCE_S) == "the answer does not accept this WebSocket"
        finally:
            following.close()
            answering.join()


def upgrade_once(listener: socket.socket, accept: str) -> None:
    """Answer one request for an upgrade with 101 and that header, and say an event; those who say nothing are let go."""
    asked = False
    while not asked:
        with listener.accept()[0] as client:
            asked = client.recv(65536) != b""
            if asked:
                client.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                               + accept.encode() + b"\r\n")
                client.recv(1)


def event(action: str, source: str, **more: object) -> bytes:
    """A lifecycle event as Incus sends it."""
    return json.dumps({"type": "lifecycle", "metadata": {"action": action, "source": source}, **more}).encode()


@pytest.mark.parametrize(("message", "said"), [
    (event("instance-started", "/1.0/instances/c1", project="default"), ("default", "c1", "instance-started")),
    (event("instance-started", "/1.0/instances/c1?project=p", project="p"), ("p", "c1", "instance-started")),
    (event("instance-created", "/1.0/instances/c1?project=p"), ("p", "c1", "instance-created")),
    (event("instance-started", "/1.0/instances/c1"), ("default", "c1", "instance-started")),
    (event("instance-file-pushed", "/1.0/instances/c1"), None),
    (event("instance-started", "/1.0/instances/c1/snapshots/s"), None),
    (event("image-created", "/1.0/images/f"), None),
    (b"not json", None),
    (b"[]", None),
    (b'{"metadata": null}', None),
    (b'{"metadata": {"action": "instance-started", "source": 7}}', None),
])
def test_event_says_which_instance_and_what(message: bytes, said: tuple[str, str, str] | None) -> None:
    """Events that matter give project, instance and action; all others, and nonsense, give nothing."""
    assert parse(message) == said
