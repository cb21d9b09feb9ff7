"""The SFTP client against a server that the test plays."""

import contextlib
import math
import socket
import struct
from collections.abc import Iterator

import pytest

from worker.targets.attributes import Attributes
from worker.targets.base import Patience
from worker.targets.incus.sftp_wire import SftpStatus, Wire, WireBroken, WireForeign, WireStalled

HELLO = b"\x02\x00\x00\x00\x03" + b"".join(
    len(word).to_bytes(4) + word for word in (b"posix-rename@openssh.com", b"1"))
OK = 0


def packed(message: bytes) -> bytes:
    """A message as it goes over the wire."""
    return len(message).to_bytes(4) + message


def status(number: int, code: int, text: bytes = b"") -> bytes:
    """A status as a message."""
    return packed(b"\x65" + struct.pack(">III", number, code, len(text)) + text + bytes(4))


@pytest.fixture
def ends() -> Iterator[tuple[Wire, socket.socket]]:
    """A wire that said hello, and the server's end."""
    ours, theirs = socket.socketpair()
    with contextlib.closing(ours), contextlib.closing(theirs):
        theirs.sendall(packed(HELLO))
        wire = Wire(ours, 0.2, Patience())
        theirs.recv(9)
        yield wire, theirs


def test_answers_are_matched_by_number_not_by_order(ends: tuple[Wire, socket.socket]) -> None:
    """An answer that comes early waits for who asked."""
    wire, server = ends
    first, second = wire.remove(b"/a"), wire.lstat(b"/b")
    attributes = b"\x69" + struct.pack(">IIQIII", second, 0x0F, 7, 1000, 1001, 0o100640) + bytes(8)
    server.sendall(packed(attributes) + status(first, OK))
    wire.done(first)
    assert wire.attributes(second) == Attributes(7, 1000, 1001, 0o100640)


def test_answer_in_small_pieces_is_put_together(ends: tuple[Wire, socket.socket]) -> None:
    """Where the network cuts does not matter."""
    wire, server = ends
    number = wire.remove(b"/a")
    message = status(number, 4, b"remove /a: is a directory")
    for position in range(len(message)):
        server.sendall(message[position:position + 1])
    with pytest.raises(SftpStatus, match="is a directory") as caught:
        wire.done(number)
    assert caught.value.code == 4
    assert not wire.broken


def test_requests_go_out_together(ends: tuple[Wire, socket.socket]) -> None:
    """Requests wait for each other, so that a small file costs few round trips."""
    wire, server = ends
    wire.lstat(b"/a")
    wire.lstat(b"/b")
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.recv(1)
    with pytest.raises(WireStalled):
        wire.drain()
    assert len(server.recv(1000)) == 2 * (4 + 1 + 4 + 4 + 2)


def test_silence_is_a_stall(ends: tuple[Wire, socket.socket]) -> None:
    """When nothing comes for the whole timeout the wire is broken."""
    wire, _ = ends
    with pytest.raises(WireStalled):
        wire.done(wire.remove(b"/a"))
    assert wire.broken
    with pytest.raises(WireBroken):
        wire.done(wire.remove(b"/a"))


def test_reader_that_stops_is_a_stall(ends: tuple[Wire, socket.socket]) -> None:
    """When the other side takes nothing more the wire is broken, too."""
    wire, _ = ends
    piece = memoryview(bytes(255 * 1024))

    def write_on() -> None:
        for number in range(100):
            wire.write(b"1", number * len(piece), piece)

    with pytest.raises(WireStalled):
        write_on()
    assert wire.broken


def test_end_of_the_connection_breaks_the_wire(ends: tuple[Wire, socket.socket]) -> None:
    """A connection that ends under a request is lost."""
    wire, server = ends
    number = wire.remove(b"/a")
    server.shutdown(socket.SHUT_WR)
    with pytest.raises(WireBroken):
        wire.done(number)
    assert wire.broken


@pytest.mark.parametrize("message", [
    packed(b"\x65" + bytes(4) + bytes(8)),
    packed(b"\x66\x00\x00\x00\x01\x00\x00\x00\x01x"),
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    packed(b"\x69\x00\x00\x00\x01\x00\x00\x00\x00"),
    packed(b"\x69\x00\x00\x00\x01" + struct.pack(">IQIII", 0x01, 1, 0, 0, 0)),
])
def test_nonsense_breaks_the_wire(ends: tuple[Wire, socket.socket], message: bytes) -> None:
    """An answer that breaks the protocol ends the connection, never anything worse."""
    wire, server = ends
    number = wire.lstat(b"/a")
    server.sendall(message)
    with pytest.raises(WireBroken):
        wire.attributes(number)
    assert wire.broken


