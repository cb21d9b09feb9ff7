"""One plain request, all of which is there, and its answer, with no machine of states between them.

Guarantees: the app is told what Hypercorn would tell it, and the client gets the same bytes.

The app runs in the task of its connection. Only where it waits for the client to go, a task looks out for that. What
the client has sent ahead waits until it has its answer; that hides its going. What follows the last request of a
connection is not looked at.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol
from urllib.parse import unquote

from api.http.answer_writer import AnswerWriter
from api.http.plain_request import PlainRequest
from api.http.response import ASKER, CLOSE, Event, Scope, encoded, head_of


class Duplex(Protocol):
    """Both ways of a connection."""

    async def read_on(self) -> bytes:
        """What comes next; nothing at all is its end. Raises OSError."""

    async def write_out(self, data: bytes) -> None:
        """Send that. Raises OSError or RuntimeError when the client is gone."""

    def headers_besides(self) -> Iterable[tuple[bytes, bytes]]:
        """What the head of an answer has besides its own headers."""


class Exchange:
    """One request and its answer; it is the request's `api.http.response.Asker`, too."""

    #: The client has sent its body.
    waits: Final = False

    def __init__(self, request: PlainRequest, duplex: Duplex, state: Mapping[str, Any], scheme: str) -> None:
        """`state` is the connection's."""
        #: What the app is told of the request.
        self.scope = _scope(request, {**state, ASKER: self}, scheme)
        #: What the client has sent ahead.
        self.ahead = b""
        self._body: bytes | None = request.body
        self._duplex = duplex
        self._answer = AnswerWriter(is_head=request.method == b"HEAD", stays=request.stays)
        self._gone = asyncio.Event()
        self._lookout: asyncio.Task[None] | None = None

    async def receive(self) -> Event:
        """The whole body; after it, that the client is gone, or has its answer."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if self._lookout is None and not self._gone.is_set():
            self._lookout = asyncio.create_task(self._look_out())
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: Event) -> None:
        """Send a part of the answer."""
        if event["type"] == "http.response.start":
            self._answer.begin(event["status"], [*event.get("headers", ()), *self._duplex.headers_besides()])
            return
        data = self._answer.add(event.get("body", b""), last=not event.get("more_body", False))
        if data:
            await self._write(data)
        if self._answer.complete:
            self._gone.set()

    async def invite(self) -> None:
        """The client does not wait for that."""

    async def inform(self, status: int, *headers: tuple[str, str]) -> None:
        """See `api.http.response.Asker`."""
        await self._write(head_of(status, encoded(headers)))

    async def end(self) -> bool:
        """The app has nothing more to say. True when the connection may stay."""
        if not (self._answer.begun or self._gone.is_set()):
            await self._fail()
        if self._lookout is not None:
            self._lookout.cancel()
            await asyncio.wait([self._lookout])
        # This exchange is in it, and both would stay until the garbage is collected.
        self.scope = {}
        return self._answer.complete and self._answer.stays

    async def _fail(self) -> None:
        await self.send({"type": "http.response.start", "status": 500,
                         "headers": [(b"content-length", b"0"), CLOSE]})
        await self.send({"type": "http.response.body"})

    async def _write(self, data: bytes) -> None:
        try:
            await self._duplex.write_out(data)
        except (OSError, RuntimeError):
            self._gone.set()

    async def _look_out(self) -> None:
        try:
            while (data := await self._duplex.read_on()) and not self._answer.stays:
                pass
        except OSError:
            data = b""
        self.ahead = data
        if not self.ahead:
            self._gone.set()


def _scope(request: PlainRequest, state: dict[str, Any], scheme: str) -> Scope:
    path, _, query_string = request.target.partition(b"?")
    return {
        "type": "http", "http_version": "1.1", "asgi": {"spec_version": "2.1", "version": "3.0"},
        "method": request.method.decode("ascii"), "scheme": scheme, "path": unquote(path.decode("ascii")),
        "raw_path": path, "query_string": query_string, "root_path": "", "headers": request.headers, "client": None,
        "server": None, "state": state, "extensions": {}}
