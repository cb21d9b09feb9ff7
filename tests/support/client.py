"""An HTTP client for uploads, which tells no answer from an answer."""

import contextlib
import http.client
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

#: Longer than any answer takes, also after gigabytes that a slow disk has to take first.
_PATIENCE_S = 240.0

Body = bytes | BinaryIO | Iterable[bytes]


@dataclass(frozen=True)
class Answer:
    """A whole response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a refusal; empty for anything else."""
        return self.json["code"] if self.headers.get("content-type") == "application/problem+json" else ""

    @property
    def task_id(self) -> str:
        """The id of the task that was made."""
        return self.headers["location"].rpartition("/")[2]


class Connection(http.client.HTTPConnection):
    """A connection to `unix:/PATH` or `HOST:PORT`."""

    def __init__(self, address: str) -> None:
        """Nothing is connected before the first request."""
        self._path = address.removeprefix("unix:") if address.startswith("unix:") else None
        super().__init__("localhost" if self._path else address, timeout=_PATIENCE_S)

    def connect(self) -> None:
        """Connect."""
        if self._path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_PATIENCE_S)
        self.sock.connect(self._path)


class Client:
    """Sends requests to one address, each over a connection of its own."""

    def __init__(self, address: str) -> None:
        """`address` as in the configuration: `unix:/PATH` or `HOST:PORT`."""
        self.address = address

    def request(
        self, method: str, target: str, body: Body | None = None, headers: Mapping[str, str] | None = None,
    ) -> Answer | None:
        """Send one request; return its answer, or None when there was none."""
        with contextlib.closing(Connection(self.address)) as connection:
            # An early answer ends the sending; it can be read all the same.
            try:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.request(method, target, body, dict(headers or {}))
                response = connection.getresponse()
                lower = {name.lower(): value for name, value in response.getheaders()}
                return Answer(response.status, lower, response.read())
            except (ConnectionError, FileNotFoundError, http.client.HTTPException):
                return None

    def get(self, target: str) -> Answer | None:
        """GET `target`."""
        return self.request("GET", target)

    def put(
        self, instance: str, path: str, body: Body, *, size: int | None = None,
        headers: Mapping[str, str] | None = None, **query: object,
    ) -> Answer | None:
        """Upload `body` to `path` in `instance`; `size` is needed unless the body is bytes."""
        where = f"/v1/instances/{instance}/files{quote(path)}"
        length = len(body) if isinstance(body, bytes) else size
        announced = {} if length is None else {"Content-Length": str(length)}
        return self.request("PUT", f"{where}?{urlencode(query)}" if query else where, body, announced | dict(headers or {}))

    def task(self, task_id: str) -> Any:
        """What the service says of a task."""
        answer = self.get(f"/v1/tasks/{task_id}")
        assert answer is not None, "the service did not answer"
        assert answer.status == 200, answer.body
        return answer.json
