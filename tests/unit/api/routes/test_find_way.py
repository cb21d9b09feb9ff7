"""Which address a request goes to."""

import asyncio

import pytest
from starlette.routing import Route

from api.http.response import Event, Receive, Scope, Send
from api.routes.endpoint import find_way


class Named:
    """An app that says which one it is."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say it."""
        await send({"type": self._name})


@pytest.mark.parametrize(("method", "path", "found"), [
    ("GET", "/a", "reading"), ("HEAD", "/a", "reading"), ("POST", "/a", "all"), ("GET", "/b", "one"), ("GET", "/c", "plain")])
def test_address_that_reads_apart_from_all_else(method: str, path: str, found: str) -> None:
    """What is only for one method is passed over by the others, also where the address has no parameters."""
    told: list[str] = []

    async def send(event: Event) -> None:
        told.append(event["type"])

    async def receive() -> Event:
        return {}

    way = find_way([Route("/c", Named("plain")), Route("/a", Named("reading"), methods=["GET"]), Route("/a", Named("all")),
                    Route("/{any}", Named("one")), Route("/b", Named("never"))], Named("nothing"))
    scope: Scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}

    async def ask() -> None:
        await way(scope, receive, send)

    asyncio.run(ask())
    assert told == [found]
