"""The API process put together: its parts, the order in which they start, and the order in which they end."""

import asyncio
import contextlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from api.access.amounts import Amounts
from api.access.children import Children
from api.access.identify import Doorkeeper, Known
from api.access.live_tokens import LOOK_S
from api.access.quotas import Quotas
from api.access.roster import Roster
from api.acting.applying import Applier
from api.acting.cancelling import Canceller
from api.acting.errands import Errands
from api.acting.selections import Selections
from api.following.hub import Hub
from api.following.outcomes import Outcomes
from api.following.stream import Streams
from api.http.peers import Shares
from api.http.refusal_log import RefusalLog
from api.http.server import Hooks, Server
from api.live_config import LiveConfig
from api.live_tls import LiveTls
from api.queries.finder import Finder
from api.queries.reader import Reader, free_bytes
from api.resumable.completion import Completion
from api.resumable.engine import Resumable
from api.resumable.sweeping import sweep
from api.resumable.turns import Turns
from api.routes.actions import ACTIONS_AT_ONCE, ActionRoutes
from api.routes.app import PAGES_AT_ONCE, Courier, build
from api.routes.content import CONTENTS_AT_ONCE, ContentRoutes
from api.routes.draft import DraftRoutes
from api.routes.endpoint import Route, auditing
from api.routes.events import STREAMS_SHARE, EventRoutes
from api.routes.forms import FormRoutes
from api.routes.health import Probe
from api.routes.one_task import TaskFinder
from api.routes.openapi import DescriptionRoutes
from api.routes.selections import SelectionRoutes
from api.routes.tokens import TokenRoutes
from api.routes.tus import TusRoutes
from api.routes.webhooks import WebhookRoutes
from api.threads import joined
from api.uploads.admission import Admission
from api.uploads.backlog import Backlog
from api.uploads.intake import Uploads
from api.uploads.receive import Receiver
from api.uploads.storage import Storage
from daemon import log
from daemon.config import Config, load
from daemon.delegation import open_delegations
from daemon.errors import CannotStart
from daemon.partials import open_partials
from daemon.process import sd_notify
from daemon.process.listeners import Door
from daemon.process.shared_counts import Column, SharedCounts
from daemon.process.thread_pools import begin_pool
from daemon.spool import open_spool
from daemon.state.layout import Layout
from daemon.task_queue import Total

#: Threads that answer questions.
READING_THREADS: Final = 2
#: Threads that look after rights which were handed on: nobody waits there for a long list.
ACCESS_THREADS: Final = 2
#: Threads that ask the workers for something, and look for their answers.
ACTING_THREADS: Final = 2
#: Threads that read bytes for who fetches them.
FETCHING_THREADS: Final = 2
#: Connections besides two for each upload that may run: for questions, and idle ones.
SPARE_CONNECTIONS: Final = 64
#: Rights end by themselves, too: the uploads under way are gone through at least so often.
RECHECK_S: Final = 0.75


async def run(
    config: Config, file: Path | None, layout: Layout, doors: Sequence[Door], counts: SharedCounts,
) -> bool:
    """Take uploads until told to stop; True when that was no failure. `counts` is what all API processes count.

    After a False a thread may still be storing what it has: the process is to end as it is. A queue that cannot be
    opened yet is tried again with each request. Raises CannotStart and Rejected.
    """
    closing = begin_pool(1, "closing")
    service = _Service(config, file, layout, doors, counts)
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


def _warn_about(doors: Sequence[Door], known: Known) -> None:
    """Say where strangers may do everything, and more than a few of them can come in."""
    open_to = [door.address for door in doors if not door.private and known.lets_in_strangers(door)]
    if open_to:
        log.log("service.open_door", listen=", ".join(open_to), pid=os.getpid())


