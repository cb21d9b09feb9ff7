"""The Hypercorn server in this process: it starts when the doors are open, and ends when it is told to.

Guarantees: after the signal no upload is taken any more, those that run may finish within `drain_s`, and then
the process goes on to its end, on every supported Python. (Hypercorn's own deadline never begins from Python
3.12 on, so the deadline here is ours.)
"""

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import hypercorn.asyncio
from hypercorn.config import Config as HypercornConfig
from hypercorn.logging import Logger
from hypercorn.typing import ASGIFramework

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
#: Far beyond every drain: the deadline is ours.
_NEVER_S: Final = 10 * 365 * 86400.0


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
        self._app = app
        self._doors = doors
        self._hooks = hooks
        # Copies, because the server closes what it is given before we are done with it.
        self._listening = [os.dup(door.socket.fileno()) for door in doors]
        self._loop = asyncio.get_running_loop()
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
        serving = asyncio.create_task(self._serve())
        turning = asyncio.create_task(self._turn())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        self._failed |= serving.done()
        await self._drain(serving)
        turning.cancel()
        await _cut_off()
        if serving.done() and not serving.cancelled() and (error := serving.exception()) is not None:
            log("api.error", detail=repr(error))
        return not self._failed

    async def _serve(self) -> None:
        await hypercorn.asyncio.serve(
            cast(ASGIFramework, self._app), _configuration(self._listening), shutdown_trigger=self._until_stopping)

    def _stop(self) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    def _reload(self) -> None:
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._hooks.reload())

    async def _until_stopping(self) -> None:
        # The server calls this once it accepts connections.
        for descriptor in self._listening:
            os.set_inheritable(descriptor, False)
        log("api.started", listen=", ".join(door.address for door in self._doors))
        notify.ready()
        await self._stopping.wait()

    async def _turn(self) -> None:
        said = ""
        while True:
            notify.watchdog()
            status = self._hooks.status()
            if status != said:
                notify.status(status)
                said = status
            await asyncio.sleep(TURN_S)

    async def _drain(self, serving: "asyncio.Task[None]") -> None:
        notify.stopping(self._hooks.drain_s())
        self._hooks.stopping()
        log("api.draining", uploads=self._hooks.running())
        if not serving.done():
            self._close_doors()
        drain_s = self._hooks.drain_s()
        hurry = asyncio.create_task(self._hurry.wait())
        try:
            async with asyncio.timeout(drain_s - min(MAX_ENDING_S, drain_s * ENDING_SHARE)):
                await asyncio.wait({serving, hurry}, return_when=asyncio.FIRST_COMPLETED)
                # The server ends early when one connection of many fails while it waits for all.
                while self._hooks.running() and not self._hurry.is_set():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return
        finally:
            hurry.cancel()

    def _close_doors(self) -> None:
        # All at once: from Python 3.12 on the server closes one, then waits for its connections, then the next.
        for descriptor in self._listening:
            self._loop.remove_reader(descriptor)
        for door in self._doors:
            door.stop_listening()


async def _cut_off() -> None:
    """Cancel what still runs. Twice, because the server may get stuck once while it is being cancelled."""
    for _ in range(2):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=CUT_OFF_S)


def _configuration(listening: Sequence[int]) -> HypercornConfig:
    config = HypercornConfig()
    config.bind = [f"fd://{descriptor}" for descriptor in listening]
    config.backlog = BACKLOG
    config.alpn_protocols = ["http/1.1"]
    config.graceful_timeout = _NEVER_S
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
