"""Choosing a target, and what needs no Incus to be shown."""

import contextlib
import errno
import hashlib
import io
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.config import Config, Remote
from daemon.errors import CannotStart, Undelivered
from daemon.model.upload import Destination
from worker.targets import registry
from worker.targets.base import Delivery
from worker.targets.directory.target import DirectoryTarget, instance_directory
from worker.targets.incus import endpoints
from worker.targets.incus.target import IncusTarget
from worker.targets.registry import describe, open_target


def config(**sections: object) -> Config:
    """A configuration with some sections."""
    return Config.model_validate(sections)


@pytest.fixture
def no_incus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Incus."""
    monkeypatch.setattr(endpoints, "SOCKETS", ())
    monkeypatch.setattr(registry, "find_endpoint", endpoints.find_endpoint)


@pytest.fixture
def incus_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A machine with the socket of an Incus."""
    path = tmp_path / "unix.socket"
    path.touch()
    monkeypatch.setattr(endpoints, "SOCKETS", ("/no/such/socket", str(path)))
    return str(path)


def test_directory_stands_in_where_there_is_no_incus(no_incus: None, tmp_path: Path) -> None:
    """With kind = "auto" and no socket, files go below the state directory, and the log can say so."""
    chosen = config(state={"directory": str(tmp_path)})
    assert isinstance(open_target("local", chosen), DirectoryTarget)
    assert describe("local", chosen) == {"target": "directory", "endpoint": f"{tmp_path}/instances"}


def test_incus_is_used_where_there_is_one(incus_socket: str) -> None:
    """With kind = "auto" the first socket that exists is used, and the log can say which."""
    assert isinstance(open_target("local", config()), IncusTarget)
    assert describe("local", config()) == {"target": "incus", "endpoint": incus_socket}


