"""One connection, as Hypercorn serves it, with ten things done otherwise.

- Requests are read by a reader of our own: HTTP/1 only, and a wish to change to anything else is passed over. In
  HTTP/2, which Hypercorn would change to, one slow upload holds up the others, and a failed handshake of WebSocket
  would hold the connection for ever.
- A request that cannot be read is answered with a code too.
- `100 Continue` is sent when the app reads the body, not before it has looked at the head.
- A connection is closed as soon as its client has closed it, not a keep-alive time later.
- A client that does not read its answers is not waited for without end.
- TLS is begun once the connection has its place (`api.http.secure`).
- While the process is about to end, each answer closes its connection.
- What every request costs: the idle time is watched by a timer instead of two tasks, and an answer's head and
  body leave in one piece.
- A request that came in one read, as most do, or whose small body follows its head at once, is recognised by one look
  (`api.http.plain_request`) and served in the task of its connection, without Hypercorn's streams and h11
  (`api.http.exchange`).
- A large body goes to the app as it is read, past what would copy it (`api.http.straight`).

Hypercorn is imported here and nowhere else.
"""

import asyncio
import contextlib
import sys
import time
import traceback
from collections.abc import Callable
from email.utils import formatdate
from types import TracebackType
from typing import Any, Final, cast

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import AsyncioSingleTask, WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.logging import Logger
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import Request as StreamRequest
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.typing import ASGIFramework, ConnectionState, TaskGroup

from api.http.early_response import EarlyAnswers
from api.http.exchange import Exchange
from api.http.pace import Pace
from api.http.peers import Shares, Via, via_of
from api.http.plain_request import plain_request
from api.http.problem import problem, refusal
from api.http.refusal_log import RefusalLog
from api.http.request_reader import CONTINUE, Request, RequestReader, events_of, informational
from api.http.request_target import split
from api.http.response import ASKER, CERTIFICATE, CLOSE, DOOR, PEER, VIA, Answer, App, as_http
from api.http.secure import secure, why_failed
from api.http.slow_reader import Outflow
from api.http.straight import Straight
from daemon.errors import Rejected
from daemon.log import log
from daemon.model.certificate import ShownCertificate
from daemon.process.listeners import Door
from daemon.process.tls import ServerTls

#: What is read at once of all but large bodies.
READ_BYTES: Final = 128 * 1024
#: A body up to this size that did not come whole with its head is waited for so long before the app is asked about it.
REST_BYTES: Final = 128 * 1024
REST_S: Final = 0.005
#: More than the streams of asyncio keep: whoever reads so much leaves nothing there.
_ALL_BYTES: Final = 2**20
#: Pieces of one body that wait for the app.
QUEUED_PIECES: Final = 2


