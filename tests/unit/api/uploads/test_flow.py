"""Pieces on their way from the event loop to a thread."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.uploads.flow import MOST_BYTES, TURN_BYTES, Flow

#: Seconds for what comes at once.
LIMIT_S = 20.0
PIECE = b"x" * (256 * 1024)


class Disk:
    """Takes what is written when it may, and notices two that write at the same time."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.may_write = threading.Event()
        #: Set while somebody waits to write.
        self.waits = threading.Event()
        self.breaks = False
        self._busy = threading.Lock()

    def write(self, pieces: Sequence[bytes]) -> None:
        """Take them."""
        assert self._busy.acquire(blocking=False)
        try:
            self.waits.set()
            assert self.may_write.wait(LIMIT_S)
            if self.breaks:
                raise OSError("broken")
            self.batches.append(list(pieces))
        finally:
            self._busy.release()

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
    """Memory is bounded: what is being written counts, too."""
    async def scenario(flow: Flow, disk: Disk) -> None:
        for _ in range(MOST_BYTES // len(PIECE)):
            await flow.put([PIECE])
        one_more = asyncio.create_task(flow.put([PIECE]))
        await asyncio.wait({one_more}, timeout=0.05)
        assert not one_more.done()
        disk.may_write.set()
        await one_more
        await flow.end()

    assert len(run(scenario).data) == MOST_BYTES + len(PIECE)


def test_what_the_disk_says_is_raised_and_nothing_is_written_after_it() -> None:
    """Also for who waits for room; and again by the end."""
    async def scenario(flow: Flow, disk: Disk) -> None:
        disk.breaks = True
        waiting = asyncio.create_task(flow.put([PIECE] * (MOST_BYTES // len(PIECE) + 1)))
        await asyncio.to_thread(disk.waits.wait, LIMIT_S)
        disk.may_write.set()
        await waiting
        with pytest.raises(OSError, match="broken"):
            await flow.end()
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


def test_one_that_has_much_to_write_lets_others_have_their_turn() -> None:
    """With one thread for two bodies, of which one always has more to write, the other one is not the last."""
    order = list[str]()

    async def scenario(_flow: Flow, disk: Disk) -> None:
        loop = asyncio.get_running_loop()

        def write_large(_pieces: Sequence[bytes]) -> None:
            order.append("large")
            if len(order) * len(PIECE) < 3 * TURN_BYTES:
                # More is there before this batch is written.
                asyncio.run_coroutine_threadsafe(large.put([PIECE]), loop).result(LIMIT_S)

        with ThreadPoolExecutor(1) as thread:
            thread.submit(disk.may_write.wait, LIMIT_S)
            large, small = Flow(thread, write_large), Flow(thread, lambda _: order.append("small"))
            await large.put([PIECE])
            await small.put([b"1"])
            disk.may_write.set()
            await large.end()
            await small.end()

    run(scenario)
    assert order.index("small") < len(order) // 2
