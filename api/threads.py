"""Blocking work on other threads, for which the event loop waits to the end even when it is told to stop.

A cancelled task must not close a file into which a thread is still writing; so `joined` comes back only when
the thread is done.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from daemon.errors import CannotStart

Result = TypeVar("Result")


def start_thread(thread: threading.Thread) -> None:
    """Start it. Raises CannotStart('io_error') when the machine has no thread left for it."""
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        raise CannotStart("io_error", f"The machine cannot start one more thread: {error}") from error


class OneAtATime(Generic[Result]):
    """Work that is done once for all who want it at the same time. To be used on the event loop."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Result] | None = None

    @property
    def running(self) -> "asyncio.Task[Result] | None":
        """What is under way."""
        return None if self._task is None or self._task.done() else self._task

    def under_way(self, begin: Callable[[], Coroutine[Any, Any, Result]]) -> "asyncio.Task[Result]":
        """What is under way, begun now if nothing was. Whoever waits for it must not cancel it."""
        if (running := self.running) is not None:
            return running
        self._task = task = asyncio.create_task(begin())
        # Perhaps nobody waits for it: then nobody is told what went wrong, but who begins it anew.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return task


async def joined(work: "Future[Result]") -> Result:
    """Return what `work` returns, or raise what it raises. When cancelled, wait for its end first."""
    if work.done():
        return work.result()
    waiting = asyncio.wrap_future(work)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        await _to_the_end(waiting)
        raise


async def undisturbed(work: Coroutine[Any, Any, Result]) -> Result:
    """Return what `work` returns, or raise what it raises. When cancelled, let it come to its end first."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await _to_the_end(task)
        raise


async def _to_the_end(waiting: "asyncio.Future[Result]") -> None:
    while not waiting.done():
        try:
            await asyncio.wait({waiting})
        except asyncio.CancelledError:
            # Told to stop once more; the thread still has its file.
            continue
    if not waiting.cancelled():
        # Look at the error, so that nobody complains that nobody did.
        waiting.exception()
