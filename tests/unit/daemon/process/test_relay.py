"""What the service manager hears of a service of several processes."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from daemon.process.relay import Relay, environment, new_line, watchdog_s
from tests.support.waiting import PATIENCE_S

#: A process that tells its manager each line that it is given, and says so.
SPEAKER = """
import os, socket, sys
speaker = socket.socket(fileno=int(os.environ["INCUS_COURIER_NOTIFY_FD"]))
for line in sys.stdin:
    speaker.send(line.strip().replace("|", "\\n").encode())
    print("said", flush=True)
"""


class Speaker:
    """One process."""

    def __init__(self, relay: Relay) -> None:
        upper, lower = new_line()
        with lower:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SPEAKER], env={**os.environ, **environment(lower)}, pass_fds=[lower.fileno()],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        relay.begun(self.pid, upper)

    def say(self, message: str) -> None:
        """Tell the manager, and come back when that is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{message}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "said\n"

    def __enter__(self) -> "Speaker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=PATIENCE_S)


class Manager:
    """The service manager's end."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener

    def heard(self) -> list[str]:
        """What it heard, but for the watchdog's pings."""
        messages = []
        try:
            while True:
                messages.append(self._listener.recv(4096).decode())
        except BlockingIOError:
            return [message for message in messages if message != "WATCHDOG=1"]


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """A service manager that listens to this process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield Manager(listener)


@pytest.fixture
def relay(manager: Manager) -> Iterator[Relay]:
    """What speaks for two children."""
    made = Relay.if_managed(2)
    assert made is not None
    yield made
    made.close()


@pytest.fixture
def start(relay: Relay) -> Iterator[Callable[[], Speaker]]:
    """Start children."""
    with ExitStack() as stack:
        def start_one() -> Speaker:
            return stack.enter_context(Speaker(relay))

        yield start_one


def test_nobody_is_spoken_to_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal there is no service manager."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert Relay.if_managed(2) is None


def test_service_is_ready_once_all_of_its_children_are(
    manager: Manager, relay: Relay, start: Callable[[], Speaker],
) -> None:
    """It is said once: a child that is started again later changes nothing."""
    first, second = start(), start()
    first.say("READY=1")
    relay.turn(0.0)
    assert manager.heard() == []
    second.say("READY=1")
    relay.turn(0.0)
    assert manager.heard() == ["READY=1"]
    relay.ended(second.pid)
    start().say("READY=1")
    relay.turn(0.0)
    assert manager.heard() == []


def test_time_for_the_start_is_asked_for_as_the_children_ask(
    manager: Manager, relay: Relay, start: Callable[[], Speaker],
) -> None:
    """As long as the service is not ready."""
    start().say("EXTEND_TIMEOUT_USEC=60000000")
    relay.turn(0.0)
    assert manager.heard() == ["EXTEND_TIMEOUT_USEC=60000000"]


def test_reload_ends_when_each_child_has_ended_its_own(
    manager: Manager, relay: Relay, start: Callable[[], Speaker],
) -> None:
    """One that died meanwhile reads the new configuration at its start, and is not waited for."""
    first, second = start(), start()
    for child in (first, second):
        child.say("READY=1")
    relay.turn(0.0)
    manager.heard()
    relay.reload()
    assert [message.split("\n")[0] for message in manager.heard()] == ["RELOADING=1"]
    first.say("RELOADING=1|MONOTONIC_USEC=1")
    first.say("READY=1")
    relay.turn(0.0)
    assert manager.heard() == []
    relay.ended(second.pid)
    relay.turn(0.0)
    assert manager.heard() == ["READY=1"]


def test_status_is_that_of_all_children_and_each_sentence_once(
    manager: Manager, relay: Relay, start: Callable[[], Speaker],
) -> None:
    """Those of the API say the same of the service."""
    first, second = start(), start()
    first.say("STATUS=2 uploads running")
    second.say("STATUS=2 uploads running")
    relay.turn(0.0)
    second.say("STATUS=3 queued")
    relay.turn(0.0)
    relay.turn(0.0)
    assert manager.heard() == ["STATUS=2 uploads running", "STATUS=2 uploads running; 3 queued"]


def test_child_that_says_nothing_for_too_long_hangs(relay: Relay, start: Callable[[], Speaker]) -> None:
    """From the moment on that it was ready: before, it may wait for something."""
    quiet, lively = start(), start()
    lively.say("READY=1")
    relay.turn(0.0)
    assert relay.hung(100.0, 30.0) == [lively.pid]
    lively.say("WATCHDOG=1")
    quiet.say("READY=1")
    relay.turn(1.0)
    for second in range(2, 33):
        lively.say("WATCHDOG=1")
        relay.turn(float(second))
    assert relay.hung(32.0, 30.0) == [quiet.pid]


def test_children_that_were_suspended_with_this_process_do_not_hang(
    relay: Relay, start: Callable[[], Speaker],
) -> None:
    """Who comes back first must not take the others for hung."""
    child = start()
    child.say("READY=1")
    relay.turn(0.0)
    relay.turn(100.0)
    assert relay.hung(100.0, 30.0) == []
    assert relay.hung(131.0, 30.0) == [child.pid]


def test_child_that_is_gone_is_heard_no_more(manager: Manager, relay: Relay) -> None:
    """What it said last is heard; it hangs no more, and whoever has its number next is somebody else."""
    with Speaker(relay) as speaker:
        speaker.say("READY=1|STATUS=2 uploads running")
    relay.turn(0.0)
    assert manager.heard() == ["STATUS=2 uploads running"]
    relay.turn(0.0)
    for _ in range(2):
        relay.ended(speaker.pid)
    assert relay.lines == []
    assert relay.hung(100.0, 30.0) == []


@pytest.mark.parametrize(("told", "seconds"), [("30000000", 30.0), ("", None), ("0", None), ("soon", None)])
def test_watchdog_is_as_patient_as_the_manager(
    monkeypatch: pytest.MonkeyPatch, told: str, seconds: float | None,
) -> None:
    """Without a watchdog nothing is ended for standing still."""
    monkeypatch.setenv("WATCHDOG_USEC", told)
    assert watchdog_s() == seconds
