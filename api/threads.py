"""Blocking work on other threads, for which the event loop waits to the end even when it is told to stop.

A cancelled task must not close a file into which a thread is still writing; so `joined` comes back only when
the thread is done.
"""

import asyncio
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


async def joined(work: "Future[Result]") -> Result:
    """Return what `work` returns, or raise what it raises. When cancelled, wait for its end first."""
    waiting = asyncio.wrap_future(work)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        await _to_the_end(waiting)
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
