"""A real Incus (or LXD) for the tests: fresh containers by its REST API, and their files as this machine sees them."""

import contextlib
import functools
import http.client
import json
import os
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.live.network import LOOPBACK, reach, root_of

#: Names another socket than the usual ones, to test against another version.
SOCKET_VARIABLE = "INCUS_COURIER_TEST_SOCKET"
SOCKETS = ("/var/lib/incus/unix.socket", "/run/incus/unix.socket", "/var/lib/lxd/unix.socket")
IMAGE = "courier-tiny"
_ANSWER_S = 240.0
#: How long an instance may refuse to be removed, and how long to wait before it is asked again.
_REMOVED_S = 60.0
_ASK_AGAIN_S = 0.1
#: The location of an instance of an Incus that is in no cluster.
_NO_CLUSTER = "none"
#: Where a member of a cluster has its state in the folder of its name.
_BELOW_MEMBER = Path("var/lib/incus")
#: What an operation says while it goes on: Pending, Running, Cancelling.
_RUNNING = frozenset({105, 103, 104})
#: How much of an instance's log is told when it does not start.
_LOG_LINES = 10


class ApiError(Exception):
    """The server refused a request of the tests, with an HTTP status if it did so at once."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_ANSWER_S)
        self.sock.connect(self._path)


class Host:
    """One Incus by its socket."""

    def __init__(self, socket_path: str) -> None:
        self.socket = socket_path
        self.directory = Path(socket_path).parent

    @property
    def root(self) -> Path:
        """Its root directory as this machine sees it; that of one that runs beside this machine's is another."""
        return root_of(self.socket)

    @property
    def certificate(self) -> Path:
        """The certificate that it shows over TLS: that of the cluster if it is in one."""
        return next(file for file in (self.directory / "cluster.crt", self.directory / "server.crt") if file.exists())

    @property
    def ends_sessions(self) -> bool:
        """True when it ends the SFTP sessions to an instance that it stops or deletes; LXD waits for their end."""
        return self._is_incus

    @property
    def file_servers(self) -> Path:
        """Where the sockets of its own file servers are, in a directory for each instance."""
        return self.root / ("run/incus" if self._is_incus else "var/log/lxd")

    @property
    def _is_incus(self) -> bool:
        return bool(self.call("GET", "")["environment"]["server"] == "incus")

    def member(self, location: str) -> "Host":
        """The member of that name of a cluster that scripts/incus-cluster runs, where each has a folder of its own name."""
        if location == _NO_CLUSTER:
            return self
        own = Path(self.socket)
        return Host(str(own.parents[len(_BELOW_MEMBER.parts) + 1] / location / _BELOW_MEMBER / own.name))

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Send a request, wait for the operation that it starts if any, and return the metadata."""
        answer = self._ask(method, path, body)
        if answer["type"] == "async":
            done = self._ended(answer["operation"].removeprefix("/1.0"))
            if done["err"]:
                raise ApiError(done["err"])
            return done
        return answer["metadata"]

    def begin(self, method: str, path: str, body: object = None) -> Callable[[], bool]:
        """Send a request that starts an operation; what is returned tells whether it goes on, and raises when it failed."""
        operation = self._ask(method, path, body)["operation"].removeprefix("/1.0")

        def goes_on() -> bool:
            now = self.call("GET", operation)
            if now["err"]:
                raise ApiError(now["err"])
            return now["status_code"] in _RUNNING

        return goes_on

    def _ask(self, method: str, path: str, body: object) -> Any:
        answer = json.loads(self.fetch(method, path, body))
        if answer["type"] == "error":
            raise ApiError(answer["error"], answer["error_code"])
        return answer

    def _ended(self, operation: str) -> Any:
        """An operation that has ended. That of another member of a cluster may say sooner that it was waited for."""
        while True:
            done = self.call("GET", f"{operation}/wait")
            if done["status_code"] not in _RUNNING:
                return done

    def fetch(self, method: str, path: str, body: object = None) -> bytes:
        """Send a request; return the body of the answer, whatever it is."""
        with contextlib.closing(_UnixConnection(self.socket)) as connection:
            connection.request(method, f"/1.0{path}", json.dumps(body) if body is not None else None)
            return connection.getresponse().read()

    @contextlib.contextmanager
    def container(self, running: bool = True, project: str = "default", config: dict[str, str] | None = None,
                  location: str = "") -> Iterator["Container"]:
        """A fresh container of the tiny image, removed afterwards, also when it does not start; on a member of a cluster."""
        container = Container(self, f"courier-test-{uuid.uuid4().hex[:12]}", project)
        try:
            container.create(config or {}, location)
            if running:
                container.start()
            yield container
        finally:
            container.remove()

    @contextlib.contextmanager
    def volume(self) -> Iterator[str]:
        """A fresh storage volume, for a disk device, removed afterwards."""
        name = f"courier-test-{uuid.uuid4().hex[:12]}"
        self.call("POST", "/storage-pools/default/volumes/custom", {"name": name, "config": {}})
        try:
            yield name
        finally:
            self.call("DELETE", f"/storage-pools/default/volumes/custom/{name}")

    @contextlib.contextmanager
    def pool(self) -> Iterator[str]:
        """A fresh storage pool in a folder of the server's own, removed afterwards."""
        name = f"courier-test-{uuid.uuid4().hex[:12]}"
        self.call("POST", "/storage-pools", {"name": name, "driver": "dir", "config": {}})
        try:
            yield name
        finally:
            self.call("DELETE", f"/storage-pools/{name}")

    @contextlib.contextmanager
    def folder(self) -> Iterator[str]:
        """A fresh directory that everybody may change, for a disk device, removed afterwards; its path as the server sees it."""
        root = self.root
        with tempfile.TemporaryDirectory(prefix="courier-test-", dir=root / "var/tmp") as made:
            os.chmod(made, 0o777)
            yield f"/{Path(made).relative_to(root)}"

    @contextlib.contextmanager
    def project(self) -> Iterator[str]:
        """A fresh project that shares images and profiles with the default one, removed afterwards."""
        name = f"courier-test-{uuid.uuid4().hex[:12]}"
        self.call("POST", "/projects", {"name": name, "config": {
            "features.images": "false", "features.profiles": "false", "features.storage.volumes": "false"}})
        try:
            yield name
        finally:
            self.call("DELETE", f"/projects/{name}")

    @contextlib.contextmanager
    def https(self) -> Iterator[str]:
        """Let it listen on a free port of its loopback; yield the URL from here; afterwards all is as before."""
        before = self.call("GET", "")["config"].get("core.https_address", "")
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port = probe.getsockname()[1]
        self.call("PATCH", "", {"config": {"core.https_address": f"{LOOPBACK}:{port}"}})
        try:
            with reach(self.socket, port) as near_port:
                yield f"https://{LOOPBACK}:{near_port}"
        finally:
            self.call("PATCH", "", {"config": {"core.https_address": before}})

    @contextlib.contextmanager
    def trusted(self, certificate: Path, projects: list[str] | None = None) -> Iterator[None]:
        """Trust a client certificate (PEM), for some projects only or for all; not afterwards."""
        lines = certificate.read_text().split("-----")[2].split()
        name = f"courier-test-{uuid.uuid4().hex[:12]}"
        self.call("POST", "/certificates", {
            "type": "client", "name": name, "certificate": "".join(lines), "restricted": projects is not None,
            "projects": projects or []})
        try:
            yield
        finally:
            for known in self.call("GET", "/certificates?recursion=1"):
                if known["name"] == name:
                    self.call("DELETE", f"/certificates/{known['fingerprint']}")


