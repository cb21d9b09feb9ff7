"""HTTP to a service: over TCP, TLS or a Unix socket, one request at a time on each connection.

A request gets its whole answer, or NoAnswer. Nothing is tried again here but a question on a connection that had been
idle, which the other side may have closed. No redirect is followed, and no proxy is asked.
"""

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from daemon import __version__

#: How long nothing may move before a request is given up, in seconds: longer than a slow disk takes to sync.
PATIENCE_S: Final = 120.0
#: How long it may take to connect, in seconds.
_CONNECT_S: Final = 15.0
#: The longest answer that is read, in bytes.
_MAX_ANSWER_BYTES: Final = 32 * 2**20
_PIECE_BYTES: Final = 2**18
#: What was tried may be tried again.
_REPEATABLE: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_NO_HEADERS: Final[Mapping[str, str]] = {}


class NoAnswer(Exception):
    """Raised when a request got no answer; its text says why, for people."""

    def __init__(self, reason: str, *, passes: bool = True) -> None:
        super().__init__(reason)
        #: False when it would be the same the next time, as for a certificate that is not trusted.
        self.passes: Final = passes


class _Closed(NoAnswer):
    """Raised when the other side had ended the connection, as it may one that is idle."""


@dataclass(frozen=True)
class Address:
    """Where a service is: `http://HOST[:PORT][/BASE]`, the same with https, or `unix:/PATH`."""

    #: What a person calls it.
    name: str
    host: str = "localhost"
    port: int = 0
    #: What stands before each path of the service; begins with a slash unless it is empty, and ends with none.
    base: str = ""
    #: The path of the Unix socket; None for TCP.
    socket: str | None = None
    tls: ssl.SSLContext | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Response:
    """A whole answer."""

    status: int
    #: Names in lower case.
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read as JSON; None when it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def problem(self, key: str) -> str:
        """What a refusal says: its `code`, `title`, `detail` or `hint`; empty when it does not say that."""
        said = self.json() if self.headers.get("content-type") == "application/problem+json" else None
        value = said.get(key) if isinstance(said, dict) else None
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> int | None:
        """A header that is a whole number from 0 on; None when it is missing, or anything else."""
        text = self.headers.get(name, "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


class HttpClient:
    """One connection to a service; made when it is needed, kept while it holds. For one thread, but for `abort`."""

    def __init__(self, address: Address, token: str | None = None, *, patience_s: float = PATIENCE_S) -> None:
        """Nothing is connected yet."""
        self._address = address
        self._patience_s = patience_s
        self._headers = {"User-Agent": f"incus-courier/{__version__}"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._connection = _connection(address, patience_s)
        self._lock = threading.Lock()
        self._aborted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> Address:
        """Where the next request goes."""
        return self._address

    def move(self, address: Address) -> None:
        """Have the next request, and those after it, go to another address."""
        with self._lock:
            self._connection.close()
            self._address = address
            self._connection = _connection(address, self._patience_s)

    def close(self) -> None:
        """End the connection. The next request makes a new one."""
        with self._lock:
            self._connection.close()

    def abort(self) -> None:
        """End what is under way, from another thread; that, and every later request, gets NoAnswer."""
        with self._lock:
            self._aborted = True
            if self._connection.sock is not None:
                # Whoever waits to read from it is woken by that, and by a close alone he is not.
                with contextlib.suppress(OSError):
                    self._connection.sock.shutdown(socket.SHUT_RDWR)

    def request(
        self, method: str, path: str, *, headers: Mapping[str, str] = _NO_HEADERS,
        body: bytes | Iterable[bytes] | None = None, length: int | None = None, patience_s: float | None = None,
    ) -> Response:
        """Ask for a path of the service, query included, and return the answer.

        A body that comes in pieces needs its `length`, in bytes. Nothing may stand still for longer than `patience_s`.
        Raises NoAnswer. What the body's pieces raise passes through, and ends the connection; an OSError counts as the
        connection's.
        """
        may_be_stale = self._connection.sock is not None
        may_repeat = may_be_stale and method in _REPEATABLE and (body is None or isinstance(body, bytes))
        try:
            return self._request(method, path, headers, body, length, patience_s)
        except _Closed:
            if not may_repeat:
                raise
        return self._request(method, path, headers, body, length, patience_s)

    def _request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | Iterable[bytes] | None,
        length: int | None, patience_s: float | None,
    ) -> Response:
        try:
            whole = self._send(method, path, headers, body, length, patience_s)
            response = _read(self._connection.getresponse())
            if not whole:
                self.close()
            return response
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise _no_answer(error) from error
        except BaseException:
            self.close()
            raise

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | Iterable[bytes] | None,
        length: int | None, patience_s: float | None,
    ) -> bool:
        """True when all of it went out; False when the other side has ended that, and its answer is to be read."""
        self._connect(self._patience_s if patience_s is None else patience_s)
        connection = self._connection
        connection.putrequest(method, self.address.base + path)
        for name, value in {**self._headers, **headers}.items():
            connection.putheader(name, value)
        if body is None:
            connection.endheaders()
            return True
        known = len(body) if isinstance(body, bytes) else length
        connection.putheader("Content-Length", str(known))
        try:
            connection.endheaders(body if isinstance(body, bytes) else None)
            for piece in () if isinstance(body, bytes) else body:
                connection.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            # A refusal ends the sending; it can be read all the same.
            return False
        return True

    def _connect(self, patience_s: float) -> None:
        connection = self._connection
        if connection.sock is None:
            connection.timeout = min(patience_s, _CONNECT_S)
            connection.connect()
        with self._lock:
            if self._aborted:
                raise NoAnswer("It was interrupted.")
            connection.sock.settimeout(patience_s)

    @contextlib.contextmanager
    def stream(
        self, path: str, headers: Mapping[str, str] = _NO_HEADERS, *, patience_s: float | None = None,
    ) -> Iterator[tuple[Response, Iterator[bytes]]]:
        """Ask for what does not end by itself, as events: the head of the answer, and its lines as they come.

        The head has the body of a refusal, and nothing of the stream. Nothing may stand still for longer than
        `patience_s`. Raises NoAnswer, also while the lines are read; they end when the stream does.
        """
        with self._answer(path, headers, patience_s, _lines) as answer:
            yield answer

    @contextlib.contextmanager
    def download(self, path: str) -> Iterator[tuple[Response, Iterator[bytes]]]:
        """Ask for what may be long: as `stream`, but in pieces of some size instead of lines."""
        with self._answer(path, _NO_HEADERS, None, _pieces) as answer:
            yield answer

    @contextlib.contextmanager
    def _answer(
        self, path: str, headers: Mapping[str, str], patience_s: float | None,
        parts: Callable[[http.client.HTTPResponse], Iterator[bytes]],
    ) -> Iterator[tuple[Response, Iterator[bytes]]]:
        self.close()
        try:
            self._send("GET", path, headers, None, None, patience_s)
            response = self._connection.getresponse()
            if response.status != http.client.OK:
                yield _read(response), iter(())
            else:
                yield Response(response.status, _headers(response), b""), parts(response)
        except (OSError, http.client.HTTPException) as error:
            raise _no_answer(error) from error
        finally:
            self.close()


