"""One Incus (or LXD), by its Unix socket or over TLS: the only module that knows pylxd and requests.

No environment variable changes where or how it connects, and nothing waits without a limit. Every session
has a connection of its own, so threads share nothing.
"""

import os
import socket
import urllib.parse
from collections.abc import Callable
from typing import Any, Final

import requests
from pylxd.client import get_session_for_url

from daemon.config import Remote
from daemon.errors import Undelivered
from daemon.task import Destination
from worker.target import Session
from worker.targets.sftp import SftpSession
from worker.targets.sftp_wire import Wire, WireBroken, WireStalled
from worker.verdict import classify_http

#: Where Incus and LXD listen, in order of preference.
SOCKETS: Final = ("/var/lib/incus/unix.socket", "/run/incus/unix.socket", "/var/lib/lxd/unix.socket")
#: How long a remote has for saying that it is there.
_PROBE_S: Final = 3.0
#: Incus's status code of a stopped instance.
_STOPPED: Final = 102
_NOT_FOUND: Final = 404


def find_endpoint() -> str | None:
    """The socket of this machine's Incus, else LXD; None if there is neither."""
    return next(filter(os.path.exists, SOCKETS), None)


class IncusTarget:
    """A Target on one remote; see worker.target for what it promises."""

    def __init__(self, name: str, remote: Remote) -> None:
        """Nothing is connected before the first use. `remote` without an endpoint means this machine's."""
        self._name = name
        self._remote = remote
        self.local = not remote.endpoint.startswith("https://")

    def open(self, destination: Destination, stopped: str) -> Session:
        """Open a session to an instance; see worker.target.Target."""
        session = self._session()
        try:
            return self._open(session, destination, stopped)
        except BaseException:
            session.close()
            raise

    def probe(self) -> None:
        """Return when the remote answers and trusts this service; see worker.target.Target."""
        session = self._session()
        try:
            limit_s = min(_PROBE_S, self._remote.timeout_s)
            answer = self._get(session, "", "", limit_s)
            if answer.status_code != requests.codes.ok:
                raise _refusal(answer)
            if _metadata(answer).get("auth") != "trusted":
                raise Undelivered("incus_refused", f"{self._name}: the client certificate is not trusted")
        finally:
            session.close()

    def close(self) -> None:
        """Nothing to let go of: each session has its own connection."""

    def _session(self) -> requests.Session:
        remote = self._remote
        cert = (remote.client_cert, remote.client_key) if remote.client_cert else None
        try:
            session: requests.Session = get_session_for_url(self._url(), verify=remote.server_cert or True, cert=cert)
        except OSError as error:
            raise Undelivered("incus_refused", f"{self._name}: {error}") from error
        session.trust_env = False
        return session

    def _url(self) -> str:
        endpoint = self._remote.endpoint or find_endpoint()
        if endpoint is None:
            raise Undelivered("incus_unreachable", f"{self._name}: there is no socket of Incus on this machine")
        if endpoint.startswith("/"):
            return f"http+unix://{urllib.parse.quote(endpoint, safe='')}"
        return endpoint.rstrip("/")

    def _get(self, session: requests.Session, path: str, project: str, limit_s: float,
             headers: dict[str, str] | None = None) -> requests.Response:
        try:
            return session.get(f"{self._url()}/1.0{path}", params={"project": project} if project else None,
                               headers=headers, timeout=(min(_PROBE_S, limit_s), limit_s), stream=True,
                               allow_redirects=False)
        except requests.exceptions.ReadTimeout as error:
            raise Undelivered("stalled", f"{self._name}: no answer for {limit_s:g} s") from error
        except requests.exceptions.SSLError as error:
            raise Undelivered("incus_refused", f"{self._name}: {error}") from error
        except (requests.RequestException, OSError) as error:
            raise Undelivered("incus_unreachable", f"{self._name}: {error}") from error

    def _open(self, session: requests.Session, destination: Destination, stopped: str) -> Session:
        instance = f"/instances/{urllib.parse.quote(destination.instance, safe='')}"
        if stopped == "wait":
            self._refuse_if_stopped(session, instance, destination)
        answer = self._get(session, f"{instance}/sftp", destination.project, self._remote.timeout_s,
                           {"Upgrade": "sftp", "Connection": "Upgrade"})
        if answer.status_code != requests.codes.switching_protocols:
            raise _refusal(answer)
        return self._upgraded(session, answer)

    def _refuse_if_stopped(self, session: requests.Session, instance: str, destination: Destination) -> None:
        answer = self._get(session, f"{instance}/state", destination.project, self._remote.timeout_s)
        if answer.status_code != requests.codes.ok:
            raise _refusal(answer)
        if _metadata(answer).get("status_code") == _STOPPED:
            raise Undelivered("instance_stopped", f"{destination.instance} is stopped")

    def _upgraded(self, session: requests.Session, answer: requests.Response) -> SftpSession:
        raw = answer.raw.connection
        if raw is None or raw.sock is None:
            raise Undelivered("connection_lost", f"{self._name}: closed after the upgrade")
        connection: socket.socket = raw.sock
        try:
            wire = Wire(connection, self._remote.timeout_s)
        except WireStalled as error:
            raise Undelivered("stalled", str(error)) from error
        except WireBroken as error:
            raise Undelivered("connection_lost", str(error)) from error
        return SftpSession(wire, _disconnect(session, answer, connection))


def _disconnect(session: requests.Session, answer: requests.Response, connection: socket.socket) -> Callable[[], None]:
    def end() -> None:
        connection.close()
        answer.close()
        session.close()
    return end


def _refusal(answer: requests.Response) -> Undelivered:
    text = _error_text(answer)
    return Undelivered(classify_http(answer.status_code, text), f"Incus answered {answer.status_code}: {text}")


def _error_text(answer: requests.Response) -> str:
    try:
        body = answer.json()
    except (requests.RequestException, OSError):
        return answer.reason or ""
    return str(body.get("error", "")) if isinstance(body, dict) else ""


def _metadata(answer: requests.Response) -> dict[str, Any]:
    try:
        metadata = answer.json()["metadata"]
    except (requests.RequestException, OSError, KeyError, TypeError) as error:
        raise Undelivered("incus_error", f"an answer that is not Incus's: {error}") from error
    return metadata if isinstance(metadata, dict) else {}
