import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from api.http.pace import Pace
from api.http.slow_reader import Outflow

#: More than a socket takes on its own.
MUCH = b"x" * 2**22


class Clock(asyncio.SelectorEventLoop):
    """An event loop in which time passes only when a test says so: a busy machine changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        """The time, in seconds."""
        return self._now

    async def passes(self, seconds: float) -> None:
        """Have the time pass after all that can be sent was sent, and what is due then be done."""
        await self._settle()
        self._now += seconds
        await self._settle()

    async def _settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


class Ending(asyncio.Protocol):
    """Knows its connection, and when it has ended."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There is a connection."""
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self.lost.set()


def with_a_client(pace: Pace, scenario: Callable[..., Awaitable[None]]) -> None:
    """Run `scenario(outflow, clock, protocol, client)` on a connection whose client reads only what the scenario does."""

    async def run(clock: Clock) -> None:
        ours, client = socket.socketpair()
        with ours, client:
            client.setblocking(False)
            transport, protocol = await clock.create_connection(Ending, sock=ours)
            try:
                await scenario(Outflow(transport, lambda: pace), clock, protocol, client)
            finally:
                transport.abort()

    with asyncio.Runner(loop_factory=Clock) as runner:
        clock = runner.get_loop()
        assert isinstance(clock, Clock)
        runner.run(run(clock))


@pytest.mark.parametrize("closed", [False, True])
def test_connection_is_cut_off_when_its_client_reads_nothing(closed: bool) -> None:
    """Also when it is being closed: what waits in it would keep it open without end."""

    async def scenario(outflow: Outflow, clock: Clock, protocol: Ending, client: socket.socket) -> None:
        outflow.write(MUCH)
        if closed:
            protocol.transport.close()
        await clock.passes(29)
        assert not protocol.lost.is_set()
        await clock.passes(2)
        assert protocol.lost.is_set()

    with_a_client(Pace(30, 0, 75), scenario)


async def read(client: socket.socket, size: int) -> int:
    """Read up to `size` bytes and return how many came."""
    return len(await asyncio.get_running_loop().sock_recv(client, size))


def test_connection_is_cut_off_when_its_client_reads_too_slowly() -> None:
    """A little now and then is not enough: it must be `min_rate_bytes_s` on the whole."""

    async def scenario(outflow: Outflow, clock: Clock, protocol: Ending, client: socket.socket) -> None:
        outflow.write(MUCH)
        while not protocol.lost.is_set() and clock.time() < 60:
            await read(client, 65536)
            await clock.passes(2)
        assert protocol.lost.is_set()
        assert 30 <= clock.time() < 40
        assert protocol.transport.get_write_buffer_size() == 0

    with_a_client(Pace(30, 2**20, 75), scenario)


def test_answer_is_read_to_its_end_by_a_client_that_is_slow_but_steady() -> None:
    """Only the pace counts, however often the timeout goes by."""

    async def scenario(outflow: Outflow, clock: Clock, protocol: Ending, client: socket.socket) -> None:
        outflow.write(MUCH)
        left = len(MUCH)
        while left:
            left -= await read(client, 65536)
            await clock.passes(2)
        assert clock.time() > 100
        assert not protocol.lost.is_set()

    with_a_client(Pace(30, 10_000, 75), scenario)


def test_client_that_has_read_everything_may_be_idle() -> None:
    """Nothing waits for it, so nothing is late."""

    async def scenario(outflow: Outflow, clock: Clock, protocol: Ending, client: socket.socket) -> None:
        for _ in range(2):
            outflow.write(MUCH)
            left = len(MUCH)
            while left:
                left -= await read(client, 2**20)
            for _ in range(3):
                await clock.passes(31)
            assert not protocol.lost.is_set()

    with_a_client(Pace(30, 2**20, 75), scenario)
