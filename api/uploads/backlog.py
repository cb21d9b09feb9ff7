"""Keeps the door's counts fresh: taken only while uploads come, by a thread of their own that no question holds up."""

import asyncio
from typing import Final

from api.queries.reader import Reader
from api.threads import joined
from api.uploads.admission import SNAPSHOT_S, Admission
from daemon.process.thread_pools import begin_pool

#: Counts older than this are not used: an upload after a pause waits for new ones.
MAX_AGE_S: Final = 2.0


class Backlog:
    """Asked before each upload."""

    def __init__(self, reader: Reader, admission: Admission) -> None:
        self._reader = reader
        self._thread = begin_pool(1, "count")
        self._admission = admission
        self._clock = asyncio.get_running_loop().time
        self._taken_at = self._clock()
        self._taking: asyncio.Task[None] | None = None

    async def freshen(self) -> None:
        """See to it that the counts are fresh."""
        age_s = self._clock() - self._taken_at
        if age_s < SNAPSHOT_S:
            return
        taking = self._under_way()
        if age_s > MAX_AGE_S:
            await asyncio.shield(taking)

    async def renew(self) -> None:
        """Take counts that begin after now: nothing is counted twice then."""
        if self._taking is not None and not self._taking.done():
            await asyncio.shield(self._taking)
        await asyncio.shield(self._under_way())

    def close(self) -> None:
        """Wait for the thread to end."""
        self._thread.shutdown()

    def _under_way(self) -> "asyncio.Task[None]":
        """The taking of counts that is under way, begun now if there was none."""
        if self._taking is None or self._taking.done():
            self._taking = asyncio.create_task(self._take())
            # Perhaps nobody waits for it: then what went wrong is told to the next who does.
            self._taking.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return self._taking

    async def _take(self) -> None:
        began, before = self._clock(), self._admission.since
        self._admission.refresh(await joined(self._thread.submit(self._reader.waiting)), before)
        self._taken_at = began
