"""Who may do what, and how much of it is left."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from api.access.amounts import Amounts
from api.access.children import Children
from api.access.identify import Doorkeeper, Known
from api.access.live_tokens import LOOK_S
from api.access.quotas import Quotas
from api.access.roster import Roster
from api.assembly.ground import Ground
from api.threads import joined
from daemon import log
from daemon.delegation import open_delegations
from daemon.process.listeners import Door
from daemon.process.thread_pools import begin_pool
from daemon.task_queue import Total

#: Threads that look after rights which were handed on: nobody waits there for a long list.
ACCESS_THREADS: Final = 2
#: Rights end by themselves, too: what is under way is gone through at least so often.
RECHECK_S: Final = 0.75


class Access:
    """Whom the service knows, and what was handed on."""

    def __init__(
        self, ground: Ground, file: Path | None, doors: Sequence[Door], pending_under: Callable[[str], Total],
    ) -> None:
        """`pending_under` says what waits of a name and all below it, and blocks. Raises CannotStart('bad_tokens')."""
        self.roster = Roster(ground.live, ground.layout, file, tells=ground.counts.is_first)
        self._watching = begin_pool(1, "watch")
        #: Set when others have rights than before.
        self._changed = asyncio.Event()
        self.delegations = open_delegations(ground.layout)
        self.asking = begin_pool(ACCESS_THREADS, "access")
        self.doorkeeper = Doorkeeper(lambda: self.roster.known, Children(self.delegations, self.asking).find)
        self.quotas = Quotas(ground.counts, pending_under, self.asking)
        self.amounts = Amounts(self.delegations, self.asking)
        _warn_about(doors, self.roster.known)

    async def look(self) -> bool:
        """Look for changes of who has rights; True when there are some."""
        return await joined(self._watching.submit(self.roster.look))

    async def watch(self) -> None:
        """Take over changes of who has rights, for as long as the process runs."""
        while True:
            await asyncio.sleep(LOOK_S)
            if await self.look():
                self._changed.set()

    async def recheck(self, *rechecks: Callable[[], Awaitable[None]]) -> None:
        """Have what is under way ended of who has no rights any more, for as long as the process runs.

        To ask for what was handed on may take long.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), RECHECK_S)
            self._changed.clear()
            for recheck in rechecks:
                await recheck()

    def close(self) -> None:
        """Wait for the threads to end, then close what they ask."""
        self._watching.shutdown()
        self.asking.shutdown()
        self.delegations.close()


def _warn_about(doors: Sequence[Door], known: Known) -> None:
    """Say where strangers may do everything, and more than a few of them can come in."""
    open_to = [door.address for door in doors if not door.private and known.lets_in_strangers(door)]
    if open_to:
        log.log("service.open_door", listen=", ".join(open_to), pid=os.getpid())