def _connection(address: Address, patience_s: float) -> http.client.HTTPConnection:
    if address.socket is not None:
        return _UnixConnection(address.socket, patience_s)
    if address.tls is not None:
        return http.client.HTTPSConnection(address.host, address.port, timeout=patience_s, context=address.tls)
    return http.client.HTTPConnection(address.host, address.port, timeout=patience_s)


class _UnixConnection(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str, patience_s: float) -> None:
        super().__init__("localhost", timeout=patience_s)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(self.timeout)
            made.connect(self._path)
        except BaseException:
            made.close()
            raise
        self.sock = made


def _read(response: http.client.HTTPResponse) -> Response:
    body = response.read(_MAX_ANSWER_BYTES)
    if not response.isclosed() and response.read(1):
        raise http.client.HTTPException("The answer is too long.")
    return Response(response.status, _headers(response), body)


def _headers(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def _lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while line := response.readline(_MAX_ANSWER_BYTES):
        yield line


def _pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while piece := response.read(_PIECE_BYTES):
        yield piece


def _no_answer(error: Exception) -> NoAnswer:
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return _Closed(_reason(error))
    return NoAnswer(_reason(error), passes=not isinstance(error, ssl.SSLCertVerificationError | PermissionError))


def _reason(error: Exception) -> str:
    """What went wrong, in words."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {error.verify_message}"
        case TimeoutError():
            return "nothing came in time"
        case http.client.RemoteDisconnected():
            return "the connection was closed"
        case OSError():
            return error.strerror or str(error)
        case _:
            return f"the answer is not legal HTTP ({type(error).__name__})"
