"""The sender at work: workers connect, hand messages over, and are told how each try ended.

It keeps nothing: what it was handed and has not answered is handed over again. Whose message it is, and when it is
tried again, the workers know; the address and the secrets of a webhook only this process looks at.
"""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import stat
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from daemon.config import Config, Webhook
from daemon.errors import CannotStart
from daemon.log import log
from daemon.process import sd_notify
from daemon.webhooks import frames
from daemon.webhooks.frames import BadFrame
from daemon.webhooks.schedule import TryAnswer
from daemon.webhooks.secret_file import NoSecret, secrets_of
from sender.http_post import Post, send
from sender.names import MOST_AT_ONCE, Names
from sender.signing import signed_fields

#: How long a worker may take for its first frame, and what runs may take to end when the sender is told to stop.
_GREETING_S: Final = 5.0
_DRAIN_S: Final = 5.0
#: Between two signs of life for the service manager.
_PULSE_S: Final = 2.0
#: Connections that wait to be taken.
_BACKLOG: Final = 128


class Sender:
    """One sender. To be used on the event loop."""

    def __init__(self, config: Config, reload: Callable[[], Config | None]) -> None:
        self._config = config
        self._reload = reload
        self._tls: ssl.SSLContext | None = None
        self._names = Names()
        self._running: set[asyncio.Task[None]] = set()
        self._readers: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    async def run(self, listener: socket.socket) -> None:
        """Serve until told to stop; what is being sent then has a few seconds to end."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(MOST_AT_ONCE, "names"))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._configure)
        # As `start_unix_server` does, but that one removes the socket's name from Python 3.13 on: it may be systemd's.
        server = await asyncio.start_server(self._connected, sock=listener, backlog=_BACKLOG)
        sd_notify.ready()
        while not self._stopping.is_set():
            sd_notify.watchdog()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _PULSE_S)
        sd_notify.stopping(_DRAIN_S)
        server.close()
        for reading in self._readers:
            reading.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=_DRAIN_S)

    def _configure(self) -> None:
        sd_notify.reloading()
        new = self._reload()
        if new is not None:
            self._config = new
            # Who vouches for receivers may have changed, too.
            self._tls = None
            log("config.reloaded")
        sd_notify.ready()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one worker, until it goes."""
        own = asyncio.current_task()
        assert own is not None
        self._readers.add(own)
        try:
            async with asyncio.timeout(_GREETING_S):
                frames.check_greeting(await _read(reader))
            writer.write(frames.greeting())
            await self._take(reader, writer)
        except BadFrame as error:
            log("sender.refused", detail=str(error))
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            # It went away, or this process is to end; what is being sent is answered, if it can be.
            pass
        finally:
            self._readers.discard(own)
            if self._running:
                await asyncio.wait(self._running, timeout=_DRAIN_S)
            writer.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        places = asyncio.Semaphore(frames.MOST_OPEN)
        while True:
            number, webhook, message_id, body = frames.read_request(await _read(reader))
            await places.acquire()
            self._begin(self._serve(number, webhook, message_id, body, writer, places))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log("sender.error", error=repr(task.exception()))

    async def _serve(
        self, number: int, webhook: str, message_id: str, body: str, writer: asyncio.StreamWriter,
        places: asyncio.Semaphore,
    ) -> None:
        answer = TryAnswer(status=None, detail="the sender made a mistake; see its log")
        try:
            answer = await self._try(webhook, message_id, body.encode())
        finally:
            places.release()
            if not writer.is_closing():
                writer.write(frames.reply(number, answer))

    async def _try(self, name: str, message_id: str, body: bytes) -> TryAnswer:
        webhook = next((known for known in self._config.webhooks if known.name == name), None)
        if webhook is None:
            return TryAnswer(status=None, detail="the sender's configuration has no webhook of that name: reload it")
        try:
            post = _signed(webhook, message_id, body, int(time.time()))
        except NoSecret as error:
            return TryAnswer(status=None, detail=f"its secret: {error}")
        sender = self._config.sender
        return await send(post, self._names, sender.allow, self._trust(), sender.try_timeout_s)

    def _trust(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


def _signed(webhook: Webhook, message_id: str, body: bytes, now: int) -> Post:
    return Post(url=webhook.url, body=body, fields=signed_fields(message_id, now, body, secrets_of(webhook)))


async def _read(reader: asyncio.StreamReader) -> dict[str, Any]:
    length = frames.length_of(await reader.readexactly(frames.HEAD.size))
    return frames.unpack(await reader.readexactly(length))


def listen(config: Config) -> socket.socket:
    """The sender's socket, for its own user alone. Raises CannotStart."""
    path = config.sender_socket
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with frames.reachable(path) as name:
            _clear(name)
            listener.bind(name)
        path.chmod(0o600)
    except OSError as error:
        listener.close()
        raise CannotStart("cannot_listen", f"sender.socket: {path}: {error.strerror or error}") from error
    listener.listen(_BACKLOG)
    return listener


def _clear(name: str) -> None:
    """Remove a socket that nobody listens on any more. What else has the name stays, and is in the way."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            # A plain file refuses, too.
            if stat.S_ISSOCK(os.lstat(name).st_mode):
                os.unlink(name)
        except (FileNotFoundError, BlockingIOError):
            pass
