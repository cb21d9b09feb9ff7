"""The server of this process: Hypercorn's connections behind our own doors, from the first to the last of them.

Guarantees: after the signal no connection is taken any more; requests on their way on open connections are still
served, uploads that run may finish within `drain_s`, and then the process goes on to its end, on every supported
Python. Hypercorn's own `serve` is not used: from Python 3.12 on its deadline never begins, and it closes one door
after the other.
"""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from api.http.connection import READ_BYTES, Connections
from api.http.listener import USED_UP, Listener
from api.http.pace import Pace
from api.http.peers import Shares
from api.http.refusal_log import RefusalLog
from api.http.response import App
from daemon.log import log
from daemon.process import sd_notify
from daemon.process.listeners import Door
from daemon.process.tls import ServerTls

#: Seconds between two turns of the main loop, each of which tells the watchdog that it is alive.
TURN_S: Final = 1.0
#: Connections that are accepted in one turn of the event loop; of several processes each takes one.
ACCEPTED_AT_ONCE: Final = 64
#: Part of the drain, and at most so many seconds, in which requests on connections that are open already are served.
LAST_REQUESTS_SHARE: Final = 0.25
MAX_LAST_REQUESTS_S: Final = 1.0
#: Between two looks at whether connections are open still.
LOOK_S: Final = 0.05
#: Part of the drain, and at most so many seconds, that is left for ending what did not finish.
ENDING_SHARE: Final = 0.1
MAX_ENDING_S: Final = 1.0
#: Longest wait, twice, for connections that are cut off to notice.
CUT_OFF_S: Final = 0.25


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the server asks the service, and tells it."""

    drain_s: Callable[[], float]
    #: Who holds how many connections.
    connections: Shares
    #: How slowly a client may read its answers.
    pace: Callable[[], Pace]
    #: What TLS is spoken with where a door speaks it.
    tls: Callable[[], ServerTls | None]
    refusals: RefusalLog
    #: How many uploads are being received.
    running: Callable[[], int]
    #: Told at the signal: what only waits is to end at once.
    draining: Callable[[], None]
    stopping: Callable[[], None]
    reload: Callable[[], Coroutine[Any, Any, None]]
    #: A line on how the service is doing.
    status: Callable[[], str]


class Server:
    """Serves one app on the doors until a signal, or `fail`, stops it."""

    def __init__(self, app: App, doors: Sequence[Door], hooks: Hooks) -> None:
        self._stopping = asyncio.Event()
        self._connections = Connections(app, hooks.connections, hooks.pace, hooks.tls, hooks.refusals)
        self._doors = doors
        self._hooks = hooks
        self._loop = asyncio.get_running_loop()
        self._hurry = asyncio.Event()
        self._reloading: asyncio.Task[None] | None = None
        self._reload_wanted = False
        self._failed = False

    def fail(self) -> None:
        """From any thread: stop, because the process cannot go on."""
        self._failed = True
        self._loop.call_soon_threadsafe(self._stop)

    async def run(self) -> bool:
        """Serve until told to stop; True when that was no failure."""
        self._loop.set_exception_handler(_report)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload)
        listeners = [Listener.of(door.socket, self._has_fewest, self._loop.call_soon) for door in self._doors]
        servers = [await self._listen(listener, door) for listener, door in zip(listeners, self._doors, strict=True)]
        log("api.started", listen=", ".join(door.address for door in self._doors))
        sd_notify.ready()
        turning = asyncio.create_task(self._turn())
        await self._stopping.wait()
        sd_notify.stopping(self._hooks.drain_s())
        log("api.draining", uploads=self._hooks.running())
        self._hooks.draining()
        await self._stop_accepting(listeners, servers)
        await self._drain()
        turning.cancel()
        await _cut_off()
        return not self._failed

    def _has_fewest(self) -> bool:
        return self._hooks.connections.own.fewest

    async def _listen(self, listener: Listener, door: Door) -> asyncio.Server:
        # What is accepted is counted in the next turn.
        at_once = ACCEPTED_AT_ONCE if self._hooks.connections.own.alone else 1
        return await asyncio.start_server(
            partial(self._connections.serve, door), sock=listener, backlog=at_once, limit=READ_BYTES)

    async def _stop_accepting(self, listeners: Sequence[Listener], servers: Sequence[asyncio.Server]) -> None:
        for listener in listeners:
            listener.end()
        # What was accepted in this turn gets its connection before the servers close.
        await asyncio.sleep(0)
        for server, door in zip(servers, self._doors, strict=True):
            door.stop_listening()
            server.close()

    def _stop(self) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        self._connections.take_leave()
        self._stopping.set()

    def _reload(self) -> None:
        self._reload_wanted = True
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._reload_while_wanted())

    async def _reload_while_wanted(self) -> None:
        # What a reload has read may be older than a signal that comes while it goes on.
        while self._reload_wanted:
            self._reload_wanted = False
            await self._hooks.reload()

    async def _turn(self) -> None:
        said = ""
        while True:
            sd_notify.watchdog()
            status = self._hooks.status()
            if status != said:
                sd_notify.status(status)
                said = status
            await asyncio.sleep(TURN_S)

    async def _drain(self) -> None:
        drain_s = self._hooks.drain_s()
        hurry = asyncio.create_task(self._hurry.wait())
        ended = asyncio.create_task(self._end(min(MAX_LAST_REQUESTS_S, drain_s * LAST_REQUESTS_SHARE)))
        await asyncio.wait({hurry, ended}, timeout=drain_s - min(MAX_ENDING_S, drain_s * ENDING_SHARE),
                           return_when=asyncio.FIRST_COMPLETED)
        self._hooks.stopping()

    async def _end(self, last_requests_s: float) -> None:
        """Serve what is on its way, for so long at most; then close idle connections and wait for the others."""
        until = self._loop.time() + last_requests_s
        # One look at least: what was taken at the very last is not counted yet.
        await asyncio.sleep(min(LOOK_S, last_requests_s))
        while self._connections.count and self._loop.time() < until:
            await asyncio.sleep(LOOK_S)
        self._hooks.stopping()
        await self._connections.end()


async def _cut_off() -> None:
    """Cancel what still runs. Twice, because a connection may get stuck once while it is being cancelled."""
    for _ in range(2):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=CUT_OFF_S)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody else caught; connections that break off are the clients' affair."""
    error = context.get("exception")
    if isinstance(error, ConnectionError | TimeoutError | asyncio.CancelledError):
        return
    if isinstance(error, OSError) and error.errno in USED_UP:
        log("api.waiting", detail=f"No connection can be accepted: {error.strerror}.")
        return
    log("api.error", detail=context["message"], error=repr(error))
