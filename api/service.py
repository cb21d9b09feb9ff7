"""The API process put together: its parts, the order in which they start, and the order in which they end."""

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from api.assembly.access import Access
from api.assembly.acting import Acting
from api.assembly.following import Following
from api.assembly.ground import Ground, Watch
from api.assembly.overseeing import Overseeing
from api.assembly.receiving import Receiving
from api.assembly.resuming import Resuming
from api.assembly.routes import all_routes
from api.assembly.stores import Stores
from api.counting.counted import Counted
from api.http.forwarded import trusted_proxies
from api.http.peers import Shares
from api.http.refusal_log import RefusalLog
from api.http.server import Hooks, Server
from api.live_config import LiveConfig
from api.live_tls import LiveTls
from api.routes.app import build
from api.routes.endpoint import Route
from api.threads import joined
from api.ui.dashboard import Dashboard
from daemon import log
from daemon.config import Config, load
from daemon.errors import CannotStart
from daemon.process import sd_notify
from daemon.process.listeners import Door
from daemon.process.shared_counts import Column, SharedCounts
from daemon.process.thread_pools import begin_pool
from daemon.state.layout import Layout


async def run(
    config: Config, file: Path | None, layout: Layout, doors: Sequence[Door], counts: SharedCounts,
    line: socket.socket | None = None,
) -> bool:
    """Take uploads until told to stop; True when that was no failure. `counts` is what all API processes count.

    By `line` a process is reached that stores small uploads for all of them.

    After a False a thread may still be storing what it has: the process is to end as it is. A queue that cannot be
    opened yet is tried again with each request. Raises CannotStart and Rejected.
    """
    closing = begin_pool(1, "closing")
    service = _Service(config, file, layout, doors, counts, line)
    clean = ended = False
    try:
        clean = await service.run()
    finally:
        ended = await asyncio.get_running_loop().run_in_executor(closing, service.close)
        closing.shutdown()
    return clean and ended


def addresses() -> list[Route]:
    """The addresses of a service, for who describes them: one is made, with a state of its own, and never started."""
    async def made(layout: Layout) -> list[Route]:
        layout.create()
        service = _Service(load(None), None, layout, [], SharedCounts())
        service.close()
        return service.routes

    with TemporaryDirectory() as directory:
        return asyncio.run(made(Layout(Path(directory) / "state")))


class _Service:
    def __init__(
        self, config: Config, file: Path | None, layout: Layout, doors: Sequence[Door], counts: SharedCounts,
        line: socket.socket | None = None,
    ) -> None:
        self._file = file
        self._live = LiveConfig(config)
        counted = Counted()
        self._refusals = RefusalLog(counted.refuse)
        ground = Ground(self._live, layout, counts, self._refusals, counted)
        self._stores = Stores(ground, self._fail, line)
        self._access = Access(ground, file, doors, self._stores.pending_under)
        self._following = Following(ground, self._stores)
        self._receiving = Receiving(ground, self._stores, self._access)
        self._acting = Acting(ground, self._stores)
        self._resuming = Resuming(ground, self._stores, self._access, self._receiving, self._acting)
        self._overseeing = Overseeing(ground, self._stores, self._access, self._receiving)
        self.routes = all_routes(
            ground, self._stores, self._access, self._following, self._receiving, self._acting, self._resuming,
            self._overseeing)
        self._tls = LiveTls(config, self._stores.reading) if any(door.tls for door in doors) else None
        doorkeeper = self._access.doorkeeper
        app = build(self.routes, self._live, doorkeeper, self._refusals,
                    otherwise=Dashboard(self._live, doorkeeper, self._refusals))
        self._server = Server(app, doors, Hooks(
            drain_s=lambda: self._live.config.api.drain_s,
            connections=Shares(self._live.max_connections, counts, Column.CONNECTIONS), pace=self._live.pace,
            tls=lambda: None if self._tls is None else self._tls.current, refusals=self._refusals,
            running=lambda: self._receiving.tally.own, draining=self._following.end, stopping=self._stop_admitting,
            reload=self._reload, status=self._status))

    async def run(self) -> bool:
        """Serve until told to stop."""
        self._stores.storage.start()
        log.gather(asyncio.get_running_loop().call_soon)
        watches: list[Watch] = [self._access.watch, self._recheck, *self._following.watches, *self._resuming.watches,
                                *self._overseeing.watches]
        if self._tls is not None:
            watches.append(self._tls.watch)
        watching = [asyncio.create_task(watch()) for watch in watches]
        for task in watching:
            task.add_done_callback(self._end_without)
        try:
            return await self._server.run()
        finally:
            await self._acting.stop()
            for task in watching:
                task.cancel()
            self._stores.storage.end()
            self._refusals.close()
            log.gather(None)

    def close(self) -> bool:
        """Let the threads finish what they were given, then close the files; False if one does not. Blocks."""
        self._receiving.close()
        self._overseeing.close()
        self._resuming.close()
        self._following.close()
        self._access.close()
        self._acting.close()
        # Nothing uses them any more.
        return self._stores.close()

    async def _recheck(self) -> None:
        """End what is under way of who has no rights any more, for as long as the process runs."""
        await self._access.recheck(
            self._receiving.uploads.recheck, self._resuming.engine.recheck, self._following.streams.recheck)

    def _end_without(self, watching: "asyncio.Task[None]") -> None:
        """End when a mistake of ours has ended what watches: no change would be taken over any more."""
        if not watching.cancelled():
            log.log("api.error", detail="Nobody watches for changes any more.", error=repr(watching.exception()))
            self._fail()

    def _fail(self) -> None:
        self._server.fail()

    def _stop_admitting(self) -> None:
        self._receiving.end()
        self._acting.end()

    def _status(self) -> str:
        return f"{self._receiving.tally.total} uploads running, {self._receiving.admission.waiting.tasks} tasks waiting"

    async def _reload(self) -> None:
        sd_notify.reloading()
        try:
            new = await joined(self._stores.reading.submit(load, self._file))
        except CannotStart as error:
            log.log("config.rejected", detail=error.detail)
        else:
            proxies = await joined(self._stores.reading.submit(trusted_proxies, new.proxy))
            # In one turn of the event loop: no request meets one half of it without the other.
            waiting = self._live.adopt(new, proxies)
            log.set_level(new.log.level)
            await self._access.look()
            log.log("config.reloaded", restart_for=", ".join(waiting) or None)
            if self._tls is not None:
                await self._tls.adopt(self._live.config)
        finally:
            sd_notify.ready()
