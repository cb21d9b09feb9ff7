"""The SFTP client against a server that the test plays."""

import contextlib
import math
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from typing import TypeVar

import pytest

from worker.targets.attributes import Attributes
from worker.targets.base import Patience
from worker.targets.incus.sftp_channel import Channel, SftpStatus
from worker.targets.incus.sftp_wire import Wire, WireBroken, WireForeign, WireStalled

HELLO = b"\x02\x00\x00\x00\x03" + b"".join(
    len(word).to_bytes(4) + word for word in (b"posix-rename@openssh.com", b"1"))
OK = 0
Result = TypeVar("Result")


def packed(message: bytes) -> bytes:
    """A message as it goes over the wire."""
    return len(message).to_bytes(4) + message


def status(number: int, code: int, text: bytes = b"") -> bytes:
    """A status as a message."""
    return packed(b"\x65" + struct.pack(">III", number, code, len(text)) + text + bytes(4))


class Caller(Channel):
    """A channel whose answers are waited for here and now."""

    def wait(self, answer: Coroutine[None, None, Result]) -> Result:
        """Wait for what was asked, alone."""
        return self.wire.run(self, answer)

    @property
    def broken(self) -> bool:
        """True when the wire is."""
        return self.wire.broken


@pytest.fixture
def ends() -> Iterator[tuple[Caller, socket.socket]]:
    """Who asks over a wire that said hello, and the server's end."""
    ours, theirs = socket.socketpair()
    with contextlib.closing(ours), contextlib.closing(theirs):
        theirs.sendall(packed(HELLO))
        caller = Caller(Wire(ours, 0.2, Patience()))
        theirs.recv(9)
        yield caller, theirs


def test_answers_are_matched_by_number_not_by_order(ends: tuple[Caller, socket.socket]) -> None:
    """An answer that comes early waits for who asked."""
    caller, server = ends
    first, second = caller.remove(b"/a"), caller.lstat(b"/b")
    attributes = b"\x69" + struct.pack(">IIQIII", second, 0x0F, 7, 1000, 1001, 0o100640) + bytes(8)
    server.sendall(packed(attributes) + status(first, OK))
    caller.wait(caller.done(first))
    assert caller.wait(caller.attributes(second)) == Attributes(7, 1000, 1001, 0o100640)


def test_answer_in_small_pieces_is_put_together(ends: tuple[Caller, socket.socket]) -> None:
    """Where the network cuts does not matter."""
    caller, server = ends
    number = caller.remove(b"/a")
    message = status(number, 4, b"remove /a: is a directory")
    for position in range(len(message)):
        server.sendall(message[position:position + 1])
    with pytest.raises(SftpStatus, match="is a directory") as caught:
        caller.wait(caller.done(number))
    assert caught.value.code == 4
    assert not caller.broken


def test_requests_go_out_together(ends: tuple[Caller, socket.socket]) -> None:
    """Requests wait for each other, so that a small file costs few round trips."""
    caller, server = ends
    caller.lstat(b"/a")
    caller.lstat(b"/b")
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.recv(1)
    with pytest.raises(WireStalled):
        caller.wait(caller.drain())
    assert len(server.recv(1000)) == 2 * (4 + 1 + 4 + 4 + 2)


def test_silence_is_a_stall(ends: tuple[Caller, socket.socket]) -> None:
    """When nothing comes for the whole timeout the wire is broken."""
    caller, _ = ends
    with pytest.raises(WireStalled):
        caller.wait(caller.done(caller.remove(b"/a")))
    assert caller.broken
    with pytest.raises(WireBroken):
        caller.wait(caller.done(caller.remove(b"/a")))


def test_reader_that_stops_is_a_stall(ends: tuple[Caller, socket.socket]) -> None:
    """When the other side takes nothing more the wire is broken, too."""
    caller, _ = ends
    piece = memoryview(bytes(255 * 1024))

    def write_on() -> None:
        for number in range(100):
            caller.write(b"1", number * len(piece), piece)

    with pytest.raises(WireStalled):
        write_on()
    assert caller.broken


def test_end_of_the_connection_breaks_the_wire(ends: tuple[Caller, socket.socket]) -> None:
    """A connection that ends under a request is lost."""
    caller, server = ends
    number = caller.remove(b"/a")
    server.shutdown(socket.SHUT_WR)
    with pytest.raises(WireBroken):
        caller.wait(caller.done(number))
    assert caller.broken


