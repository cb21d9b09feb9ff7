"""What happens to tasks, read once and told to everyone in this process who follows it.

While nobody follows, nothing is read. While somebody does, a few bytes of memory are looked at (`Follow.beat`), and the
queue is read only when something has happened; to be safe also now and then.
"""

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol

from api.queries.reader import Reader
from api.threads import joined
from daemon.errors import Rejected
from daemon.log import log
from daemon.process.thread_pools import begin_pool
from daemon.task_queue import Happened, Position

#: Between two looks at the beats: events are told so much later at most.
TICK_S: Final = 0.02
#: The queue is read so often whatever the beats say.
LOOK_S: Final = 1.0
#: Events that are read at once.
PAGE: Final = 1000


class Follower(Protocol):
    """Somebody who is told what happens. To be used on the event loop; must not block."""

    def tell(self, shard: int, happened: Happened) -> None:
        """Take what happened in a shard since the last time; with `lost` something is missing before it."""


class Hub:
    """Tells followers. To be used on the event loop."""

    def __init__(self, reader: Reader, *, tasks: bool = False) -> None:
        """With `tasks` it also tells how the tasks of the events stand."""
        self._reader = reader
        self._tasks = tasks
        self._thread = begin_pool(1, "follow")
        self._followers: list[Follower] = []
        self._positions: tuple[Position, ...] | None = None
        self._wanted = asyncio.Event()
        self._turn = asyncio.Lock()

    async def join(self, follower: Follower) -> tuple[Position, ...]:
        """Tell `follower` all that happens after the positions, one for each shard, that this returns.

        Raises Rejected('queue_unreadable' or 'no_room').
        """
        async with self._turn:
            if self._positions is None:
                self._positions = await joined(self._thread.submit(self._reader.positions))
            self._followers.append(follower)
            self._wanted.set()
            return self._positions

    def leave(self, follower: Follower) -> None:
        """Tell it nothing more. May be called again."""
        if follower in self._followers:
            self._followers.remove(follower)
        if not self._followers:
            self._wanted.clear()
            self._positions = None

    async def watch(self) -> None:
        """Tell what happens, for as long as the process runs."""
        clock = asyncio.get_running_loop().time
        seen = self._reader.beats()
        look_at = 0.0
        while True:
            await self._wanted.wait()
            beats, now = self._reader.beats(), clock()
            if now >= look_at:
                look_at = now + LOOK_S
                await self._look(range(self._reader.shards))
            else:
                await self._look([shard for shard, beat in enumerate(beats) if beat != seen[shard]])
            seen = beats
            await asyncio.sleep(TICK_S)

    async def _look(self, shards: Iterable[int]) -> None:
        for shard in shards:
            try:
                while await self._tell_page(shard):
                    pass
            except Rejected as error:
                # It is read again in a moment; who asks for a task himself is told.
                log("api.waiting", code=error.code, detail=error.detail)

    async def _tell_page(self, shard: int) -> bool:
        """Tell what happened next in a shard; True when there may be more."""
        async with self._turn:
            if self._positions is None:
                return False
            before = self._positions
            happened = await joined(self._thread.submit(
                self._reader.happened, shard, before[shard], PAGE, tasks=self._tasks))
            if not self._followers:
                return False
            self._positions = (*before[:shard], happened.position, *before[shard + 1:])
            if happened.events or happened.lost:
                for follower in list(self._followers):
                    follower.tell(shard, happened)
        return happened.lost or len(happened.events) == PAGE

    def close(self) -> None:
        """Wait for the thread to end."""
        self._thread.shutdown()
