"""Waiting for what becomes of tasks: `Prefer: wait=N` (RFC 7240), for whatever address.

A handler has it with one line, once it has given back all that it holds, and before it reads what it answers with:

    waited = await outcomes.wait(scope, receive, task_id)

It comes back at once where nobody prefers to wait. `waited` are headers for the answer; when there are any, time has
gone by: tasks are to be read and rights to be decided anew. Several tasks are waited for until all are decided.

Nobody asks the queue again and again: the hub tells what happens. Whoever waits costs a timer and a connection, of
which those that wait take no more than a share.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Final

from api.following.hub import Hub
from api.http.client_gone import ClientGone, until_gone
from api.http.peers import Shares
from api.http.prefer import wait_s
from api.http.response import PEER, Receive, Scope
from api.live_config import LiveConfig
from api.queries.finder import Finder
from api.queries.reader import Reader
from api.threads import joined
from daemon.errors import Rejected
from daemon.log import log
from daemon.model.task import OUTCOMES
from daemon.task_queue import Happened

#: Tasks that are looked for at once when something was missed.
BATCH: Final = 500
#: When that could not be read, it is tried again in so long.
AGAIN_S: Final = 1.0

Headers = Sequence[tuple[str, str]]


class Outcomes:
    """Lets clients wait. To be used on the event loop."""

    def __init__(
        self, live: LiveConfig, hub: Hub, reader: Reader, finder: Finder, threads: Executor, shares: Shares,
    ) -> None:
        """`shares` has those who wait, in all API processes; `threads` read."""
        self._live = live
        self._hub = hub
        self._reader = reader
        self._finder = finder
        self._threads = threads
        self._shares = shares
        self._clock = asyncio.get_running_loop().time
        #: Who waits for which task.
        self._waiting: dict[str, list[_Wait]] = {}
        self._joining = asyncio.Lock()
        self._joined = False
        self._ended = False
        #: Shards of which something was missed, and what looks after that.
        self._missed: set[int] = set()
        self._looking: asyncio.Task[None] | None = None

    async def wait(self, scope: Scope, receive: Receive, *task_ids: str) -> Headers:
        """Wait until it is known what became of these tasks, for as long as the request prefers and is allowed.

        The process's end ends it, and so does what cannot be read: whoever answers meets that, too. The request has to
        be read to its end. Returns `Preference-Applied` if it was heeded, else nothing, at once. Raises ClientGone.
        """
        preferred_s, most_s = wait_s(scope["headers"]), self._live.config.api.max_wait_s
        peer = scope["state"][PEER]
        if preferred_s is None or not most_s or self._ended or not self._shares.take(peer):
            return ()
        applied_s = min(preferred_s, most_s)
        deadline = self._clock() + applied_s
        try:
            for task_id in task_ids:
                await self._wait_for(task_id, deadline, receive)
        except Rejected:
            return ()
        finally:
            self._shares.give_back(peer)
        return (("Preference-Applied", f"wait={applied_s}"),)

    async def _wait_for(self, task_id: str, deadline: float, receive: Receive) -> None:
        wait = _Wait(deadline)
        self._waiting.setdefault(task_id, []).append(wait)
        try:
            await self._join()
            # From here on nothing is missed; what happened before is seen now.
            task = await self._finder.find(task_id, lambda _: True)
            if task is not None and task.state not in OUTCOMES and await wait.until_ended_or_gone(receive):
                raise ClientGone
        finally:
            self._remove(task_id, wait)

    async def _join(self) -> None:
        if self._joined:
            return
        async with self._joining:
            if not self._joined:
                await self._hub.join(self)
                self._joined = True

    def _remove(self, task_id: str, wait: "_Wait") -> None:
        others = self._waiting[task_id]
        others.remove(wait)
        if not others:
            del self._waiting[task_id]
        if not self._waiting and self._joined:
            self._hub.leave(self)
            self._joined = False
            self._missed.clear()

    # --- what ends it ----------------------------------------------------------------------------------------

    def tell(self, shard: int, happened: Happened) -> None:
        """Take what happened; see api.following.hub.Follower."""
        for event in happened.events:
            if event.state in OUTCOMES:
                self._end(event.task_id)
        if happened.lost:
            self._missed.add(shard)
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look_again())

    def end(self) -> None:
        """Let nobody wait any more: the process is about to end."""
        self._ended = True
        for task_id in self._waiting:
            self._end(task_id)

    def _end(self, task_id: str) -> None:
        for wait in self._waiting.get(task_id, ()):
            wait.end()

    async def _look_again(self) -> None:
        """See whether what was missed has decided about tasks that are waited for."""
        while self._missed:
            shard = self._missed.pop()
            try:
                waiting = list(self._waiting)
                for some in (waiting[start:start + BATCH] for start in range(0, len(waiting), BATCH)):
                    for task in await joined(self._threads.submit(self._reader.find_all, shard, some)):
                        if task.state in OUTCOMES:
                            self._end(task.task_id)
            except Rejected as error:
                log("api.waiting", code=error.code, detail=error.detail)
                self._missed.add(shard)
                await asyncio.sleep(AGAIN_S)


class _Wait:
    """One request that waits for one task."""

    __slots__ = ("_deadline", "_ended", "_limit")

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._ended = False
        self._limit: asyncio.Timeout | None = None

    async def until_ended_or_gone(self, receive: Receive) -> bool:
        """True when the client went away; False when it was ended, before this or meanwhile, or the time was over."""
        if self._ended:
            return False
        # No task of its own: ten thousand of them would take as much memory again.
        try:
            async with asyncio.timeout_at(self._deadline) as self._limit:
                await until_gone(receive)
        except TimeoutError:
            return False
        finally:
            self._limit = None
        return True

    def end(self) -> None:
        """Let it wait no longer."""
        self._ended = True
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(0.0)