class Container:
    """A container, and its files as this machine sees them."""

    def __init__(self, host: Host, name: str, project: str) -> None:
        self.host = host
        self.name = name
        self.project = project

    @functools.cached_property
    def member(self) -> Host:
        """The member of a cluster that it is on, which stays the same; the one Incus where there is no cluster."""
        return self.host.member(self.host.call("GET", self._address())["location"])

    @property
    def _name_of_all(self) -> str:
        """Its name among the instances of all projects, as Incus names directories."""
        return self.name if self.project == "default" else f"{self.project}_{self.name}"

    @property
    def rootfs(self) -> Path:
        """Its root directory on this machine. What it mounts inside is not seen here."""
        return self.member.directory / "storage-pools/default/containers" / self._name_of_all / "rootfs"

    @property
    def file_server(self) -> Path:
        """The socket of Incus's own file server for it, which is there while a session is open, and some seconds longer."""
        return self.member.file_servers / self._name_of_all / "forkfile.sock"

    @property
    def shift(self) -> int:
        """What this machine adds to the uids and gids inside."""
        return os.lstat(self.rootfs).st_uid

    def create(self, config: dict[str, str], location: str = "") -> None:
        """Make it, on a member of a cluster or anywhere; it does not run yet."""
        self.host.call("POST", f"/instances?project={self.project}&target={location}", {
            "name": self.name, "type": "container", "source": {"type": "image", "alias": IMAGE},
            "profiles": ["default"], "config": config})

    def replace(self) -> None:
        """Remove it, and start another of its name."""
        self.remove()
        self.create({})
        self.start()

    def attach(self, **devices: dict[str, str]) -> None:
        """Give it devices besides its own."""
        own = self.host.call("GET", self._address())["devices"]
        self.host.call("PATCH", self._address(), {"devices": {**own, **devices}})

    def start(self) -> None:
        """Start it and wait until it runs; raises ApiError with the end of its log when it does not."""
        try:
            self.set_state("start")
        except ApiError as refused:
            raise ApiError(f"{self.name} does not start: {refused}\n{self._log_end()}") from refused

    def stop(self, within_s: int = 30) -> None:
        """Stop it at once and wait until it is; raises ApiError when that takes too long."""
        self.set_state("stop", within_s)

    def move(self, pool: str) -> Callable[[], bool]:
        """Begin to move it to another pool; see Host.begin."""
        return self.host.begin("POST", self._address(), {"name": self.name, "migration": True, "pool": pool})

    def remove(self) -> None:
        """Stop and delete it, if it is still there; raises ApiError when the server keeps refusing.

        For a moment after a start that failed it is too stopped to be stopped and too running to be deleted.
        """
        give_up = time.monotonic() + _REMOVED_S
        while (refused := self._refusal()) is not None:
            if time.monotonic() > give_up:
                raise refused
            time.sleep(_ASK_AGAIN_S)

    def _refusal(self) -> ApiError | None:
        """Try to remove it; return why the server refuses, or None when it is gone."""
        with contextlib.suppress(ApiError):
            self.stop()
        try:
            self.host.call("DELETE", self._address())
        except ApiError as refused:
            return None if refused.status == http.HTTPStatus.NOT_FOUND else refused
        return None

    def run(self, script: str) -> int:
        """Run a shell script inside; return its exit status."""
        done = self.host.call("POST", self._address("/exec"), {
            "command": ["sh", "-c", script], "interactive": False, "wait-for-websocket": False})
        return int(done["metadata"]["return"])

    def set_state(self, action: str, within_s: int = 30) -> None:
        """Start, stop, freeze or unfreeze it, and wait until that is done."""
        self.host.call("PUT", self._address("/state"), {"action": action, "timeout": within_s, "force": True})

    def _log_end(self) -> str:
        log = self.host.fetch("GET", self._address("/logs/lxc.log")).decode(errors="replace")
        return "\n".join(log.splitlines()[-_LOG_LINES:])

    def _address(self, below: str = "") -> str:
        return f"/instances/{self.name}{below}?project={self.project}"


def find_host() -> Host | None:
    """The Incus that answers, or None. One that was named is never replaced by another."""
    named = os.environ.get(SOCKET_VARIABLE)
    for path in (named,) if named else SOCKETS:
        with contextlib.suppress(OSError, ApiError):
            host = Host(path)
            host.call("GET", "")
            return host
    return None