class _Service:
    def __init__(
        self, config: Config, file: Path | None, layout: Layout, doors: Sequence[Door], counts: SharedCounts,
    ) -> None:
        self._file = file
        self._live = LiveConfig(config)
        self._spool = open_spool(layout)
        self._reader = Reader(layout, self._spool, config.queue.shards)
        self._threads = begin_pool(READING_THREADS, "read")
        self._hub = Hub(self._reader)
        self._streams = Streams(self._reader)
        self._storage = Storage(
            layout, config.queue.shards, self._spool, supersede=lambda: self._live.config.delivery.supersedes,
            when_dead=self._fail)
        self._receiver = Receiver(self._spool, self._storage)
        self._receiving = counts.tally(Column.UPLOADS)
        self._admission = Admission(
            self._reader.waiting(), Shares(lambda: self._live.config.api.max_connections, counts, Column.UPLOADS),
            counts.tally(Column.ANNOUNCED_BYTES), counts.tally(Column.UNWRITTEN_BYTES), lambda: free_bytes(self._spool),
            self._storage.trouble)
        self._refusals = RefusalLog()
        self._roster = Roster(self._live, layout, file, tells=counts.is_first)
        self._watching = begin_pool(1, "watch")
        #: Set when others have rights than before.
        self._changed = asyncio.Event()
        self._delegations = open_delegations(layout)
        self._asking = begin_pool(ACCESS_THREADS, "access")
        self._acting = begin_pool(ACTING_THREADS, "act")
        self._choosing = begin_pool(1, "choose")
        self._fetching = begin_pool(FETCHING_THREADS, "fetch")
        doorkeeper = Doorkeeper(lambda: self._roster.known, Children(self._delegations, self._asking).find)
        _warn_about(doors, self._roster.known)
        self._tls = LiveTls(config, self._threads) if any(door.tls for door in doors) else None
        self._partials = open_partials(layout, self._spool)
        self._backlog = Backlog(
            self._reader, self._admission, lambda: self._partials.census(fresh=True))
        quotas = Quotas(counts, self._pending_under, self._asking)
        amounts = Amounts(self._delegations, self._asking)
        self._uploads = Uploads(
            self._live, self._admission, self._backlog, quotas, self._receiver, self._refusals, amounts)
        self._turns = Turns(self._partials)
        self._sweeps = counts.is_first
        self._errands = Errands(layout, self._reader, self._acting)
        self._resumable = Resumable(
            self._live, self._partials, self._turns, self._backlog, quotas, self._receiver, Completion(
                self._live, self._receiver.pools[0], self._storage, self._admission, amounts,
                lambda task_id: self._reader.find(task_id, lambda _: True), self._reader.newer_known), self._refusals,
            Canceller(self._errands, self._reader.shards).cancel)
        probe = Probe(layout, self._spool, self._reader, self._admission, lambda: self._roster.trouble)
        finder = Finder(self._reader, self._threads)
        self._outcomes = Outcomes(
            self._live, self._hub, self._reader, finder, self._threads,
            Shares(lambda: self._max_connections() // 2, counts, Column.WAITING))
        courier = Courier(self._live, self._uploads, probe, self._threads, self._refusals, finder, self._outcomes)
        tus = TusRoutes(self._live, self._resumable, self._outcomes)
        draft = DraftRoutes(self._live, self._resumable, self._outcomes, courier.describe)
        tokens = TokenRoutes(self._live, self._delegations, self._asking)
        pages, audit = Shares(lambda: PAGES_AT_ONCE, counts, Column.PAGES), auditing(self._refusals)
        forms = FormRoutes(self._live, self._uploads, self._outcomes, courier.describe)
        events = EventRoutes(self._live, self._streams)
        streams = Shares(
            lambda: math.ceil(self._live.config.api.max_connections * STREAMS_SHARE), counts, Column.STREAMS)
        chosen = TaskFinder(finder, self._refusals)
        act = Shares(lambda: ACTIONS_AT_ONCE, counts, Column.ACTIONS)
        actions = ActionRoutes(self._live, self._errands, chosen, self._reader.shards, act)
        selections = Selections(layout, self._reader.shards)
        self._applier = Applier(selections, self._errands, self._reader, self._acting)
        self._selecting = SelectionRoutes(self._live, self._reader, selections, self._applier, self._choosing)
        contents = ContentRoutes(self._spool, chosen, self._fetching)
        fetch = Shares(lambda: CONTENTS_AT_ONCE, counts, Column.CONTENTS)
        webhooks = WebhookRoutes(self._live, self._reader, layout, self._threads)
        self.routes = DescriptionRoutes().routes([
            *courier.routes(pages, audit, actions.delete, draft.at_file), *forms.routes(), *tokens.routes(pages, audit),
            *events.routes(streams, audit), *actions.routes(audit), *self._selecting.routes(act, audit),
            *contents.routes(fetch, audit), *webhooks.routes(pages, audit), *tus.routes(audit), *draft.routes(audit)])
        app = build(self.routes, self._live, doorkeeper, self._refusals)
        self._server = Server(app, doors, Hooks(
            drain_s=lambda: self._live.config.api.drain_s,
            connections=Shares(self._max_connections, counts, Column.CONNECTIONS), pace=self._live.pace,
            tls=lambda: None if self._tls is None else self._tls.current, refusals=self._refusals,
            running=lambda: self._receiving.own, draining=self._end_following, stopping=self._stop_admitting,
            reload=self._reload, status=self._status))

    async def run(self) -> bool:
        """Serve until told to stop."""
        self._storage.start()
        log.gather(asyncio.get_running_loop().call_soon)
        watching = [asyncio.create_task(watch()) for watch in (
            self._watch, self._recheck, self._hub.watch, self._streams.hub.watch)]
        if self._tls is not None:
            watching.append(asyncio.create_task(self._tls.watch()))
        if self._sweeps:
            watching.append(asyncio.create_task(sweep(self._partials, self._live, self._receiver.pools[0])))
        for task in watching:
            task.add_done_callback(self._end_without)
        try:
            return await self._server.run()
        finally:
            self._selecting.end()
            await self._applier.end()
            for task in watching:
                task.cancel()
            self._refusals.close()
            log.gather(None)

    def close(self) -> bool:
        """Let the threads finish what they were given, then close the files; False if one does not. Blocks."""
        self._receiver.close()
        self._turns.close()
        self._backlog.close()
        self._threads.shutdown()
        self._hub.close()
        self._streams.close()
        self._watching.shutdown()
        for pool in (self._asking, self._acting, self._choosing, self._fetching):
            pool.shutdown()
        self._reader.close()
        self._delegations.close()
        ended = self._storage.close()
        if ended:
            self._partials.close()
            self._spool.close()
        return ended

    async def _watch(self) -> None:
        """Take over changes of who has rights."""
        while True:
            await asyncio.sleep(LOOK_S)
            if await joined(self._watching.submit(self._roster.look)):
                self._changed.set()

    async def _recheck(self) -> None:
        """End the uploads and streams of who has no rights any more. To ask for what was handed on may take long."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), RECHECK_S)
            self._changed.clear()
            await self._uploads.recheck()
            await self._resumable.recheck()
            await self._streams.recheck()

    def _pending_under(self, name: str) -> Total:
        """What waits of that name and all below it, and what of it is still on its way in resumable uploads."""
        waiting, partials = self._reader.pending_under(name), self._partials.census_under(name)
        return Total(waiting.tasks + partials.number,
                     waiting.size_bytes + partials.present_bytes + partials.owed_bytes)

    def _end_without(self, watching: "asyncio.Task[None]") -> None:
        """End when a mistake of ours has ended what watches: no change would be taken over any more."""
        if not watching.cancelled():
            log.log("api.error", detail="Nobody watches for changes any more.", error=repr(watching.exception()))
            self._fail()

    def _fail(self) -> None:
        self._server.fail()

    def _max_connections(self) -> int:
        return 2 * self._live.config.api.max_connections + SPARE_CONNECTIONS

    def _end_following(self) -> None:
        self._streams.end()
        self._outcomes.end()

    def _stop_admitting(self) -> None:
        self._admission.draining = self._errands.ending = True
        self._selecting.end()

    def _status(self) -> str:
        return f"{self._receiving.total} uploads running, {self._admission.waiting.tasks} tasks waiting"

    async def _reload(self) -> None:
        sd_notify.reloading()
        try:
            new = await joined(self._threads.submit(load, self._file))
        except CannotStart as error:
            log.log("config.rejected", detail=error.detail)
        else:
            waiting = await joined(self._threads.submit(self._live.adopt, new))
            await joined(self._watching.submit(self._roster.look))
            log.set_level(new.log.level)
            log.log("config.reloaded", restart_for=", ".join(waiting) or None)
            if self._tls is not None:
                await self._tls.adopt(self._live.config)
        finally:
            sd_notify.ready()
