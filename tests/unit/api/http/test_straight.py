"""What comes on a connection while its protocol is passed by."""

import asyncio
from typing import Any, cast

import pytest

from api.http.straight import Straight


class Transport:
    """As much of a transport as is asked for."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol
        self.paused = False

    def get_protocol(self) -> asyncio.Protocol:
        """Who is told."""
        return self.protocol

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        """Tell another one."""
        self.protocol = protocol

    def pause_reading(self) -> None:
        """Read nothing more."""
        self.paused = True

    def resume_reading(self) -> None:
        """Read again."""
        self.paused = False


class Usual(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def data_received(self, data: bytes) -> None:
        """Note it."""
        self.told.append(data)

    def eof_received(self) -> bool:
        """Note it."""
        self.told.append("eof")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Note it."""
        self.told.append(exc)

    def pause_writing(self) -> None:
        """Note it."""
        self.told.append("pause")

    def resume_writing(self) -> None:
        """Note it."""
        self.told.append("resume")


@pytest.fixture
def usual() -> Usual:
    """The protocol that is passed by."""
    return Usual()


@pytest.fixture
def transport(usual: Usual) -> Transport:
    """Its transport."""
    return Transport(usual)


def straight_of(transport: Transport) -> Straight:
    """What passes it by."""
    return Straight(cast(asyncio.Transport, transport))


def test_no_more_is_read_than_somebody_takes(transport: Transport) -> None:
    """One piece waits, then the transport does, until the next one is wanted."""
    async def run() -> list[bool]:
        straight = straight_of(transport)
        transport.protocol.data_received(b"piece")
        paused = [transport.paused]
        assert await straight.read() == b"piece"
        reading = asyncio.create_task(straight.read())
        await asyncio.sleep(0)
        paused.append(transport.paused)
        transport.protocol.data_received(b"next")
        assert await reading == b"next"
        return [*paused, transport.paused]

    assert asyncio.run(run()) == [True, False, True]


def test_what_was_not_taken_goes_where_it_would_have_gone(transport: Transport, usual: Usual) -> None:
    """With what comes later behind it."""
    async def run() -> None:
        straight = straight_of(transport)
        transport.protocol.data_received(b"piece")
        straight.leave()
        assert not transport.paused
        transport.protocol.data_received(b"later")

    asyncio.run(run())
    assert usual.told == [b"piece", b"later"]


def test_all_else_is_told_to_who_has_to_know(transport: Transport, usual: Usual) -> None:
    """How the answer gets away, and that the client is gone."""
    async def run() -> bytes:
        straight = straight_of(transport)
        transport.protocol.pause_writing()
        transport.protocol.resume_writing()
        reading = asyncio.create_task(straight.read())
        await asyncio.sleep(0)
        transport.protocol.eof_received()
        transport.protocol.connection_lost(None)
        return await reading

    assert asyncio.run(run()) == b""
    assert usual.told == ["pause", "resume", "eof", None]


def test_what_came_before_the_end_is_taken_first(transport: Transport) -> None:
    """Nothing that was sent is lost because the client left after it."""
    async def run() -> list[bytes]:
        straight = straight_of(transport)
        transport.protocol.data_received(b"last")
        transport.protocol.connection_lost(OSError())
        return [await straight.read(), await straight.read()]

    assert asyncio.run(run()) == [b"last", b""]


def test_nothing_comes_after_the_end(transport: Transport, usual: Usual) -> None:
    """A stream that has ended takes nothing more: what was left is worth nothing then."""
    async def run() -> None:
        straight = straight_of(transport)
        transport.protocol.data_received(b"left")
        transport.protocol.connection_lost(None)
        straight.leave()

    asyncio.run(run())
    assert usual.told == [None]
