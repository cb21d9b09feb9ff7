"""What `api.http.connection` relies on in Hypercorn without its promise: seen here when its next version changes it."""

import asyncio
import contextlib
import hashlib
import inspect
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import AsyncioSingleTask
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol

from api.http import connection
from api.http.connection import Connection, Connections, Http1, IdleTimer
from api.http.pace import Pace
from api.http.peers import Shares
from api.http.refusal_log import RefusalLog
from api.http.response import ASKER, App, Receive, Scope, Send, send_answer, text_answer
from api.http.straight import Straight
from daemon.process.listeners import Door, open_doors
from daemon.process.shared_counts import Column, SharedCounts
from tests.support.connections import answer_on, converse, serving
from tests.support.waiting import PATIENCE_S

#: Our class, Hypercorn's, and the method of it that is done otherwise.
HOOKS: list[tuple[type, type, str]] = [
    (Http1, H11Protocol, "handle"), (Http1, H11Protocol, "_check_protocol"), (Http1, H11Protocol, "_create_stream"),
    (Http1, H11Protocol, "_send_error_response"),
    (Connection, TCPServer, "_read_data"), (Connection, TCPServer, "_idle_timeout"), (Connection, TCPServer, "protocol_send"),
    (IdleTimer, AsyncioSingleTask, "restart"), (IdleTimer, AsyncioSingleTask, "stop"),
]
NAMES = [f"{theirs.__name__}.{name}" for _, theirs, name in HOOKS]
#: A request that is no plain one: it is read by h11.
UNUSUAL = b"GET / HTTP/1.1\r\nHost:  a\r\n\r\n"
#: One that is.
PLAIN = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
#: What is called on Hypercorn's side, with so many arguments.
CALLED = [(H11Protocol, "_send_h11_event", 1), (TCPServer, "_initiate_server_close", 0)]


def connections_of(app: App) -> tuple[Connections, Door]:
    """Connections that are idle for no time at all, and where they come in."""
    connections = Connections(app, Shares(lambda: 10, SharedCounts(), Column.CONNECTIONS), lambda: Pace(30.0, 0, 0.01),
                              lambda: None, RefusalLog())
    [door] = open_doors(["127.0.0.1:0"], allow_anonymous=False)
    return connections, door