@pytest.mark.parametrize("message", [
    packed(b"\x65" + bytes(4) + bytes(8)),
    packed(b"\x66\x00\x00\x00\x01\x00\x00\x00\x01x"),
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    packed(b"\x69\x00\x00\x00\x01\x00\x00\x00\x00"),
    packed(b"\x69\x00\x00\x00\x01" + struct.pack(">IQIII", 0x01, 1, 0, 0, 0)),
])
def test_nonsense_breaks_the_wire(ends: tuple[Caller, socket.socket], message: bytes) -> None:
    """An answer that breaks the protocol ends the connection, never anything worse."""
    caller, server = ends
    number = caller.lstat(b"/a")
    server.sendall(message)
    with pytest.raises(WireBroken):
        caller.wait(caller.attributes(number))
    assert caller.broken


@pytest.mark.parametrize("hello", [b"\x02\x00\x00\x00\x03", b"\x02\x00\x00\x00\x02" + HELLO[5:], b"\x65" + HELLO[1:]])
def test_server_without_what_is_needed_is_refused(hello: bytes) -> None:
    """A server that is not SFTP version 3 with posix-rename is not used."""
    ours, theirs = socket.socketpair()
    with contextlib.closing(ours), contextlib.closing(theirs):
        theirs.sendall(packed(hello))
        with pytest.raises(WireForeign):
            Wire(ours, 0.2, Patience())


def test_drain_forgets_what_is_due(ends: tuple[Caller, socket.socket]) -> None:
    """After a failure the answers that nobody waits for any more do not get in the way."""
    caller, server = ends
    numbers = [caller.remove(b"/a"), caller.remove(b"/b")]
    server.sendall(b"".join(status(number, 4, b"x: y") for number in numbers))
    caller.wait(caller.drain())
    last = caller.remove(b"/c")
    server.sendall(status(last, OK))
    caller.wait(caller.done(last))


def test_bytes_at_the_end_of_a_file_are_none(ends: tuple[Caller, socket.socket]) -> None:
    """The end of the file is no error for a reader."""
    caller, server = ends
    number = caller.read(b"1", 0)
    server.sendall(status(number, 1, b"EOF"))
    assert caller.wait(caller.data(number)) == b""


def test_setuid_is_said_in_both_ways(ends: tuple[Caller, socket.socket]) -> None:
    """Old servers take the mode for one of Go's, so the special bits are sent where either looks for them."""
    caller, server = ends
    number = caller.chmod(b"1", 0o4755)
    server.sendall(status(number, OK))
    caller.wait(caller.done(number))
    assert server.recv(1000)[-4:] == (0o4755 | 1 << 23).to_bytes(4)