class Connections:
    """All connections of one server, as many as `shares` admits, whose clients read and write at `pace()`.

    Where a door speaks TLS, `tls()` is what it is spoken with from now on.
    """

    def __init__(
        self, app: App, shares: Shares, pace: Callable[[], Pace], tls: Callable[[], ServerTls | None],
        refusals: RefusalLog,
    ) -> None:
        self._app = app
        self._shares = shares
        self._pace = pace
        self._tls = tls
        self._refusals = refusals
        self._settings = _configuration()
        self._context = WorkerContext(None)
        self._open: dict[asyncio.Task[Any], Connection] = {}
        self._handshakes: set[asyncio.Task[Any]] = set()

    async def serve(self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection that came by `door`; refuse it when there are too many, and none of them is idle."""
        via = via_of(writer)
        peer = via.peer
        if not self._shares.take(peer):
            if not self._make_room(peer):
                self._refusals.count("too_busy")
                await _turn_away(door, writer)
                return
            self._shares.count(peer)
        try:
            if door.tls:
                await self._converse_in_tls(door, writer, via)
            else:
                await self._converse(Connection(
                    self._app, self._settings, self._context, reader, writer, door=door, via=via, pace=self._pace))
        finally:
            self._shares.give_back(peer)

    async def _converse_in_tls(self, door: Door, plain: asyncio.StreamWriter, via: Via) -> None:
        tls = self._tls()
        assert tls is not None  # the door would not be open
        task = _this_task()
        self._handshakes.add(task)
        try:
            secured = await secure(plain, tls, timeout_s=self._pace().timeout_s, limit=READ_BYTES)
        except OSError as error:
            if (why := why_failed(error)) is not None:
                self._refusals.log("tls.refused", peer=via.peer, code=why[0], detail=why[1], listen=door.address)
            return
        finally:
            self._handshakes.discard(task)
        await self._converse(Connection(
            self._app, self._settings, self._context, secured.reader, secured.writer, door=door, via=via,
            pace=self._pace, beneath=plain.transport, certificate=secured.certificate))

    async def _converse(self, connection: "Connection") -> None:
        task = _this_task()
        self._open[task] = connection
        try:
            await connection
        finally:
            connection.outflow.end()
            del self._open[task]

    def _make_room(self, peer: str) -> bool:
        """Close what is idle for longest, of all when no place is left, else of the peer's; False: nothing is idle."""
        idle = [connection.idle_timer for connection in self._open.values()
                if connection.idle_timer.idle and (self._shares.full or connection.peer == peer)]
        if not idle:
            return False
        min(idle, key=lambda timer: timer.idle_since).fire_now()
        return True

    @property
    def count(self) -> int:
        """How many connections are open."""
        return len(self._open) + len(self._handshakes)

    def take_leave(self) -> None:
        """From now on each answer asks its client to connect anew, and so to reach the next process."""
        self._settings.leaving = True

    async def end(self) -> None:
        """Close the connections on which nothing goes on; come back when the others have ended too."""
        await self._context.terminated.set()
        for handshake in self._handshakes:
            handshake.cancel()
        for connection in self._open.values():
            connection.idle_timer.fire_now()
        while self._open:
            await asyncio.wait(self._open)


def _this_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None  # a coroutine runs in one
    return task


async def _turn_away(door: Door, writer: asyncio.StreamWriter) -> None:
    """Tell the client to come back; where TLS is spoken it is not worth a handshake."""
    answer = problem(Rejected("too_busy")).plus(("Connection", "close"))
    with contextlib.suppress(ConnectionError):
        if not door.tls:
            writer.write(as_http(answer))
        writer.close()
        await writer.wait_closed()


class IdleTimer(AsyncioSingleTask):
    """Closes a connection that is idle for too long, or idle while the server ends.

    A connection is idle until the head of its next request is whole; one that has begun has to become whole in time.
    One timer serves many requests: when it ends early, because there was a request meanwhile, it is set again.
    """

    def __init__(self, context: WorkerContext, pace: Callable[[], Pace]) -> None:
        super().__init__()
        self._context = context
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due_at = 0.0
        self._when_due: Callable[[], None] | None = None
        self._action: Callable[[], None] | None = None
        self._head_begun = False
        self._retired = False
        #: When the connection began to be idle, on the clock of the event loop.
        self.idle_since = 0.0

    @property
    def idle(self) -> bool:
        """True while nothing at all goes on."""
        return self._when_due is not None and not self._head_begun

    async def restart(self, task_group: TaskGroup, action: Callable[..., Any]) -> None:
        """The connection is idle from now on: do `action` in a while."""
        self._action = lambda: task_group.spawn(action)
        self.begin()

    def begin(self) -> None:
        """The connection is idle from now on; what is done in a while, `restart` was told."""
        if self._retired:
            return
        self._when_due = self._action
        self._head_begun = False
        self.idle_since = self._loop.time()
        if self._context.terminated.is_set():
            self._loop.call_soon(self.fire_now)
        else:
            self._wait_until(self.idle_since + self._pace().keep_alive_s)

    def begin_head(self) -> None:
        """A part of a head is there: the rest must not take longer than a pause in a body may."""
        if self._when_due is not None and not self._head_begun:
            self._head_begun = True
            self._wait_until(self._loop.time() + self._pace().timeout_s)

    async def stop(self) -> None:
        """The connection is not idle any more."""
        self.interrupt()

    def interrupt(self) -> None:
        """The same, at once."""
        self._when_due = None

    def fire_now(self) -> None:
        """Do the action if the connection is idle."""
        due, self._when_due = self._when_due, None
        if due is not None:
            due()

    def retire(self) -> None:
        """The client is gone: the connection ends as soon as nothing goes on."""
        self._when_due = None
        self._retired = True
        if self._timer is not None:
            self._timer.cancel()

    def _wait_until(self, due_at: float) -> None:
        self._due_at = due_at
        if self._timer is not None and self._timer.when() <= due_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due_at, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._when_due is None:
            return
        if self._due_at > self._loop.time():
            self._wait_until(self._due_at)
        else:
            self.fire_now()


class Http1(H11Protocol):
    """HTTP/1 and nothing else, for as long as there is somebody to answer."""

    #: What the request under way is for.
    _target = b""
    #: The version of HTTP that it speaks.
    _version = b""
    #: True when the client has said that nothing more comes.
    _ended = False

    def __init__(self, *arguments: Any, is_closing: Callable[[], bool], begin_head: Callable[[], None]) -> None:
        super().__init__(*arguments)
        self._is_closing = is_closing
        self._begin_head = begin_head
        self._reader = RequestReader()
        self.connection = self._reader

    async def handle(self, event: Event) -> None:
        """Take what the client sent; nothing at all is its end."""
        self._ended = isinstance(event, RawData) and not event.data
        await super().handle(event)
        if self._reader.head_begun:
            self._begin_head()

    @property
    def at_rest(self) -> bool:
        """True when nothing goes on, and nothing of a next request is there."""
        return self.stream is None and self._reader.at_rest

    @property
    def waits(self) -> bool:
        """True while the client waits to be told to send the body; see `api.http.response.Asker`."""
        return self._reader.waits

    @property
    def is_plain(self) -> bool:
        """True while nothing but bytes of a file can come."""
        return self._reader.is_plain

    async def invite(self) -> None:
        """Tell it to."""
        await self._send_h11_event(CONTINUE)

    async def inform(self, status: int, *headers: tuple[str, str]) -> None:
        """Send it a head before the answer, and tell it to send the body if it waits; see there, too."""
        waits = self.waits
        if self._version == b"1.1":
            await self._send_h11_event(informational(status, headers))
        if waits:
            await self.invite()

    async def _check_protocol(self, request: Request) -> None:
        # Nothing is changed to, whatever the request asks for.
        return

    async def _create_stream(self, request: Request) -> None:
        # What a client that was cut off has sent ahead is not worth doing.
        if self._is_closing():
            return
        self._target = request.target
        self._version = request.http_version
        self.stream = HTTPStream(self.app, self.config, self.context, self.task_group, self.ssl, self.client,
                                 self.server, self.stream_send, STREAM_ID)
        self.keep_alive_requests += 1
        await self.stream.handle(StreamRequest(
            stream_id=STREAM_ID, headers=list(request.headers), http_version=request.http_version.decode("ascii"),
            method=request.method.decode("ascii"), raw_path=request.target, state=self.connection_state))

    async def _send_error_response(self, status_code: int) -> None:
        answer = self._unreadable().plus(("Connection", "close"))
        for event in events_of(answer, is_head=self._reader.is_head):
            await self._send_h11_event(event)

    def _unreadable(self) -> Answer:
        if self.stream is None:
            return problem(Rejected(self._reader.code))
        path = split(self._target)[1].partition(b"?")[0]
        return refusal(path.decode("latin-1"), Rejected("incomplete_body" if self._ended else self._reader.code))


class Connection(TCPServer):
    """One connection."""

    def __init__(
        self, app: App, settings: "_Settings", context: WorkerContext, reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter, *, door: Door, via: Via, pace: Callable[[], Pace],
        beneath: asyncio.WriteTransport | None = None, certificate: ShownCertificate | None = None,
    ) -> None:
        """Where TLS is spoken, `beneath` is what it is spoken over, and `certificate` what the client showed."""
        # Where all of a request is there, there is no rest that an early answer would leave unread.
        patient = ASGIWrapper(cast(ASGIFramework, EarlyAnswers(app)))
        super().__init__(patient, asyncio.get_running_loop(), settings, context, {}, reader, writer)
        self.idle_task = self.idle_timer = IdleTimer(context, pace)
        self.outflow: Final = Outflow(writer.transport, pace, beneath)
        self.door: Final = door
        self.peer: Final = via.peer
        self._whole_app: Final = app
        self._state: Final = ConnectionState({DOOR: door, VIA: via, PEER: via.peer, CERTIFICATE: certificate})
        self._http1: Http1
        self._held = b""

    async def _read_data(self) -> None:
        self._http1 = Http1(
            self.app, self.config, self.context, self._task_group, self._state, self.door.tls, None, None,
            self.protocol_send, is_closing=self.writer.is_closing, begin_head=self.idle_timer.begin_head)
        self._state[ASKER] = self._http1
        self.protocol = cast(ProtocolWrapper, self._http1)
        with contextlib.suppress(OSError):
            await self._serve_requests()
        await self._http1.handle(Closed())
        self.idle_timer.retire()

    async def _serve_requests(self) -> None:
        ahead = b""
        while ahead or not self.reader.at_eof():
            if self._http1.is_plain:
                await self._read_straight(self._http1)
                continue
            reads, ahead = [ahead or await self.read_on()], b""
            exchange = await self._exchange(reads)
            if exchange is None:
                while reads:
                    await self._http1.handle(RawData(reads.pop(0)))
                continue
            # Nothing of a request is kept while its app waits, or while the next one does not come.
            reads.clear()
            if not await self._serve(exchange):
                return
            ahead, exchange = exchange.ahead, None

    async def _exchange(self, reads: list[bytes]) -> Exchange | None:
        """What is to be served if what was read is a plain request, at a time when there may be one.

        If the rest of a small body comes at once, it is read, and added to `reads`.
        """
        if not (self.idle_timer.idle and self._http1.at_rest) or self.writer.is_closing():
            return None
        request = plain_request(reads[0])
        if request is not None and request.missing_bytes and request.length <= REST_BYTES:
            self.idle_timer.interrupt()
            await self._read_rest(reads, request.missing_bytes)
            request = plain_request(b"".join(reads))
        if request is None or request.missing_bytes:
            return None
        return Exchange(request, self, self._state, "https" if self.door.tls else "http")

    async def _read_rest(self, reads: list[bytes], missing_bytes: int) -> None:
        """Read what is missing, if it comes at once; nothing at all is the end of what comes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REST_S):
                while missing_bytes > 0 and reads[-1]:
                    reads.append(await self.read_on())
                    missing_bytes -= len(reads[-1])

    async def _serve(self, exchange: Exchange) -> bool:
        self.idle_timer.interrupt()
        self._http1.keep_alive_requests += 1
        try:
            with _Reporting():
                await self._whole_app(exchange.scope, exchange.receive, exchange.send)
        finally:
            stays = await exchange.end()
        if stays:
            self.idle_timer.begin()
        return stays

    async def read_on(self) -> bytes:
        """What comes next; nothing at all is its end. Raises OSError."""
        return await self.reader.read(READ_BYTES)

    async def write_out(self, data: bytes) -> None:
        """Send that, as fast as it is read. Raises OSError or RuntimeError when the client is gone."""
        self.outflow.write(data)
        await self.writer.drain()

    def headers_besides(self) -> list[tuple[bytes, bytes]]:
        """What the head of an answer has besides its own headers."""
        headers = self.config.response_headers("h11")
        if self._http1.keep_alive_requests >= self.config.keep_alive_max_requests:
            headers.append(CLOSE)
        return headers

    async def _read_straight(self, protocol: Http1) -> None:
        data = await self.reader.read(_ALL_BYTES)
        if self.reader.at_eof() or self.reader.exception() is not None:
            # Nothing comes any more, and nobody would say so again.
            await protocol.handle(RawData(data))
            return
        # Nothing is left there, and nothing can come between.
        straight = Straight(cast(asyncio.Transport, self.writer.transport))
        try:
            await protocol.handle(RawData(data))
            while data and protocol.is_plain:
                data = await straight.read()
                await protocol.handle(RawData(data))
        finally:
            straight.leave()

    async def _idle_timeout(self) -> None:
        await asyncio.shield(self._initiate_server_close())

    async def protocol_send(self, event: Event) -> None:
        """Send what the protocol has for the client; hold a head back until what follows it is there."""
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        if event.data.startswith(b"HTTP/1.1 ") and event.data[9:10] != b"1":
            self._held = event.data
            return
        data, self._held = self._held + event.data, b""
        if not data:
            return
        async with self.send_lock:
            try:
                await self.write_out(data)
            except (OSError, RuntimeError):
                await self.protocol.handle(Closed())


class _Settings(Config):
    """Hypercorn's settings, with a date that is written once for all answers of one second."""

    #: Whether each answer closes its connection.
    leaving = False
    _date = (0, b"")

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        """What every answer has besides its own headers."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True).encode())
        date = (b"date", self._date[1])
        return [CLOSE, date] if self.leaving else [date]


def _configuration() -> _Settings:
    config = _Settings()
    config.max_app_queue_size = QUEUED_PIECES
    config.accesslog = None
    config.errorlog = None
    config.logger_class = ServerLog
    return config


class ServerLog(Logger):
    """Takes the server's own log: mistakes of ours go into the service's log, its chatter nowhere."""

    async def exception(self, message: str, *args: Any, **kwargs: Any) -> None:
        """Report a mistake that the app made while it served a request."""
        _report(message)


class _Reporting:
    """What the app raises is a mistake of ours: it is logged, and the connection goes on to its end."""

    def __enter__(self) -> None:
        """Nothing is to be done before."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> bool:
        """Log it."""
        mistaken = isinstance(error, Exception)
        if mistaken:
            _report("Error in ASGI Framework")
        return mistaken


def _report(message: str) -> None:
    log("api.error", detail=message, traceback=traceback.format_exc(), error=repr(sys.exception()))
