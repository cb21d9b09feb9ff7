"""Taking hold of resumable uploads: the newest request gets one, and whoever has it is told.

Guarantees: what was taken is let go when its `async with` ends, also when the request is cut off; who has an upload is
told that a newer request wants it within `LOOK_S` and a little; nobody waits for one longer than `PATIENCE_S`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final

from api.threads import joined
from daemon.errors import Rejected
from daemon.partials import Partial, Partials, PartialState, Plan
from daemon.process.thread_pools import begin_pool

#: How often who has an upload looks whether somebody newer wants it.
LOOK_S: Final = 0.25
#: How long a newer one waits for it, and how often it tries: long enough for a busy disk to take what came.
PATIENCE_S: Final = 5.0
_TRY_S: Final = 0.02
#: Threads that open uploads and look after them; large bodies are written by others.
_THREADS: Final = 2


class Turns:
    """Takes hold of uploads. On the event loop."""

    def __init__(self, partials: Partials, *, patience_s: float = PATIENCE_S) -> None:
        self._partials = partials
        self._patience_s = patience_s
        self._threads = begin_pool(_THREADS, "partials")
        #: What is held while bytes come, and how to end that.
        self._watched: dict[Partial, Callable[[], None]] = {}
        self._watching: asyncio.Task[None] | None = None
        self._clock = asyncio.get_running_loop().time

    async def find(self, upload_id: str) -> tuple[Plan, PartialState]:
        """How an upload stands, whoever holds it. Raises Rejected('upload_not_found')."""
        found = await joined(self._threads.submit(self._partials.find, upload_id))
        if found is None:
            raise Rejected("upload_not_found")
        return found

    @contextlib.asynccontextmanager
    async def held(self, upload_id: str) -> AsyncIterator[Partial]:
        """Hold an upload; whoever has it is ended first. Raises Rejected('upload_not_found' or 'upload_busy')."""
        leaving: list[Callable[[], None]] = []
        try:
            yield await self._take(upload_id, leaving)
        finally:
            await joined(self._threads.submit(_do_all, leaving))

    async def _take(self, upload_id: str, leaving: list[Callable[[], None]]) -> Partial:
        until = self._clock() + self._patience_s
        # Who is cut off while a thread takes it lets go of it all the same.
        take = await joined(self._threads.submit(self._want, upload_id, leaving))
        while (partial := await joined(self._threads.submit(take))) is None:
            if self._clock() > until:
                raise Rejected("upload_busy", "The request that has it does not let it go: the disk may hang.")
            await asyncio.sleep(_TRY_S)
        return partial

    def _want(self, upload_id: str, leaving: list[Callable[[], None]]) -> Callable[[], Partial | None]:
        turn = self._partials.want(upload_id)
        if turn is None:
            raise Rejected("upload_not_found")
        leaving.append(turn.leave)

        def take() -> Partial | None:
            partial = turn.take()
            leaving.extend([] if partial is None else [partial.release])
            return partial

        return take

    @contextlib.contextmanager
    def watched(self, partial: Partial, end: Callable[[], None]) -> Iterator[None]:
        """Call `end` once somebody newer wants what is held."""
        self._watched[partial] = end
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            del self._watched[partial]

    async def _watch(self) -> None:
        try:
            await asyncio.sleep(LOOK_S)
            while self._watched:
                for partial in await joined(self._threads.submit(_wanted, list(self._watched))):
                    self._watched.get(partial, _nothing)()
                await asyncio.sleep(LOOK_S)
        finally:
            self._watching = None

    def close(self) -> None:
        """Wait for the threads to end."""
        self._threads.shutdown()


def _wanted(some: Sequence[Partial]) -> list[Partial]:
    return [partial for partial in some if partial.is_wanted()]


def _do_all(some: Sequence[Callable[[], None]]) -> None:
    for one in some:
        one()


def _nothing() -> None:
    """It has ended meanwhile."""
