"""Incus's REST API through pylxd: the only module that knows pylxd and requests.

No environment variable changes where or how it connects, and nothing waits without a limit: each answer, and
each step of a long one, has `limit_s`. Every Rest has connections of its own; one thread at a time.
"""

import socket
import stat
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

import requests
from pylxd import Client
from pylxd.client import get_session_for_url
from pylxd.exceptions import ClientConnectionFailed, LXDAPIException
from pylxd.models import Instance

from daemon.errors import Undelivered
from daemon.model.names import printable
from worker.targets.attributes import Attributes, Wanted
from worker.targets.base import Patience
from worker.targets.error_codes import classify_files_api, classify_http
from worker.targets.incus.endpoints import Endpoints

_READ_BYTES: Final = 256 * 1024

#: Requests that are kept prepared, of each Rest.
_PREPARED: Final = 4
#: How long connecting may take.
_CONNECT_S: Final = 5.0
#: What the files API calls things. A device or a pipe is a file to it, and setuid and setgid are hidden.
_KINDS: Final = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK}


class NoSuchAddress(Undelivered):
    """Raised when the server knows no such address at all, rather than what is at it."""


class Upgraded:
    """A connection that HTTP was given up on: `socket` is free to use until `close`."""

    def __init__(self, session: requests.Session, answer: requests.Response, connection: socket.socket) -> None:
        self._session = session
        self._answer = answer
        self.socket: Final = connection
        #: What the server said when it let go of HTTP; names in any case.
        self.headers: Final[Mapping[str, str]] = answer.headers

    def close(self) -> None:
        """End the connection. Never raises."""
        self.socket.close()
        self._answer.close()
        self._session.close()


class Rest:
    """One remote's API. Each method raises Undelivered, with the code for what went wrong."""

    def __init__(self, endpoints: Endpoints, limit_s: float, patience: Patience | None = None) -> None:
        """Of `limit_s` and what `patience` has now, the shorter counts. Connecting has its own.

        Raises Undelivered where none of the endpoints is a socket that takes connections, or an address elsewhere.
        """
        self._patience = patience or Patience()
        with self._patience.waiting():
            self.endpoint: Final = endpoints.choose(min(_CONNECT_S, limit_s))
        self._url = (f"http+unix://{urllib.parse.quote(self.endpoint, safe='')}" if self.endpoint.startswith("/")
                     else self.endpoint.rstrip("/"))
        remote = endpoints.remote
        self._name = endpoints.name
        self._limit_s = limit_s
        #: How long each step of what `send` asked last may take.
        self.step_s = limit_s
        cert = (remote.file(remote.client_cert), remote.file(remote.client_key)) if remote.client_cert else None
        self._session: requests.Session = get_session_for_url(
            self._url, verify=remote.file(remote.server_cert) or True, cert=cert)
        self._session.trust_env = False
        self._session.auth = _speak_incus_and_lxd
        #: The same is asked again and again, and preparing that takes a third of asking.
        self._prepared = lru_cache(_PREPARED)(self._prepare)

    def close(self) -> None:
        """Let go of the connections. Never raises."""
        self._session.close()

    @property
    def _limit(self) -> tuple[float, float]:
        """How long connecting, and then each step, may take."""
        return min(_CONNECT_S, self._limit_s), min(self._limit_s, self._patience.limit_s)

    def metadata(self, path: str, project: str | None = None) -> dict[str, Any]:
        """GET `path` below /1.0 and return its metadata."""
        metadata = self._get(path, {"project": project} if project else {})
        return metadata if isinstance(metadata, dict) else {}

    def addresses(self, path: str) -> list[str]:
        """GET `path` below /1.0 for all projects, and return the addresses of what is there."""
        found = self._get(path, {"all-projects": "true"})
        return [address for address in found if isinstance(address, str)] if isinstance(found, list) else []

    def _get(self, path: str, params: dict[str, str]) -> object:
        answer = self.send("GET", path, params)
        if answer.status_code != requests.codes.ok:
            raise _refusal(answer)
        try:
            metadata: object = answer.json()["metadata"]
        except (requests.RequestException, KeyError, TypeError) as error:
            raise Undelivered("incus_error", f"{self._name}: not an answer of Incus: {error}") from error
        return metadata

    def upgrade(self, path: str, params: dict[str, str], headers: dict[str, str]) -> Upgraded:
        """GET `path` with `headers` that ask for another protocol; return the connection, which outlives this.

        Raises NoSuchAddress where the server is too old for it.
        """
        answer = self.send("GET", path, params, {"Connection": "Upgrade", **headers}, stream=True)
        if answer.status_code != requests.codes.switching_protocols:
            refusal = _refusal(answer)
            if answer.status_code == requests.codes.not_found and refusal.code == "incus_error":
                raise NoSuchAddress(refusal.code, refusal.detail)
            raise refusal
        raw = answer.raw.connection
        if raw is None or raw.sock is None:
            raise Undelivered("connection_lost", f"{self._name}: closed after the upgrade")
        return Upgraded(self._session, answer, raw.sock)

    def files(self, instance: str, project: str) -> "Files":
        """Return the files API of an instance. Asks the server who it is first."""
        limit = self._limit
        with self.explained(limit[1]):
            client = Client(endpoint=self._url, session=self._session, timeout=limit, project=project)
            return Files(self, Instance(client, name=instance), f"/instances/{instance}/files", project, limit[1])

    def send(self, method: str, path: str, params: dict[str, str],
             headers: dict[str, str] | None = None, stream: bool = False) -> requests.Response:
        """Send a request without a body; return the answer, whatever its status.

        With `stream` its body is not yet read, and it is the caller's to close.
        """
        limit = self._limit
        self.step_s = limit[1]
        with self.explained(self.step_s):
            request = self._prepared(method, path, tuple(params.items()), tuple((headers or {}).items()))
            return self._session.send(request, timeout=limit, stream=stream, allow_redirects=False)

    def _prepare(
        self, method: str, path: str, params: tuple[tuple[str, str], ...], headers: tuple[tuple[str, str], ...],
    ) -> requests.PreparedRequest:
        return self._session.prepare_request(
            requests.Request(method, f"{self._url}/1.0{path}", params=dict(params), headers=dict(headers)))

    @contextmanager
    def explained(self, step_s: float) -> Iterator[None]:
        """Turn what requests and pylxd raise into Undelivered; they were given `step_s` for each step."""
        try:
            with self._patience.waiting():
                yield
        except LXDAPIException as error:
            raise _refusal(error.response, of_files=True) from error
        except requests.exceptions.SSLError as error:
            raise Undelivered("incus_refused", f"{self._name}: {error}") from error
        except (requests.RequestException, ClientConnectionFailed) as error:
            if _is_timeout(error):
                self._patience.hurried = step_s < self._limit_s
                raise Undelivered("stalled", f"{self._name}: no answer for {step_s:g} s") from error
            raise Undelivered("incus_unreachable", f"{self._name}: {error}") from error
        except (OSError, ValueError) as error:
            # What is left is a certificate's file that is missing, not readable or damaged.
            raise Undelivered("incus_refused", f"{self._name}: {error}") from error


