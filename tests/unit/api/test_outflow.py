import asyncio
import socket
from collections.abc import Callable

import pytest

from api.body import Pace
from api.outflow import Outflow
from tests.support.waiting import PATIENCE_S

#: More than a socket takes on its own.
MUCH = b"x" * 2**22


class Ending(asyncio.Protocol):
    """Knows when its connection has ended."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self.lost.set()


def with_a_client(pace: Pace, scenario: Callable[..., object]) -> None:
    """Run `scenario(outflow, transport, protocol, client)` on a connection whose client reads only what the scenario does."""

    async def run() -> None:
        ours, client = socket.socketpair()
        with ours, client:
            client.setblocking(False)
            transport, protocol = await asyncio.get_running_loop().create_connection(Ending, sock=ours)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await scenario(Outflow(transport, lambda: pace), transport, protocol, client)
            finally:
                transport.abort()

    asyncio.run(run())


@pytest.mark.parametrize("closed", [False, True])
def test_connection_is_cut_off_when_its_client_reads_nothing(closed: bool) -> None:
    """Also when it is being closed: what waits in it would keep it open without end."""

    async def scenario(outflow: Outflow, transport: asyncio.Transport, protocol: Ending, client: socket.socket) -> None:
        outflow.write(MUCH)
        if closed:
            transport.close()
        await protocol.lost.wait()

    with_a_client(Pace(0.05, 0), scenario)


async def read(client: socket.socket, size: int) -> int:
    """Read up to `size` bytes and return how many came."""
    return len(await asyncio.get_running_loop().sock_recv(client, size))


def test_connection_is_cut_off_when_its_client_reads_too_slowly() -> None:
    """A little now and then is not enough: it must be `min_rate_bytes_s` on the whole."""

    async def scenario(outflow: Outflow, transport: asyncio.Transport, protocol: Ending, client: socket.socket) -> None:
        outflow.write(MUCH)
        while not protocol.lost.is_set():
            await read(client, 65536)
            await asyncio.sleep(0.02)
        assert transport.get_write_buffer_size() == 0

    with_a_client(Pace(0.3, 2**30), scenario)


def test_answer_is_read_to_its_end_by_a_client_that_is_slow_but_steady() -> None:
    """Only the pace counts, however often the timeout goes by."""

    async def scenario(outflow: Outflow, transport: asyncio.Transport, protocol: Ending, client: socket.socket) -> None:
        outflow.write(MUCH)
        left = len(MUCH)
        while left:
            left -= await read(client, 65536)
            await asyncio.sleep(0.02)
        assert not protocol.lost.is_set()

    with_a_client(Pace(0.3, 100_000), scenario)


def test_client_that_has_read_everything_may_be_idle() -> None:
    """Nothing waits for it, so nothing is late."""

    async def scenario(outflow: Outflow, transport: asyncio.Transport, protocol: Ending, client: socket.socket) -> None:
        for _ in range(2):
            outflow.write(MUCH)
            left = len(MUCH)
            while left:
                left -= await read(client, 2**20)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await protocol.lost.wait()

    with_a_client(Pace(0.1, 2**20), scenario)