def test_incus_is_waited_for_where_it_was_met_before(
        incus_socket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With kind = "auto" and Incus away, what was meant for it does not go into a directory."""
    chosen = config(state={"directory": str(tmp_path / "state")})
    (tmp_path / "state" / "queue").mkdir(parents=True)
    registry.remember_incus(chosen)
    monkeypatch.setattr(endpoints, "SOCKETS", ())
    assert isinstance(open_target("local", chosen), IncusTarget)
    assert describe("local", chosen)["target"] == "incus"


def test_directory_stays_one_where_incus_was_never_met(no_incus: None, tmp_path: Path) -> None:
    """Trying the service out without Incus leaves no note of one."""
    chosen = config(state={"directory": str(tmp_path)})
    (tmp_path / "queue").mkdir()
    registry.remember_incus(chosen)
    assert list((tmp_path / "queue").iterdir()) == []
    assert isinstance(open_target("local", chosen), DirectoryTarget)


@pytest.mark.parametrize(("kind", "local", "named", "found", "met_before", "expected"), [
    ("auto", True, False, False, False, "directory"),
    ("auto", True, False, True, False, "incus"),
    ("auto", True, False, False, True, "incus"),
    ("auto", True, True, False, False, "incus"),
    ("auto", False, False, False, False, "incus"),
    ("directory", True, True, True, True, "directory"),
    ("directory", False, False, True, False, "directory"),
    ("incus", True, False, False, False, "incus"),
])
def test_choice_follows_the_configuration_then_what_is_there_then_what_was(
        kind: str, local: bool, named: bool, found: bool, met_before: bool, expected: str) -> None:
    """A directory is chosen only where it is asked for, or where there neither is nor was an Incus."""
    assert registry.choose(kind, local=local, named=named, found=found, met_before=met_before) == expected


def test_incus_is_waited_for_when_it_was_asked_for(no_incus: None) -> None:
    """With kind = "incus" a missing socket is an Incus that is away, never a directory."""
    target = open_target("local", config(target={"kind": "incus"}))
    with pytest.raises(Undelivered) as caught:
        target.probe()
    assert caught.value.code == "incus_unreachable"


def test_configured_endpoint_is_incus_even_when_it_is_away(no_incus: None) -> None:
    """An endpoint in the configuration means Incus, there or not."""
    chosen = config(incus={"endpoint": "/no/such/socket"})
    assert isinstance(open_target("local", chosen), IncusTarget)
    assert describe("local", chosen)["endpoint"] == "/no/such/socket"


def test_directory_is_used_when_it_was_asked_for(incus_socket: str, tmp_path: Path) -> None:
    """With kind = "directory" the Incus of the machine is left alone."""
    assert isinstance(open_target("local", config(target={"kind": "directory"})), DirectoryTarget)


def test_other_remote_is_never_a_directory_by_itself(no_incus: None) -> None:
    """A configured remote is Incus whatever this machine has."""
    chosen = config(remotes={"far": {"endpoint": "https://192.0.2.1:8443"}})
    assert isinstance(open_target("far", chosen), IncusTarget)


def test_unknown_remote_stops_the_start() -> None:
    """A remote that is not configured is a mistake."""
    with pytest.raises(CannotStart) as caught:
        open_target("far", config())
    assert caught.value.code == "bad_config"


def test_no_two_instances_share_a_directory() -> None:
    """The name of an instance's directory tells remote, project and instance apart."""
    instances = [("local", "default", "c1"), ("local", "p", "c1"), ("local", "default_p", "c1"), ("far", "default", "c1"),
                 ("far", "p", "c1"), ("local", "far", "c1"), ("far_p", "default", "c1")]
    assert len({instance_directory(Destination(*instance, "/f")) for instance in instances}) == len(instances)


@pytest.mark.parametrize("project", ["default", "p"])
def test_instance_directory_is_one_below_the_root(tmp_path: Path, project: str) -> None:
    """An instance's directory is made on first use, directly below the root."""
    DirectoryTarget(tmp_path / "instances").open(Destination("local", project, "c1", "/f"), "push").close()
    assert len(list((tmp_path / "instances").iterdir())) == 1


def test_directory_takes_files_where_no_owner_may_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that forbids the call altogether is no hindrance, unless the upload names an owner."""
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchown", refuse)
    file = instance_directory(destination := Destination("local", "default", "c1", "/d/f"))
    delivery = Delivery(
        task_id="t1", destination=destination, size=1, sha256=hashlib.sha256(b"x").hexdigest(), mode=None, uid=None, gid=None,
        default_mode=0o644, default_uid=0, default_gid=0, mkdirs=True, dir_mode=0o755, symlinks="follow", replace_group="keep", verify="size",
        stopped="push")
    with contextlib.closing(DirectoryTarget(tmp_path).open(destination, "push")) as session:
        session.deliver(delivery, io.BytesIO(b"x"), lambda: None)
        assert (tmp_path / file / "d/f").read_bytes() == b"x"
        with pytest.raises(Undelivered) as caught:
            session.deliver(replace(delivery, uid=1), io.BytesIO(b"x"), lambda: None)
    assert caught.value.code == "permission_denied"


def test_directory_that_cannot_be_made_is_its_own_error(tmp_path: Path) -> None:
    """A root that is a file is reported, not raised as the system's error."""
    (tmp_path / "instances").touch()
    with pytest.raises(Undelivered) as caught:
        DirectoryTarget(tmp_path / "instances").open(Destination("local", "default", "c1", "/f"), "push")
    assert caught.value.code == "parent_not_directory"


def test_socket_path_that_is_too_long_cannot_be_reached(tmp_path: Path) -> None:
    """A path that no socket can have is an Incus that is away, with a code."""
    target = IncusTarget("local", Remote(endpoint=f"{tmp_path}/{'x' * 200}"))
    with pytest.raises(Undelivered) as caught:
        target.probe()
    assert caught.value.code == "incus_unreachable"


def test_socket_that_lets_nobody_in_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket whose group we are not in is told apart from one that is not there."""
    def refuse(self: socket.socket, address: str) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(Undelivered) as caught:
        IncusTarget("local", Remote(endpoint=str(tmp_path / "s"))).probe()
    assert caught.value.code == "incus_refused"


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhtml",
    b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-x\r\n", b"",
])
def test_server_that_is_no_incus_has_a_code(tmp_path: Path, answer: bytes) -> None:
    """Whatever answers in place of Incus, the probe ends with Incus being away."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        stack.enter_context(answering(listener, answer))
        target = IncusTarget("local", Remote(endpoint=str(tmp_path / "s")))
        with pytest.raises(Undelivered) as caught:
            target.probe()
    assert caught.value.code == "incus_unreachable"


@pytest.mark.parametrize(("answer", "code"), [
    (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: sftp\r\n\r\n", "connection_lost"),
    (b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 28\r\n\r\n" b'{"error": "forkfile exited"}', "incus_error"),
])
def test_files_are_not_written_in_place_where_sftp_only_failed(tmp_path: Path, answer: bytes, code: str) -> None:
    """A connection that ends, or an error, at the wrong moment does not lead to the files API: SFTP is tried again later."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        asked = stack.enter_context(answering(listener, answer))
        with pytest.raises(Undelivered) as caught:
            IncusTarget("local", Remote(endpoint=str(tmp_path / "s"))).open(Destination("local", "default", "c1", "/f"), "push")
    assert caught.value.code == code
    assert [request.split()[1] for request in asked] == [b"/1.0/instances/c1/sftp?project=default"]


@contextlib.contextmanager
def answering(listener: socket.socket, answer: bytes) -> Iterator[list[bytes]]:
    """Give every request on `listener` the same answer; yield the requests."""
    requests: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = listener.accept()
                with caller:
                    if request := caller.recv(65536):
                        requests.append(request)
                        caller.sendall(answer)

    server = threading.Thread(target=serve)
    server.start()
    yield requests
    listener.shutdown(socket.SHUT_RDWR)
    server.join()
