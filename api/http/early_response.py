"""Answers that are ready before the body is: keeps the server from leaking the connection, and the client its answer.

The server hands the pieces of a body to the app through a short queue. When an app answers and stops reading,
the queue is full, and the server waits for ever to say that the stream is closed: the connection, its
descriptor and its buffers are lost. So whatever is answered here, the rest of the body is read and dropped
until the client has seen the answer and stops; within bounds, after which the connection is closed.

A request that is served when all of it is there leaves nothing unread, and does without all this.

A client that waits to be told to send its body is told when the app first reads it. One that gets its answer before may
send the body or not: nobody can know where its next request would begin, so its connection is closed, too.
"""

import asyncio
from typing import Final

from api.http.response import ASKER, CLOSE, App, Asker, Event, Receive, Scope, Send

#: Seconds, and bytes, for which the rest of a body is read after an early answer. Long enough for a client that
#: only reads once it has written, and not worth waiting for beyond.
LINGER_S: Final = 5.0
LINGER_BYTES: Final = 16 * 2**20


class EarlyAnswers:
    """Wraps an ASGI app; the app may answer whenever it likes."""

    def __init__(self, app: App, *, linger_s: float = LINGER_S, linger_bytes: int = LINGER_BYTES) -> None:
        self._app = app
        self._linger_s = linger_s
        self._linger_bytes = linger_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if not _has_body(scope):
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._linger_s, self._linger_bytes)
        await self._app(scope, exchange.receive, exchange.send)


class _Exchange:
    """One request with a body, and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, linger_s: float, linger_bytes: int) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._asker: Asker = scope["state"][ASKER]
        self._linger_s = linger_s
        self._linger_bytes = linger_bytes
        self._ended = False
        self._gone = False

    async def receive(self) -> Event:
        """Pass on the next event of the request."""
        if self._asker.waits:
            await self._asker.invite()
        return await self._next()

    async def _next(self) -> Event:
        event = await self._receive()
        if event["type"] == "http.disconnect":
            self._gone = True
        elif not event.get("more_body", False):
            self._ended = True
        return event

    async def send(self, event: Event) -> None:
        """Pass on an event of the response; its end waits until the rest of the body was dealt with."""
        if self._ended:
            await self._send(event)
        elif event["type"] == "http.response.start":
            ends = self._asker.waits or not _is_short(self._scope, self._linger_bytes)
            await self._send(_closing(event) if ends else event)
        elif event.get("more_body", False):
            await self._send(event)
        else:
            await self._send({**event, "more_body": True})
            await self._drop_the_rest()
            await self._end()

    async def _drop_the_rest(self) -> None:
        left = self._linger_bytes
        try:
            async with asyncio.timeout(self._linger_s):
                while left > 0 and not (self._ended or self._gone):
                    left -= len((await self._next()).get("body", b""))
        except TimeoutError:
            return

    async def _end(self) -> None:
        # The server may be blocked on its full queue: keep that empty until it has taken the end.
        dropping = asyncio.create_task(self._drop_everything())
        try:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            dropping.cancel()

    async def _drop_everything(self) -> None:
        while not self._gone:
            await self._next()


def _has_body(scope: Scope) -> bool:
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
               for name, value in scope["headers"])


def _closing(start: Event) -> Event:
    """The beginning of an answer after which its connection ends."""
    headers = start.get("headers", ())
    return start if CLOSE in headers else {**start, "headers": [*headers, CLOSE]}


def _is_short(scope: Scope, limit_bytes: int) -> bool:
    """True when the body is announced to be so short that its rest will be read in any case."""
    return all(name != b"transfer-encoding" and (name != b"content-length" or int(value) <= limit_bytes)
               for name, value in scope["headers"])