@pytest.mark.parametrize("hello", [b"\x02\x00\x00\x00\x03", b"\x02\x00\x00\x00\x02" + HELLO[5:], b"\x65" + HELLO[1:]])
def test_server_without_what_is_needed_is_refused(hello: bytes) -> None:
    """A server that is not SFTP version 3 with posix-rename is not used."""
    ours, theirs = socket.socketpair()
    with contextlib.closing(ours), contextlib.closing(theirs):
        theirs.sendall(packed(hello))
        with pytest.raises(WireForeign):
            Wire(ours, 0.2, Patience())


def test_drain_forgets_what_is_due(ends: tuple[Wire, socket.socket]) -> None:
    """After a failure the answers that nobody waits for any more do not get in the way."""
    wire, server = ends
    numbers = [wire.remove(b"/a"), wire.remove(b"/b")]
    server.sendall(b"".join(status(number, 4, b"x: y") for number in numbers))
    wire.drain()
    last = wire.remove(b"/c")
    server.sendall(status(last, OK))
    wire.done(last)


def test_bytes_at_the_end_of_a_file_are_none(ends: tuple[Wire, socket.socket]) -> None:
    """The end of the file is no error for a reader."""
    wire, server = ends
    number = wire.read(b"1", 0)
    server.sendall(status(number, 1, b"EOF"))
    assert wire.data(number) == b""


def test_setuid_is_said_in_both_ways(ends: tuple[Wire, socket.socket]) -> None:
    """Old servers take the mode for one of Go's, so the special bits are sent where either looks for them."""
    wire, server = ends
    number = wire.chmod(b"1", 0o4755)
    server.sendall(status(number, OK))
    wire.done(number)
    assert server.recv(1000)[-4:] == (0o4755 | 1 << 23).to_bytes(4)


def test_what_was_not_taken_yet_is_taken_back_when_nothing_moves() -> None:
    """Over a network, the end of a connection that stalled is a reset: no request comes through after that."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with contextlib.closing(theirs):
        with contextlib.closing(ours):
            theirs.sendall(packed(HELLO))
            wire = Wire(ours, 0.2, Patience())
            with pytest.raises(WireStalled):
                wire.done(wire.rename(b"/part", b"/file"))
        with pytest.raises(ConnectionResetError):
            list(iter(lambda: theirs.recv(1000), b""))


@pytest.mark.parametrize(("own_s", "limit_s", "hurried"), [(60.0, 0.1, True), (0.1, math.inf, False)])
def test_wire_tells_whether_it_was_hurried_when_nothing_moves(own_s: float, limit_s: float, hurried: bool) -> None:
    """By its own limit it had all the time that there is."""
    ours, theirs = socket.socketpair()
    with contextlib.closing(ours), contextlib.closing(theirs):
        theirs.sendall(packed(HELLO))
        patience = Patience(limit_s)
        wire = Wire(ours, own_s, patience)
        with pytest.raises(WireStalled, match=r"nothing moved for 0\.1 s"):
            wire.done(wire.remove(b"/a"))
    assert patience.hurried is hurried


def test_names_of_a_directory_come_without_what_is_told_of_them(ends: tuple[Wire, socket.socket]) -> None:
    """Each comes with a line for people and with attributes; at the end there are none."""
    wire, server = ends
    number, last = wire.readdir(b"h"), wire.readdir(b"h")
    entries = b"".join(
        len(name).to_bytes(4) + name + b"\x00\x00\x00\x02ls" + struct.pack(">IQIIIII", 0x0F, 7, 0, 0, 0o100644, 0, 0)
        for name in (b"a", b"b c"))
    server.sendall(packed(b"\x68" + struct.pack(">II", number, 2) + entries) + status(last, 1, b"EOF"))
    assert wire.names(number) == [b"a", b"b c"]
    assert wire.names(last) == []


def test_names_that_end_too_early_break_the_wire(ends: tuple[Wire, socket.socket]) -> None:
    """Two were announced, and one came."""
    wire, server = ends
    number = wire.readdir(b"h")
    entry = b"\x00\x00\x00\x01a\x00\x00\x00\x02ls" + struct.pack(">IQIIIII", 0x0F, 7, 0, 0, 0o100644, 0, 0)
    server.sendall(packed(b"\x68" + struct.pack(">II", number, 2) + entry))
    with pytest.raises(WireBroken):
        wire.names(number)
    assert wire.broken
