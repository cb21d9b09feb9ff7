"""An event stream as the HTML standard has it read (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse

from tests.support.client import Connection


@dataclass(frozen=True)
class Event:
    """An event that is dispatched."""

    name: str
    data: str
    last_id: str

    @property
    def task(self) -> tuple[str, str]:
        """The task that it is about, and its state."""
        value = json.loads(self.data)
        return value["task_id"], value["state"]


class Parser:
    """Reads a stream piece by piece."""

    def __init__(self) -> None:
        """Nothing is read yet."""
        self.last_id = ""
        self.retry_ms = 0
        self.comments = 0
        self._rest = ""
        self._id = ""
        self._name = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> list[Event]:
        """The events that are whole with this piece."""
        *lines, self._rest = (self._rest + piece.decode()).split("\n")
        return [event for line in lines if (event := self._take(line)) is not None]

    def _take(self, line: str) -> Event | None:
        assert "\r" not in line
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id" and "\0" not in value:
            self._id = value
        elif name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "retry":
            self.retry_ms = int(value)
        else:
            assert name == "", f"{line!r} means nothing"
            self.comments += 1
        return None

    def _dispatch(self) -> Event | None:
        self.last_id = self._id
        data, name, self._data, self._name = "\n".join(self._data), self._name, [], ""
        return Event(name or "message", data, self.last_id) if data else None


class Following:
    """A client that follows over a connection of its own."""

    def __init__(self, response: HTTPResponse, connection: socket.socket) -> None:
        """Its head has come."""
        self.response = response
        self._connection = connection
        self.parser = Parser()
        self._events: list[Event] = []

    def _read(self) -> bool:
        piece = self.response.read1()
        self._events += self.parser.feed(piece)
        return piece != b""

    def begins(self) -> str:
        """Wait until the client knows where it is; return the id of that."""
        while not self.parser.last_id:
            self.more()
        return self.parser.last_id

    def hang_up(self) -> None:
        """From another thread: have whoever waits for more find the end."""
        self._connection.shutdown(socket.SHUT_RDWR)

    def more(self) -> None:
        """Wait for the next piece."""
        assert self._read(), "the stream ended"

    def heard(self) -> list[Event]:
        """The events that have come."""
        events, self._events = self._events, []
        return events

    def next(self) -> Event:
        """Wait for the next event."""
        while not self._events:
            self.more()
        return self._events.pop(0)

    def tasks(self, number: int) -> list[tuple[str, str]]:
        """Wait for so many events; return what tasks they are about, and their states."""
        return [self.next().task for _ in range(number)]

    def until_end(self) -> list[Event]:
        """Wait for the end of the stream; return the events that came before."""
        while self._read():
            pass
        return self._events


@contextmanager
def following(address: str, query: str = "", headers: Mapping[str, str] | None = None) -> Iterator[Following]:
    """Follow at an address as the configuration has it."""
    connection = Connection(address)
    try:
        connection.request("GET", f"/v1/events{'?' if query else ''}{query}", headers=dict(headers or {}))
        response = connection.getresponse()
        assert response.status == 200, response.read()
        yield Following(response, connection.sock)
    finally:
        connection.close()
