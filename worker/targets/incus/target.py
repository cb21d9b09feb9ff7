"""One Incus (or LXD), by its Unix socket or over TLS: SFTP where there is it, else the files API."""

import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from daemon.config import Remote
from daemon.errors import Cause, Undelivered
from daemon.model.upload import Destination
from worker.targets.base import Feed, Patience, Session
from worker.targets.incus.bound_session import BoundSession, SeeingCarrier
from worker.targets.incus.endpoints import Endpoints
from worker.targets.incus.files_api import FilesApiSession
from worker.targets.incus.instance import Instance, is_being_moved, read
from worker.targets.incus.kernel import Kernels
from worker.targets.incus.lifecycle import Lifecycle
from worker.targets.incus.rest import NoSuchAddress, Rest, Upgraded
from worker.targets.incus.sftp_session import SftpSession
from worker.targets.incus.sftp_wire import Wire, WireBroken, WireForeign, WireStalled

#: How long a remote has for saying that it is there.
_PROBE_S: Final = 3.0


class IncusTarget:
    """A Target on one remote; see worker.targets.base for what it promises."""

    def __init__(self, name: str, remote: Remote) -> None:
        """Nothing is connected before the first use. `remote` without an endpoint means this machine's."""
        self._name = name
        self._remote = remote
        self._endpoints = Endpoints(name, remote)
        self._kernels = Kernels()

    def open(self, destination: Destination, stopped: str, patience: Patience | None = None) -> Session:
        """Open a session to an instance; see worker.targets.base.Target."""
        patience = patience or Patience()
        rest = Rest(self._endpoints, self._remote.timeout_s, patience)
        try:
            return self._open(rest, destination, stopped, patience)
        except BaseException:
            rest.close()
            raise

    @contextmanager
    def _knowing_whose_fault(self, patience: Patience) -> Iterator[None]:
        """Have an error that may be one instance's or the whole remote's say which."""
        try:
            yield
        except Undelivered as error:
            if error.kind.cause in {Cause.SILENT, Cause.REFUSED}:
                # It is this instance alone, if the remote answers and lets this service in.
                with patience.waiting():
                    self.probe()
            if error.kind.cause is Cause.REFUSED:
                raise Undelivered("instance_refused", error.detail) from error
            raise

    def probe(self) -> None:
        """Return when the remote answers and trusts this service; see worker.targets.base.Target."""
        if self._ask("").get("auth") != "trusted":
            raise Undelivered("incus_refused", f"{self._name}: the client certificate is not trusted")

    def find_project(self, project: str) -> None:
        """Return when the remote has that project; see worker.targets.base.Target."""
        try:
            self._ask(f"/projects/{urllib.parse.quote(project, safe='')}")
        except Undelivered as error:
            if error.kind.cause is Cause.GONE:
                raise Undelivered("project_not_found", f"{self._name}: there is no project {project}") from error
            raise

    def instances(self) -> frozenset[tuple[str, str]]:
        """Project and name of each of its instances; see worker.targets.base.Target."""
        with self._soon() as rest:
            return frozenset(map(_instance_at, rest.addresses("/instances")))

    def follow(
        self, on_event: Callable[[str, str, str], None], on_up: Callable[[], None], on_down: Callable[[str], None],
    ) -> Feed:
        """Follow the remote's lifecycle events; see worker.targets.base.Target."""
        return Lifecycle(self._endpoints, on_event, on_up, on_down)

    def _ask(self, path: str) -> dict[str, Any]:
        """The metadata below `path`, soon or not at all."""
        with self._soon() as rest:
            return rest.metadata(path)

    @contextmanager
    def _soon(self) -> Iterator[Rest]:
        """Its API, which answers soon or not at all."""
        rest = Rest(self._endpoints, min(_PROBE_S, self._remote.timeout_s))
        try:
            yield rest
        except Undelivered as error:
            if error.kind.cause is Cause.GONE:
                raise
            self._endpoints.leave(rest.endpoint)
            code = "incus_refused" if error.kind.cause is Cause.REFUSED else "incus_unreachable"
            raise Undelivered(code, error.detail) from error
        finally:
            rest.close()

    def close(self) -> None:
        """Nothing to let go of: each session has its own connection."""

    def _open(self, rest: Rest, destination: Destination, stopped: str, patience: Patience) -> Session:
        def look() -> Instance:
            with self._knowing_whose_fault(patience):
                return look_at(rest, destination)

        def bind() -> BoundSession:
            with self._knowing_whose_fault(patience):
                carrier = self._connect(rest, destination, patience)
            try:
                return BoundSession(carrier, look, self._kernels)
            except BaseException:
                carrier.close()
                raise

        if stopped == "wait":
            instance = look()
            if not instance.running:
                raise Undelivered("instance_stopped", f"{destination.instance} is {instance.status.lower()}")
        session = bind()
        if session.runs:
            return session
        # One that does not run may have been moved after it was opened and before it was looked at: then it is opened
        # in what was left behind, which nobody ends. Once it is known where it is, it is opened again.
        session.close()
        again = bind()
        if again.place == session.place:
            return again
        again.close()
        raise Undelivered("instance_changed", "the instance is being moved")

    def _connect(self, rest: Rest, destination: Destination, patience: Patience) -> SeeingCarrier:
        try:
            connection = rest.upgrade(
                f"{_address(destination)}/sftp", {"project": destination.project}, {"Upgrade": "sftp"})
            return self._sftp(connection, patience)
        except (NoSuchAddress, WireForeign):
            # Only then: where SFTP merely failed, a file that is written in place could be seen half.
            return FilesApiSession(rest.files(destination.instance, destination.project), rest.close)

    def _sftp(self, connection: Upgraded, patience: Patience) -> SftpSession:
        try:
            return SftpSession(Wire(connection.socket, self._remote.timeout_s, patience), connection.close)
        except WireBroken as error:
            connection.close()
            if isinstance(error, WireForeign):
                raise
            raise Undelivered("stalled" if isinstance(error, WireStalled) else "connection_lost", str(error)) from error


def _instance_at(address: str) -> tuple[str, str]:
    """The project and the name of the instance at `/1.0/instances/NAME?project=PROJECT`."""
    parts = urllib.parse.urlsplit(address)
    project = urllib.parse.parse_qs(parts.query).get("project", ["default"])[0]
    return project, urllib.parse.unquote(parts.path.rpartition("/")[2])


def look_at(rest: Rest, destination: Destination) -> Instance:
    """How the instance is now. Raises Undelivered: 'instance_busy' while one that does not run is being moved."""
    instance = read(rest.metadata(_address(destination), destination.project))
    if instance.running:
        return instance
    if is_being_moved(rest.metadata("/operations?recursion=1", destination.project), destination.instance):
        raise Undelivered("instance_busy", f"{destination.instance} is being moved or copied")
    # A move may have ended just before the operations were listed.
    return read(rest.metadata(_address(destination), destination.project))


def _address(destination: Destination) -> str:
    return f"/instances/{urllib.parse.quote(destination.instance, safe='')}"
