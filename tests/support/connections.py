"""Connections as the server serves them, with an app that a test gives."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from api.http.connection import Connections
from api.http.pace import Pace
from api.http.peers import Shares
from api.http.refusal_log import RefusalLog
from api.http.response import App
from daemon.process.listeners import open_doors
from daemon.process.shared_counts import Column, SharedCounts
from tests.support.apps import hello
from tests.support.waiting import PATIENCE_S

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Served:
    """Where connections to an app are served."""

    def __init__(self, connections: Connections, address: tuple[str, int]) -> None:
        self.connections = connections
        self._address = address

    async def connect(self) -> Streams:
        """Connect a client."""
        return await asyncio.open_connection(*self._address)


@asynccontextmanager
async def serving(app: App = hello, *, keep_alive_s: float = 30.0) -> AsyncIterator[Served]:
    """Serve the app for a while, to clients that may be idle for so long."""
    connections = Connections(
        app, Shares(lambda: 10, SharedCounts(), Column.CONNECTIONS), lambda: Pace(30.0, 0, keep_alive_s), lambda: None,
        RefusalLog())
    [door] = open_doors(["127.0.0.1:0"], allow_anonymous=False)
    server = await asyncio.start_server(partial(connections.serve, door), sock=door.socket)
    try:
        yield Served(connections, server.sockets[0].getsockname())
    finally:
        server.close()
        await asyncio.wait_for(connections.end(), PATIENCE_S)


async def converse(*sent: bytes, app: App = hello) -> list[bytes]:
    """Serve connections that are idle for no time at all; return all that comes on one for each of what is `sent`."""
    answers = []
    async with serving(app, keep_alive_s=0.01) as served:
        for data in sent:
            reader, writer = await served.connect()
            writer.write(data)
            answers.append(await asyncio.wait_for(reader.read(), PATIENCE_S))
            writer.close()
    return answers


async def answer_on(streams: Streams) -> bytes:
    """The next answer that says how long it is."""
    async with asyncio.timeout(PATIENCE_S):
        head = await streams[0].readuntil(b"\r\n\r\n")
        return head + await streams[0].readexactly(int(re.findall(rb"content-length: (\d+)", head)[0]))
