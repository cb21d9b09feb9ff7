"""Keeps the door's counts fresh: taken only while uploads come, by a thread of their own that no question holds up."""

import asyncio
from collections.abc import Callable
from typing import Final

from api.queries.reader import Reader, Waiting
from api.threads import OneAtATime, joined
from api.uploads.admission import SNAPSHOT_S, Admission, Place
from daemon.config import Limits
from daemon.errors import Rejected
from daemon.partials import Census
from daemon.process.thread_pools import begin_pool

#: Counts older than this are not used: an upload after a pause waits for new ones.
MAX_AGE_S: Final = 2.0


class Backlog:
    """Asked before each upload."""

    def __init__(self, reader: Reader, admission: Admission, census: Callable[[], Census] = Census) -> None:
        """`census` tells what there is of resumable uploads; it may raise Rejected."""
        self._reader = reader
        self._census = census
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

    async def admit(self, length: int | None, peer: str, limits: Limits) -> Place:
        """The place of an upload, decided with counts that are fresh; see `Admission.admit`."""
        if self._clock() - self._taken_at >= SNAPSHOT_S:
            await self.freshen()
        try:
            return self._admission.admit(length, peer, limits)
        except Rejected as error:
            if error.code != "backlog_full":
                raise
        # Something may be counted twice: nobody is refused for that.
        await self.renew()
        return self._admission.admit(length, peer, limits)

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
        counted, census = await joined(self._thread.submit(self._count))
        self._admission.refresh(counted, before)
        self._admission.partials = census or self._admission.partials
        self._taken_at = began

    def _count(self) -> tuple[Waiting, Census | None]:
        try:
            census = self._census()
        except Rejected:
            # The last one counts on.
            census = None
        return self._reader.waiting(), census
