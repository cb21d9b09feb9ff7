"""The server: how several of them share the connections, and its end beside connections that come just then."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from api.http import listener
from api.http.pace import Pace
from api.http.peers import Shares
from api.http.refusal_log import RefusalLog
from api.http.server import Hooks, Server
from daemon.process.listeners import Door
from daemon.process.shared_counts import Column, SharedCounts, create
from tests.support.apps import hello
from tests.support.waiting import PATIENCE_S


async def nothing() -> None:
    """Reload nothing."""


def server_at(
    door: Door, counts: SharedCounts | None = None, reload: Callable[[], Coroutine[Any, Any, None]] = nothing,
) -> Server:
    """A server that drains for a fifth of a second."""
    return Server(hello, [door], Hooks(
        drain_s=lambda: 0.2, connections=Shares(lambda: 100, counts or SharedCounts(), Column.CONNECTIONS),
        pace=lambda: Pace(30.0, 0, 30.0), tls=lambda: None, refusals=RefusalLog(), running=lambda: 0,
        draining=lambda: None, stopping=lambda: None, reload=reload, status=lambda: ""))


def after_turns(number: int, action: Callable[[], None]) -> None:
    """Do `action` when the event loop has turned so many times. A task of ours would be ended by the server's end."""
    loop = asyncio.get_running_loop()
    if number:
        loop.call_soon(after_turns, number - 1, action)
    else:
        action()


async def serve_until_stopped(door: Door, turns_later: int, action: Callable[[], None]) -> None:
    """Serve, stop at once, and do `action` so many turns of the event loop after the stop."""
    server = server_at(door)

    def stop() -> None:
        server.fail()
        after_turns(turns_later, action)

    after_turns(10, stop)
    await server.run()


async def serve_until_read(door: Door, client: socket.socket) -> bytes:
    """Serve, and stop when there is something to read for the client: that."""
    server = server_at(door)
    loop = asyncio.get_running_loop()
    loop.add_reader(client, server.fail)
    loop.call_later(PATIENCE_S, server.fail)
    await server.run()
    client.setblocking(False)
    return client.recv(1000)


@pytest.mark.parametrize("turns_later", range(8))
def test_a_connection_that_comes_with_the_stop_is_served_now_or_by_the_next_process(turns_later: int) -> None:
    """A socket that was passed in loses no connection at a stop, at whichever turn of the event loop it comes."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as client:
        door = Door(listening, "a socket", own=False)

        def ask() -> None:
            client.connect(listening.getsockname())
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

        asyncio.run(serve_until_stopped(door, turns_later, ask))
        answer = asyncio.run(serve_until_read(door, client))
        assert answer.startswith(b"HTTP/1.1 200 ")


async def share(door: Door, both: Sequence[SharedCounts], number: int, found: list[int]) -> None:
    """Find how many connections each of two servers has when so many clients have come at once, and stay."""
    servers = [server_at(door, counts) for counts in both]
    serving = [asyncio.create_task(server.run()) for server in servers]
    clients = [await asyncio.open_connection(*door.socket.getsockname()) for _ in range(number)]
    tallies = [counts.tally(Column.CONNECTIONS) for counts in both]
    while sum(tally.own for tally in tallies) < number:
        await asyncio.sleep(0.001)
    found.extend(tally.own for tally in tallies)
    for _, writer in clients:
        writer.close()
    for server in servers:
        server.fail()
    # Its end cancels all tasks of the event loop, this one too.
    await asyncio.wait(serving)


def test_servers_at_one_door_share_the_connections_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection stays where it was accepted, so the first one to wake must not take them all."""
    monkeypatch.setattr(listener, "LEFT_FOR_S", PATIENCE_S)
    descriptor = create(2)
    found: list[int] = []
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening, contextlib.suppress(asyncio.CancelledError):
        both = [SharedCounts(descriptor, row) for row in (0, 1)]
        asyncio.run(asyncio.wait_for(share(Door(listening, "a socket", own=False), both, 20, found), PATIENCE_S))
    os.close(descriptor)
    assert found == [10, 10]


def test_signal_that_comes_during_a_reload_is_heard_after_it() -> None:
    """What was changed since that began would stay unread else, and somebody who was taken off the list stay on it."""
    begun: list[int] = []

    async def serve(door: Door) -> None:
        async def reload() -> None:
            begun.append(len(begun))
            if len(begun) == 1:
                # Twice: what one more reload finds, it finds for both.
                signal.raise_signal(signal.SIGHUP)
                signal.raise_signal(signal.SIGHUP)
                await asyncio.sleep(0.01)
            else:
                asyncio.get_running_loop().call_soon(server.fail)

        server = server_at(door, reload=reload)
        after_turns(10, lambda: signal.raise_signal(signal.SIGHUP))
        asyncio.get_running_loop().call_later(PATIENCE_S, server.fail)
        await server.run()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        asyncio.run(serve(Door(listening, "a socket", own=False)))
    assert begun == [0, 1]