def test_what_was_not_taken_yet_is_taken_back_when_nothing_moves() -> None:
    """Over a network, the end of a connection that stalled is a reset: no request comes through after that."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with contextlib.closing(theirs):
        with contextlib.closing(ours):
            theirs.sendall(packed(HELLO))
            caller = Caller(Wire(ours, 0.2, Patience()))
            with pytest.raises(WireStalled):
                caller.wait(caller.done(caller.rename(b"/part", b"/file")))
        with pytest.raises(ConnectionResetError):
            list(iter(lambda: theirs.recv(1000), b""))


@pytest.mark.parametrize(("own_s", "limit_s", "hurried"), [(60.0, 0.1, True), (0.1, math.inf, False)])
def test_wire_tells_whether_it_was_hurried_when_nothing_moves(own_s: float, limit_s: float, hurried: bool) -> None:
    """By its own limit it had all the time that there is."""
    ours, theirs = socket.socketpair()
    with contextlib.closing(ours), contextlib.closing(theirs):
        theirs.sendall(packed(HELLO))
        patience = Patience(limit_s)
        caller = Caller(Wire(ours, own_s, patience))
        with pytest.raises(WireStalled, match=r"nothing moved for 0\.1 s"):
            caller.wait(caller.done(caller.remove(b"/a")))
    assert patience.hurried is hurried


def test_names_of_a_directory_come_without_what_is_told_of_them(ends: tuple[Caller, socket.socket]) -> None:
    """Each comes with a line for people and with attributes; at the end there are none."""
    caller, server = ends
    number, last = caller.readdir(b"h"), caller.readdir(b"h")
    entries = b"".join(
        len(name).to_bytes(4) + name + b"\x00\x00\x00\x02ls" + struct.pack(">IQIIIII", 0x0F, 7, 0, 0, 0o100644, 0, 0)
        for name in (b"a", b"b c"))
    server.sendall(packed(b"\x68" + struct.pack(">II", number, 2) + entries) + status(last, 1, b"EOF"))
    assert caller.wait(caller.names(number)) == [b"a", b"b c"]
    assert caller.wait(caller.names(last)) == []


def test_names_that_end_too_early_break_the_wire(ends: tuple[Caller, socket.socket]) -> None:
    """Two were announced, and one came."""
    caller, server = ends
    number = caller.readdir(b"h")
    entry = b"\x00\x00\x00\x01a\x00\x00\x00\x02ls" + struct.pack(">IQIIIII", 0x0F, 7, 0, 0, 0o100644, 0, 0)
    server.sendall(packed(b"\x68" + struct.pack(">II", number, 2) + entry))
    with pytest.raises(WireBroken):
        caller.wait(caller.names(number))
    assert caller.broken


# --- several at once ---------------------------------------------------------------------------------------


class Work(Channel):
    """A piece of work: it removes files one after the other, and notes how far it came."""

    def __init__(self, wire: Wire, *paths: bytes) -> None:
        super().__init__(wire)
        self._paths = paths
        self.removed = 0

    async def run(self) -> "Work | WireBroken":
        """Remove them all; return itself, or what the wire broke of."""
        try:
            for path in self._paths:
                await self.done(self.remove(path))
                self.removed += 1
        except WireBroken as broken:
            return broken
        return self


def requests(server: socket.socket, number: int) -> list[int]:
    """The numbers of so many requests that the server gets."""
    file = server.makefile("rb")
    return [int.from_bytes(file.read(int.from_bytes(file.read(4)))[1:5]) for _ in range(number)]


def test_works_share_each_send_and_each_goes_on_when_its_own_answer_is_there(ends: tuple[Caller, socket.socket]) -> None:
    """The one whose answers come first ends first."""
    caller, server = ends
    works = [Work(caller.wire, b"/a1", b"/a2"), Work(caller.wire, b"/b")]
    ended = caller.wire.run_all({work: work.run() for work in works})

    def serve() -> None:
        first, second = requests(server, 2)
        server.sendall(status(second, OK))
        server.sendall(status(first, OK))
        [third] = requests(server, 1)
        server.sendall(status(third, OK))

    serving = threading.Thread(target=serve)
    serving.start()
    assert list(ended) == [works[1], works[0]]
    assert [work.removed for work in works] == [2, 1]
    serving.join()


def test_stall_ends_all_works_and_is_over_the_one_whose_answer_was_due_first(ends: tuple[Caller, socket.socket]) -> None:
    """The server answers in order: who waits behind it has nothing to do with it."""
    caller, server = ends
    works = [Work(caller.wire, b"/done", b"/more"), Work(caller.wire, b"/hangs"), Work(caller.wire, b"/behind")]
    ended = caller.wire.run_all({work: work.run() for work in works})
    server.sendall(status(1, OK))
    assert [type(failure) for failure in ended] == [WireStalled] * 3
    assert caller.wire.broke_over is works[1]
    assert [work.removed for work in works] == [1, 0, 0]


def test_mistake_of_one_work_ends_all_and_nobody_waits_for_more(ends: tuple[Caller, socket.socket]) -> None:
    """What they left is for others to look after."""
    caller, _ = ends

    async def fail() -> Work:
        raise ZeroDivisionError

    other = Work(caller.wire, b"/a")
    with pytest.raises(ZeroDivisionError):
        list(caller.wire.run_all({other: other.run(), caller: fail()}))
    assert caller.broken


def test_answer_to_work_that_has_ended_is_forgotten(ends: tuple[Caller, socket.socket]) -> None:
    """It asked for more than it waited for."""
    caller, server = ends
    gone = Caller(caller.wire)
    gone.remove(b"/a")
    number = caller.remove(b"/b")
    server.sendall(status(1, 4, b"x: y") + status(number, OK))
    caller.wait(caller.done(number))


def test_what_came_is_taken_while_nothing_can_be_sent(ends: tuple[Caller, socket.socket]) -> None:
    """A server that waits for its answers to be read takes no more requests before."""
    caller, server = ends
    piece = memoryview(bytes(255 * 1024))
    server.settimeout(None)

    def serve() -> None:
        file = server.makefile("rb")
        for number in range(1, 9):
            # More of both than fits anywhere on the way.
            server.sendall(packed(b"\x67" + struct.pack(">II", number, len(piece)) + piece))
        for _ in range(16):
            file.read(int.from_bytes(file.read(4)))

    for _ in range(8):
        caller.read(b"h", 0)
    serving = threading.Thread(target=serve)
    serving.start()
    for offset in range(8):
        caller.write(b"h", offset, piece)
    serving.join()
    assert not caller.broken
