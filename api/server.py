"""The server of this process: Hypercorn's connections behind our own doors, from the first to the last of them.

Guarantees: after the signal no upload is taken any more, those that run may finish within `drain_s`, and then
the process goes on to its end, on every supported Python. Hypercorn's own `serve` is not used: from Python 3.12
on its deadline never begins, and it closes one door after the other.
"""

import asyncio
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import h11
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config as HypercornConfig
from hypercorn.logging import Logger
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.typing import ASGIFramework, ConnectionState

from api.answers import App
from daemon import notify
from daemon.door import BACKLOG, Door
from daemon.logs import log

#: Seconds between two turns of the main loop, each of which tells the watchdog that it is alive.
TURN_S: Final = 1.0
#: Part of the drain, and at most so many seconds, that is left for ending what did not finish.
ENDING_SHARE: Final = 0.1
MAX_ENDING_S: Final = 1.0
#: Longest wait, twice, for connections that are cut off to notice.
CUT_OFF_S: Final = 0.25
#: Events of one body that wait for the app; each is at most 64 KiB.
QUEUED_PIECES: Final = 4


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the server asks the service, and tells it."""

    drain_s: Callable[[], float]
    #: How many uploads are being received.
    running: Callable[[], int]
    stopping: Callable[[], None]
    reload: Callable[[], Coroutine[Any, Any, None]]
    #: A line on how the service is doing.
    status: Callable[[], str]


class Server:
    """Serves one app on the doors until a signal, or `fail`, stops it."""

    def __init__(self, app: App, doors: Sequence[Door], hooks: Hooks) -> None:
        self._app = ASGIWrapper(cast(ASGIFramework, app))
        self._doors = doors
        self._hooks = hooks
        self._loop = asyncio.get_running_loop()
        self._config = _configuration()
        self._context = WorkerContext(None)
        self._connections: set[asyncio.Task[Any]] = set()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._reloading: asyncio.Task[None] | None = None
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
        listening = [await asyncio.start_server(self._serve, sock=door.socket, backlog=BACKLOG)
                     for door in self._doors]
        log("api.started", listen=", ".join(door.address for door in self._doors))
        notify.ready()
        turning = asyncio.create_task(self._turn())
        await self._stopping.wait()
        notify.stopping()
        self._hooks.stopping()
        log("api.draining", uploads=self._hooks.running())
        for server, door in zip(listening, self._doors, strict=True):
            door.stop_listening()
            server.close()
        await self._drain()
        turning.cancel()
        await _cut_off()
        return not self._failed

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        await Connection(self._app, self._loop, self._config, self._context, {}, reader, writer)

    def _stop(self) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    def _reload(self) -> None:
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._hooks.reload())

    async def _turn(self) -> None:
        said = ""
        while True:
            notify.watchdog()
            status = self._hooks.status()
            if status != said:
                notify.status(status)
                said = status
            await asyncio.sleep(TURN_S)

    async def _drain(self) -> None:
        # Connections on which nothing goes on end by themselves now.
        await self._context.terminated.set()
        drain_s = self._hooks.drain_s()
        hurry = asyncio.create_task(self._hurry.wait())
        ended = asyncio.create_task(self._until_no_connection())
        await asyncio.wait({hurry, ended}, timeout=drain_s - min(MAX_ENDING_S, drain_s * ENDING_SHARE),
                           return_when=asyncio.FIRST_COMPLETED)

    async def _until_no_connection(self) -> None:
        while self._connections:
            await asyncio.wait(self._connections)


class Http1(H11Protocol):
    """HTTP/1.1 and nothing else. HTTP/2, which Hypercorn would change to, lets one slow upload hold up the others."""

    async def _check_protocol(self, event: h11.Request) -> None:
        # Who asks for an upgrade is answered in HTTP/1.1; who begins in HTTP/2 is refused by the app.
        return


class Connection(TCPServer):
    """One connection. Unlike Hypercorn's own it is closed as soon as its client has closed it."""

    async def _read_data(self) -> None:
        self.protocol = cast(ProtocolWrapper, Http1(
            self.app, self.config, self.context, self._task_group, ConnectionState({}), False, None, None,
            self.protocol_send))
        await super()._read_data()
        await self.idle_task.stop()

    async def _idle_timeout(self) -> None:
        if not self.reader.at_eof():
            await super()._idle_timeout()


async def _cut_off() -> None:
    """Cancel what still runs. Twice, because a connection may get stuck once while it is being cancelled."""
    for _ in range(2):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=CUT_OFF_S)


def _configuration() -> HypercornConfig:
    config = HypercornConfig()
    config.max_app_queue_size = QUEUED_PIECES
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = None
    config.logger_class = ServerLog
    return config


class ServerLog(Logger):
    """Takes the server's own log: mistakes of ours go into the service's log, its chatter nowhere."""

    async def exception(self, message: str, *args: Any, **kwargs: Any) -> None:
        """Report a mistake that the app made while it served a request."""
        log("api.error", detail=message, traceback=traceback.format_exc(), error=repr(sys.exception()))


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody else caught; connections that break off are the clients' affair."""
    error = context.get("exception")
    if isinstance(error, OSError | asyncio.CancelledError):
        return
    log("api.error", detail=context["message"], error=repr(error))
