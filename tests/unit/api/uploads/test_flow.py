"""Pieces on their way from the event loop to a thread."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.uploads.flow import MOST_BYTES, Flow

#: Seconds for what comes at once.
LIMIT_S = 20.0
PIECE = b"x" * (256 * 1024)


class Disk:
    """Takes what is written when it may, and notices two that write at the same time."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.may_write = threading.Event()
        self._allowed = threading.Semaphore(0)
        #: Set while somebody waits to write.
        self.waits = threading.Event()
        self.breaks = False
        self._busy = threading.Lock()

    def write(self, pieces: Sequence[bytes]) -> None:
        """Take them."""
        assert self._busy.acquire(blocking=False)
        try:
            self.waits.set()
            while not (self.may_write.is_set() or self._allowed.acquire(timeout=0.01)):
                pass
            if self.breaks:
                raise OSError("broken")
            self.batches.append(list(pieces))
        finally:
            self._busy.release()

    def write_one(self) -> None:
        """Let one more batch be written."""
        self._allowed.release()

    @property
    def data(self) -> bytes:
        """All that was written."""
        return b"".join(b"".join(batch) for batch in self.batches)


def run(scenario: Callable[[Flow, Disk], Awaitable[None]], *, threads: int = 2) -> Disk:
    """Run it with a flow to a disk that does not write yet."""
    disk = Disk()

    async def all_of_it() -> None:
        await asyncio.wait_for(scenario(Flow(pool, disk.write), disk), LIMIT_S)

    with ThreadPoolExecutor(threads) as pool:
        try:
            asyncio.run(all_of_it())
        finally:
            disk.may_write.set()
    return disk


def test_all_is_written_in_order_and_never_by_two_threads() -> None:
    """Whatever the size of the pieces, and whoever is faster."""
    pieces = [bytes([number % 251]) * (number * 331 % 70_000) for number in range(400)]

    async def scenario(flow: Flow, disk: Disk) -> None:
        disk.may_write.set()
        for number, piece in enumerate(pieces):
            await flow.put([piece])
            if number % 7 == 0:
                # Now and then all is written.
                await flow.end()
        await flow.end()

    assert run(scenario, threads=4).data == b"".join(pieces)


def test_what_came_while_a_batch_was_written_is_the_next_batch() -> None:
    """A slow disk gets fewer batches, not more waiting."""
    async def scenario(flow: Flow, disk: Disk) -> None:
        await flow.put([b"1"])
        await asyncio.to_thread(disk.waits.wait, LIMIT_S)
        await flow.put([b"2", b"3"])
        await flow.put([b"4"])
        disk.may_write.set()
        await flow.end()

    assert run(scenario).batches == [[b"1"], [b"2", b"3", b"4"]]


def test_client_waits_while_too_much_has_yet_to_be_written() -> None:
    """Each time: memory is bounded, and what is being written counts, too."""
    async def scenario(flow: Flow, disk: Disk) -> None:
        sizes = [1, 1, 5, 1, 3, 2, 1, 4]
        for size in sizes:
            waiting = asyncio.create_task(flow.put([PIECE] * size))
            await asyncio.wait({waiting}, timeout=0.01)
            while not waiting.done():
                disk.write_one()
                await asyncio.wait({waiting}, timeout=0.05)
            await waiting
            assert flow.unwritten_bytes <= MOST_BYTES
        disk.may_write.set()
        await flow.end()
        assert flow.unwritten_bytes == 0
        assert len(disk.data) == sum(sizes) * len(PIECE)

    run(scenario)


def test_what_the_disk_says_is_raised_at_once_and_nothing_is_written_after_it() -> None:
    """Who waits for room is told; who goes on is told again, and at the end."""
    async def scenario(flow: Flow, disk: Disk) -> None:
        disk.breaks = True
        waiting = asyncio.create_task(flow.put([PIECE] * (MOST_BYTES // len(PIECE) + 1)))
        await asyncio.to_thread(disk.waits.wait, LIMIT_S)
        disk.may_write.set()
        with pytest.raises(OSError, match="broken"):
            await waiting
        disk.breaks = False
        with pytest.raises(OSError, match="broken"):
            await flow.put([b"more"])
        with pytest.raises(OSError, match="broken"):
            await flow.end()

    assert run(scenario).batches == []


def test_end_waits_for_the_thread_when_it_is_cancelled_again_and_again() -> None:
    """Nobody closes a file while a thread still writes to it."""
    async def scenario(flow: Flow, disk: Disk) -> None:
        await flow.put([b"1"])
        await asyncio.to_thread(disk.waits.wait, LIMIT_S)
        await flow.put([b"2"])
        end = asyncio.create_task(flow.end())
        for _ in range(3):
            await asyncio.wait({end}, timeout=0.01)
            end.cancel()
        assert not end.done()
        disk.may_write.set()
        await asyncio.wait({end})
        assert end.cancelled()
        assert disk.data == b"12"

    run(scenario)


def write_endlessly(loop: asyncio.AbstractEventLoop, flows: list[Flow], order: list[str]) -> Callable[[Sequence[bytes]], None]:
    """What a first flow writes with: while it writes a batch, the next one is handed over, ten times."""
    def write(_pieces: Sequence[bytes]) -> None:
        order.append("large")
        if order.count("large") < 10:
            asyncio.run_coroutine_threadsafe(flows[0].put([PIECE]), loop).result(LIMIT_S)

    return write


def test_one_that_has_always_more_to_write_lets_others_have_their_turn() -> None:
    """With one thread for two bodies the other one does not wait for the end of the first."""
    order = list[str]()

    async def scenario(_flow: Flow, disk: Disk) -> None:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(disk.may_write.wait, LIMIT_S)
            flows = list[Flow]()
            flows.append(Flow(thread, write_endlessly(asyncio.get_running_loop(), flows, order), turn_s=0.0))
            flows.append(Flow(thread, lambda _: order.append("small")))
            await flows[0].put([PIECE])
            await flows[1].put([b"1"])
            disk.may_write.set()
            for flow in flows:
                await flow.end()

    run(scenario)
    assert order == ["large", "small", *["large"] * 9]


def test_all_is_written_when_the_pool_takes_no_turn_any_more() -> None:
    """A service that ends has its threads finish what was handed over."""
    order = list[str]()

    async def scenario(_flow: Flow, disk: Disk) -> None:
        thread = ThreadPoolExecutor(1)
        thread.submit(disk.may_write.wait, LIMIT_S)
        flows = list[Flow]()
        flows.append(Flow(thread, write_endlessly(asyncio.get_running_loop(), flows, order), turn_s=0.0))
        await flows[0].put([PIECE])
        thread.shutdown(wait=False)
        disk.may_write.set()
        await flows[0].end()

    run(scenario)
    assert order == ["large"] * 10
