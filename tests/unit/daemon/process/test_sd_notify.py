"""What the service manager hears, against a socket like its own."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.process import sd_notify
from tests.support.waiting import PATIENCE_S


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The manager's end of NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(PATIENCE_S)
        listener.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


def lines(manager: socket.socket) -> dict[str, str]:
    """The next message as its variables."""
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())


def test_states_are_told_in_the_managers_words(manager: socket.socket) -> None:
    """Each function sends the variable that systemd documents for it."""
    sd_notify.ready()
    assert lines(manager) == {"READY": "1"}
    sd_notify.watchdog()
    assert lines(manager) == {"WATCHDOG": "1"}
    sd_notify.reloading()
    reloading = lines(manager)
    assert reloading["RELOADING"] == "1"
    assert int(reloading["MONOTONIC_USEC"]) > 0


def test_stopping_asks_for_more_time_than_the_drain(manager: socket.socket) -> None:
    """The manager grants what the configuration says, whatever the unit says."""
    sd_notify.stopping(120)
    said = lines(manager)
    assert said["STOPPING"] == "1"
    assert int(said["EXTEND_TIMEOUT_USEC"]) > 120_000_000


def test_status_cannot_become_another_variable(manager: socket.socket) -> None:
    """A status is one line, whatever is in it."""
    sd_notify.status("3 waiting\nREADY=1")
    assert lines(manager) == {"STATUS": "3 waiting READY=1"}


def test_watchdog_is_dropped_when_the_manager_is_busy(manager: socket.socket) -> None:
    """A manager that does not read holds up no turn of the main loop."""
    for _ in range(10_000):
        sd_notify.watchdog()
    assert lines(manager) == {"WATCHDOG": "1"}


def test_abstract_socket_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that begins with @ is in the abstract namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(PATIENCE_S)
        listener.bind("")
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + listener.getsockname()[1:].decode())
        sd_notify.ready()
        assert lines(listener) == {"READY": "1"}


@pytest.mark.parametrize("address", ["", "/nonexistent/notify", "not-an-address"])
def test_nothing_happens_where_nobody_listens(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Outside systemd the service runs all the same."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    sd_notify.ready()
    sd_notify.watchdog()
