"""The server's end, beside connections that come just then."""

import asyncio
import socket
from collections.abc import Callable

import pytest

from api.http.pace import Pace
from api.http.peers import Shares
from api.http.server import Hooks, Server
from daemon.process.listeners import Door
from daemon.process.shared_counts import Column, SharedCounts
from tests.support.apps import hello
from tests.support.waiting import PATIENCE_S


async def nothing() -> None:
    """Reload nothing."""


def server_at(door: Door) -> Server:
    """A server that drains for a fifth of a second."""
    return Server(hello, [door], Hooks(
        drain_s=lambda: 0.2, connections=Shares(lambda: 10, SharedCounts(), Column.CONNECTIONS),
        pace=lambda: Pace(30.0, 0, 30.0), running=lambda: 0, stopping=lambda: None, reload=nothing, status=lambda: ""))


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
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        door = Door(listener, "a socket", own=False)

        def ask() -> None:
            client.connect(listener.getsockname())
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")

        asyncio.run(serve_until_stopped(door, turns_later, ask))
        answer = asyncio.run(serve_until_read(door, client))
        assert answer.startswith(b"HTTP/1.1 200 ")
