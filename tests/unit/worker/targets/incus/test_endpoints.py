"""Which of several endpoints of one Incus is used."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from daemon.config import Remote
from daemon.errors import Undelivered
from worker.targets.incus.endpoints import Endpoints

FAR = "https://192.0.2.1:8443"


@pytest.fixture
def sockets(tmp_path: Path) -> Iterator[list[str]]:
    """Three sockets that take connections; one that is removed takes none."""
    with ExitStack() as stack:
        paths = [str(tmp_path / name) for name in ("m1", "m2", "m3")]
        for path in paths:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(path)
            listener.listen()
        yield paths


def test_first_endpoint_is_used_as_long_as_it_takes_connections(sockets: list[str]) -> None:
    """However often it is asked for."""
    endpoints = Endpoints("local", Remote(endpoint=tuple(sockets)))
    assert [endpoints.choose(1.0) for _ in range(3)] == [sockets[0]] * 3


def test_next_endpoint_is_used_when_a_socket_takes_no_connection_and_kept_afterwards(sockets: list[str]) -> None:
    """That the first is back is no reason to go back to it."""
    endpoints = Endpoints("local", Remote(endpoint=tuple(sockets)))
    Path(sockets[0]).rename(f"{sockets[0]}.away")
    assert endpoints.choose(1.0) == sockets[1]
    Path(f"{sockets[0]}.away").rename(sockets[0])
    assert endpoints.choose(1.0) == sockets[1]


def test_endpoint_that_failed_is_left_once_however_many_found_that_out(sockets: list[str]) -> None:
    """Who used it before it was left does not put off the next one."""
    endpoints = Endpoints("local", Remote(endpoint=tuple(sockets)))
    for _ in range(5):
        endpoints.leave(sockets[0])
    assert endpoints.choose(1.0) == sockets[1]
    endpoints.leave(sockets[1])
    endpoints.leave(sockets[2])
    assert endpoints.choose(1.0) == sockets[0]


def test_address_is_taken_without_a_try(sockets: list[str]) -> None:
    """It takes a while to find out, and the request does."""
    Path(sockets[0]).unlink()
    endpoints = Endpoints("local", Remote(endpoint=(sockets[0], FAR)))
    assert endpoints.choose(1.0) == FAR


def test_only_endpoint_is_never_left(sockets: list[str]) -> None:
    """There is nothing else to try."""
    for only in (sockets[0], FAR):
        endpoints = Endpoints("local", Remote(endpoint=only))
        endpoints.leave(only)
        assert endpoints.choose(1.0) == only


def test_first_failure_is_told_when_no_endpoint_takes_connections(tmp_path: Path) -> None:
    """As it was when there was only one."""
    endpoints = Endpoints("local", Remote(endpoint=(str(tmp_path / "m1"), str(tmp_path / "m2"))))
    with pytest.raises(Undelivered) as failed:
        endpoints.choose(1.0)
    assert (failed.value.code, "m1" in failed.value.detail) == ("incus_unreachable", True)
