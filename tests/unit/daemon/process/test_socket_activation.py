"""Sockets that systemd passed in."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.process.socket_activation import stand_in, take


def test_nothing_is_taken_when_nothing_was_passed() -> None:
    """Started by hand, the process opens its own sockets."""
    assert take({}) == {}


def test_sockets_of_another_process_are_left_alone() -> None:
    """Variables that were inherited from a parent mean nothing."""
    environment = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDNAMES": "x"}
    assert take(environment) == {}
    assert environment == {}


def test_sockets_are_known_by_their_address(tmp_path: Path) -> None:
    """Descriptors from 3 on are the sockets, and are not handed on to children."""
    program = ("import os, sys; os.environ['LISTEN_PID'] = str(os.getpid())\n"
               "from daemon.process.socket_activation import take\n"
               "found = take(); print(found, [os.get_inheritable(fd) for fd in found.values()], take())")
    with socket.socket(socket.AF_UNIX) as listener, socket.create_server(("127.0.0.1", 0)) as tcp:
        listener.bind(str(tmp_path / "api.sock"))
        listener.listen()
        handed = [os.dup(listener.fileno()), os.dup(tcp.fileno())]
        script = f"exec {sys.executable} -c \"$0\" 3<&{handed[0]} 4<&{handed[1]}"
        done = subprocess.run(["bash", "-c", script, program], env={**os.environ, "LISTEN_FDS": "2"}, pass_fds=handed,
                              capture_output=True, text=True, check=True)
        for descriptor in handed:
            os.close(descriptor)
        expected = {f"unix:{tmp_path}/api.sock": 3, f"127.0.0.1:{tcp.getsockname()[1]}": 4}
    assert done.stdout.strip() == f"{expected} [False, False] {{}}"


def test_passed_socket_stands_in_for_its_address() -> None:
    """An address that was passed in is not opened again; the others are."""
    configured = ["unix:/run/incus-courier/api.sock", "127.0.0.1:8420"]
    assert stand_in(configured, {"unix:/run/incus-courier/api.sock": 3}) == ["fd://3", "127.0.0.1:8420"]


def test_every_passed_socket_is_served() -> None:
    """Whoever listens in the service's name gets an answer."""
    assert stand_in(["127.0.0.1:8420"], {"unix:/run/a.sock": 3}) == ["fd://3", "127.0.0.1:8420"]


@pytest.mark.parametrize("configured", [["tls:0.0.0.0:8443"], ["tls:fd://3"], ["tls:0.0.0.0:8443", "tls:fd://3"]])
def test_passed_socket_speaks_tls_where_the_configuration_says_so(configured: list[str]) -> None:
    """By its address or by its number; it is opened once."""
    assert stand_in([*configured, "unix:/run/a.sock"], {"0.0.0.0:8443": 3}) == ["tls:fd://3", "unix:/run/a.sock"]


def test_passed_socket_that_is_named_by_its_number_is_opened_once() -> None:
    """It is the same one."""
    assert stand_in(["fd://3"], {"127.0.0.1:8420": 3}) == ["fd://3"]
