"""Keeps the door's counts fresh: taken only while uploads come, by a thread of their own that no question holds up."""

import asyncio
from typing import Final

from api.queries.reader import Reader
from api.threads import OneAtATime, joined
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
        self._taking = OneAtATime[None]()

    async def freshen(self) -> None:
        """See to it that the counts are fresh."""
        age_s = self._clock() - self._taken_at
        if age_s < SNAPSHOT_S:
            return
        taking = self._taking.under_way(self._take)
        if age_s > MAX_AGE_S:
            await asyncio.shield(taking)

    async def renew(self) -> None:
        """Take counts that begin after now: nothing is counted twice then."""
        if (running := self._taking.running) is not None:
            await asyncio.shield(running)
        await asyncio.shield(self._taking.under_way(self._take))

    def close(self) -> None:
        """Wait for the thread to end."""
        self._thread.shutdown()

    async def _take(self) -> None:
        began, before = self._clock(), self._admission.since
        self._admission.refresh(await joined(self._thread.submit(self._reader.waiting)), before)
        self._taken_at = began