class Files:
    """The files API of one instance, by pylxd. Each method raises Undelivered."""

    def __init__(self, rest: Rest, instance: Any, address: str, project: str, step_s: float) -> None:
        self._rest = rest
        #: How long each step of what `instance` does may take.
        self._step_s = step_s
        self._files = instance.files
        self._address = address
        self._project = project

    def look(self, path: str) -> Attributes | None:
        """What is at `path`, links not followed; None if there is nothing."""
        answer = self._ask("HEAD", path)
        if answer.status_code == requests.codes.not_found:
            return None
        if answer.status_code != requests.codes.ok:
            # The answer to HEAD has no text; that to GET says why.
            raise _refusal(self._ask("GET", path), of_files=True)
        described = _described(answer)
        if described.get("type") != "file":
            return _attributes(described, 0)
        # LXD 5.0 does not say the size unless the bytes come with it.
        size = described.get("content-length")
        return _attributes(described, int(size) if size else sum(map(len, self.read(path))))

    def link(self, path: str) -> str:
        """Where the symbolic link `path` leads, made absolute."""
        return b"".join(self.read(path)).decode("utf-8", "surrogateescape")

    def read(self, path: str) -> Iterator[bytes]:
        """Yield the bytes of a file."""
        with self._ask("GET", path, stream=True) as answer, self._rest.explained(self._rest.step_s):
            if answer.status_code != requests.codes.ok:
                raise _refusal(answer, of_files=True)
            yield from answer.iter_content(_READ_BYTES)

    def put(self, path: str, data: bytes | Iterable[bytes], want: Wanted) -> None:
        """Write a file in place; mode and owner count only if it is new. `data` is read to its end."""
        with self._rest.explained(self._step_s):
            self._files.put(path, data, mode=want.mode, uid=want.uid, gid=want.gid)

    def make_directory(self, path: str, want: Wanted) -> None:
        """Make a directory with its mode and owner."""
        with self._rest.explained(self._step_s):
            self._files.mk_dir(path, mode=want.mode, uid=want.uid, gid=want.gid)

    def delete(self, path: str) -> None:
        """Remove a file or a link."""
        with self._rest.explained(self._step_s):
            self._files.delete(path)

    def _ask(self, method: str, path: str, stream: bool = False) -> requests.Response:
        return self._rest.send(method, self._address, {"path": path, "project": self._project}, stream=stream)


def _speak_incus_and_lxd(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Say each X-LXD- header as X-Incus- too: pylxd sends the one, Incus from 7.0 on reads only the other."""
    for name, value in list(request.headers.items()):
        if name.lower().startswith("x-lxd-"):
            request.headers[f"X-Incus-{name[len('X-LXD-'):]}"] = value
    return request


def _described(answer: requests.Response) -> dict[str, str]:
    return {name.lower().removeprefix("x-incus-").removeprefix("x-lxd-"): value
            for name, value in answer.headers.items()}


def _attributes(headers: dict[str, str], size: int) -> Attributes:
    try:
        return Attributes(
            size=size, uid=int(headers["uid"]), gid=int(headers["gid"]),
            mode=_KINDS[headers["type"]] | int(headers["mode"], 8))
    except (KeyError, ValueError) as error:
        raise Undelivered("incus_error", f"the files API described a file without its {error}") from error


def _refusal(answer: requests.Response, of_files: bool = False) -> Undelivered:
    text = _error_text(answer)
    classify = classify_files_api if of_files else classify_http
    code = classify(answer.status_code, text)
    return Undelivered(code, f"Incus answered {answer.status_code}: {printable(text, 300)}")


def _error_text(answer: requests.Response) -> str:
    try:
        body = answer.json()
    except (requests.RequestException, OSError):
        return answer.reason or ""
    return str(body.get("error", "")) if isinstance(body, dict) else ""


def _is_timeout(error: BaseException) -> bool:
    """True if an answer or a send took too long; connecting too slowly is something else."""
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return False
    if isinstance(error, (TimeoutError, requests.exceptions.ReadTimeout)):
        return True
    return any(isinstance(inner, BaseException) and _is_timeout(inner)
               for inner in (*error.args, error.__cause__ or error.__context__))
