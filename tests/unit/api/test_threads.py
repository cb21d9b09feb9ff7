"""Blocking work on other threads."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.threads import joined


def test_joined_returns_and_raises_what_the_work_does() -> None:
    """A hop is like a call."""
    async def scenario() -> int:
        with ThreadPoolExecutor(1) as threads:
            with pytest.raises(ZeroDivisionError):
                await joined(threads.submit(lambda: 1 // 0))
            return await joined(threads.submit(lambda: 7))

    assert asyncio.run(scenario()) == 7


def test_joined_waits_for_the_thread_when_it_is_cancelled_again_and_again() -> None:
    """Nobody closes a file while a thread still writes to it."""
    async def scenario() -> list[str]:
        order: list[str] = []
        running, release = threading.Event(), threading.Event()

        def work() -> None:
            running.set()
            release.wait(20)
            order.append("thread")

        async def hop(threads: ThreadPoolExecutor) -> None:
            try:
                await joined(threads.submit(work))
            finally:
                order.append("task")

        with ThreadPoolExecutor(1) as threads:
            task = asyncio.create_task(hop(threads))
            await asyncio.to_thread(running.wait, 20)
            for _ in range(3):
                task.cancel()
                await asyncio.wait({task}, timeout=0.01)
            assert not task.done()
            release.set()
            await asyncio.wait({task})
            assert task.cancelled()
        return order

    assert asyncio.run(scenario()) == ["thread", "task"]
