"""The addresses of the API, asked without a network."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

from api.access.evidence import Evidence
from api.access.identify import Doorkeeper
from api.http.peers import Via
from api.http.refusal_log import RefusalLog
from api.http.response import ASKER, DOOR, PEER, VIA, App, Event, Scope
from api.live_config import LiveConfig
from api.routes.app import build, nothing_here
from api.routes.endpoint import Route
from daemon.access.caller import Caller, anonymous
from daemon.errors import Rejected
from tests.support.client import Answer


@dataclass(frozen=True)
class Told(Answer):
    """An answer, and the heads that came before it."""

    informed: Sequence[tuple[int, Mapping[str, str]]] = ()


@dataclass
class Addresses:
    """Some addresses, behind the entrance."""

    live: LiveConfig
    routes: Sequence[Route]
    #: What becomes of whoever comes: nobody is known.
    refused: Rejected | None = None
    #: What is at all other addresses.
    otherwise: App = nothing_here
    _informed: list[tuple[int, Mapping[str, str]]] = field(default_factory=list)

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> Told:
        """One request; underscores stand for hyphens in the headers' names."""
        return asyncio.run(self._ask(method, target, body, headers))

    @property
    def doorkeeper(self) -> Doorkeeper:
        """Who knows nobody."""
        return cast(Doorkeeper, SimpleNamespace(identify=self._identify))

    async def _inform(self, status: int, *headers: tuple[str, str]) -> None:
        self._informed.append((status, dict(headers)))

    async def _identify(self, _: Evidence) -> Caller:
        if self.refused is not None:
            raise self.refused
        return anonymous(None)

    async def _ask(self, method: str, target: str, body: bytes, headers: Mapping[str, str]) -> Told:
        self._informed = []
        path, _, query = target.partition("?")
        pairs = [(name.replace("_", "-").lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        state = {PEER: "10.0.0.1", VIA: Via("10.0.0.1"), DOOR: SimpleNamespace(tls=False, port=80),
                 ASKER: SimpleNamespace(waits=False, inform=self._inform)}
        scope: Scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "root_path": "",
                        "query_string": query.encode(), "headers": [(b"content-length", b"%d" % len(body)), *pairs],
                        "state": state}
        sent: list[Event] = []

        async def receive() -> Event:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(event: Event) -> None:
            sent.append(event)

        await build(self.routes, self.live, self.doorkeeper, RefusalLog(), self.otherwise)(scope, receive, send)
        told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Told(sent[0]["status"], told, b"".join(event["body"] for event in sent[1:]), tuple(self._informed))