@pytest.fixture(scope="module")
def called() -> set[str]:
    """The hooks that Hypercorn calls while it serves a request, refuses another, and closes an idle connection."""
    seen: set[str] = set()

    def noting(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def note(*arguments: Any) -> Any:
            seen.add(name)
            return await method(*arguments)

        return note

    with pytest.MonkeyPatch.context() as patch:
        for (ours, _, method), name in zip(HOOKS, NAMES, strict=True):
            patch.setattr(ours, method, noting(name, getattr(ours, method)))
        served, refused = asyncio.run(converse(UNUSUAL, b"nonsense\r\n\r\n"))
    assert (served[:13], refused[:13]) == (b"HTTP/1.1 200 ", b"HTTP/1.1 400 ")
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_hypercorn_calls_what_is_done_otherwise_here(called: set[str], name: str) -> None:
    """A hook that it calls no more would be passed over in silence."""
    assert name in called, f"Hypercorn calls {name} no more: see what took its place, and change api.http.connection"


@pytest.mark.parametrize(("ours", "theirs", "name"), HOOKS, ids=NAMES)
def test_hook_takes_what_hypercorn_gives(ours: type, theirs: type, name: str) -> None:
    """Its own method takes as many arguments, by the same names where they have names."""
    here, there = (list(inspect.signature(getattr(owner, name)).parameters) for owner in (ours, theirs))
    told = f"Hypercorn's {theirs.__name__}.{name} takes {there} now: change api.http.connection, which takes {here}"
    assert len(here) == len(there), told
    assert inspect.iscoroutinefunction(getattr(theirs, name)), f"Hypercorn's {theirs.__name__}.{name} is no coroutine any more"


@pytest.mark.parametrize(("theirs", "name", "arguments"), CALLED)
def test_hypercorn_has_what_is_called_here(theirs: type, name: str, arguments: int) -> None:
    """The way back from a hook."""
    method = getattr(theirs, name, None)
    assert method is not None, f"Hypercorn has no {theirs.__name__}.{name} any more: change api.http.connection"
    taken = len(inspect.signature(method).parameters) - 1
    assert taken == arguments, f"Hypercorn's {theirs.__name__}.{name} takes {taken} arguments now: change api.http.connection"


async def informing(scope: Scope, receive: Receive, send: Send) -> None:
    """Say something before the answer."""
    await scope["state"][ASKER].inform(104, ("Location", "a"))
    await send_answer(send, text_answer(200, "hello"))


@pytest.mark.parametrize(("request_head", "heads"), [
    (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", [b"104", b"200"]),
    (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", [b"104", b"100", b"200"]),
    (b"PUT / HTTP/1.0\r\nContent-Length: 0\r\n\r\n", [b"200"]),
    (b"PUT / HTTP/1.0\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n", [b"200"]),
])
def test_head_comes_before_the_answer_where_the_version_has_that(request_head: bytes, heads: list[bytes]) -> None:
    """Who waits to be told to send the body is told that, too; HTTP/1.0 has one head for each request."""
    [told] = asyncio.run(converse(request_head, app=informing))
    assert re.findall(rb"HTTP/1\.1 (\d+) ", told) == heads
    assert (b"HTTP/1.1 104 \r\nlocation: a\r\n\r\n" in told) == (b"104" in heads)


@pytest.mark.parametrize("last", [PLAIN, UNUSUAL], ids=["recognised at once", "by h11"])
def test_connection_ends_after_so_many_requests(monkeypatch: pytest.MonkeyPatch, last: bytes) -> None:
    """However each of them was read: all of them count."""
    monkeypatch.setattr(Config, "keep_alive_max_requests", 3)

    async def ask() -> list[bytes]:
        async with serving() as served:
            streams = await served.connect()
            answers = []
            for sent in PLAIN, UNUSUAL, last:
                streams[1].write(sent)
                answers.append(await answer_on(streams))
            assert await streams[0].read() == b""
            streams[1].close()
        return answers

    assert [b"connection: close" in answer for answer in asyncio.run(ask())] == [False, False, True]
async def digesting(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the digest of the body."""
    digest, more = hashlib.sha256(), True
    while more:
        event = await receive()
        digest.update(event.get("body", b""))
        more = event.get("more_body", False)
    await send_answer(send, text_answer(200, digest.hexdigest()))


def test_large_body_is_read_straight_up_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole; what follows it is the next request, and so is what follows that, on the same connection."""
    times = 0

    class Noted(Straight):
        def leave(self) -> None:
            nonlocal times
            times += 1
            super().leave()

    monkeypatch.setattr(connection, "Straight", Noted)
    bodies = [random.Random(length).randbytes(length) for length in (2**22, 5, 2**22 + 1)]
    sent = b"".join(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body) for body in bodies)

    async def ask() -> bytes:
        async with serving(digesting) as served:
            reader, writer = await served.connect()
            writer.write(sent + PLAIN.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
            writer.close()
            await writer.wait_closed()
            return answer

    answer = asyncio.run(ask())
    assert re.findall(rb"[0-9a-f]{64}", answer) == [
        hashlib.sha256(body).hexdigest().encode() for body in (*bodies, b"")]
    assert times > 0


@pytest.mark.parametrize("before_it_is_read", [False, True])
def test_large_body_that_is_cut_off_is_told_as_such(*, before_it_is_read: bool) -> None:
    """To the app, which would wait for the rest else; also when nothing was read before the client had gone."""
    told = list[str]()

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        while (event := await receive())["type"] == "http.request":
            pass
        told.append(event["type"])

    async def run() -> None:
        connections, door = connections_of(noting)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while before_it_is_read and "eof" not in repr(reader):
                await asyncio.sleep(0.001)
            await connections.serve(door, reader, writer)

        server = await asyncio.start_server(serve, sock=door.socket, limit=2**22)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % 2**30 + bytes(2**19))
        await writer.drain()
        writer.close()
        while not told:
            await asyncio.sleep(0.001)
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        server.close()
        await connections.end()

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))
    assert told == ["http.disconnect"]
