"""The API as a process: how it starts, where it listens, and how it ends."""

import contextlib
import http.client
import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import pytest

from api.http.server import MAX_LAST_REQUESTS_S
from daemon.process.exit_status import EXIT_FAILED
from daemon.state import shard_count
from daemon.state.layout import Layout
from tests.integration.api.running import Api, wait_until
from tests.integration.api.test_limits import CONTINUE, answer
from tests.support.processes import Spawned
from tests.support.waiting import PATIENCE_S

Start = Callable[..., Api]
HEAD = b"PUT /v1/instances/c1/files/root/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
ASKING = HEAD.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")


def ended(api: Api) -> tuple[int, str]:
    """Wait for the end of the process; return its exit code and what it said besides the log."""
    return api.end(), "".join(api.other_lines)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_unsafe_address_stops_the_start(launch: Start, address: str) -> None:
    """Exit 78, and the message says why and what would be right."""
    status, said = ended(launch(api={"listen": [address]}))
    assert status == 78
    assert "root into every instance" in said
    assert "api.allow_anonymous" in said


def test_unsafe_address_is_served_when_that_is_wanted(start: Start) -> None:
    """`allow_anonymous = true` opens the door, and the log says so."""
    api = start(api={"listen": ["0.0.0.0:0"], "allow_anonymous": True})
    assert "0.0.0.0:" in api.logged("service.open_door")[0]["listen"]


@pytest.mark.parametrize(("family", "where", "code"), [
    (socket.AF_INET, ("0.0.0.0", 0), 78), (socket.AF_INET6, ("::", 0), 78),
    (socket.AF_INET, ("127.0.0.1", 0), 0), (socket.AF_INET6, ("::1", 0), 0),
])
@pytest.mark.slow
def test_socket_that_was_passed_in_is_looked_at_too(
    launch: Start, family: socket.AddressFamily, where: tuple[str, int], code: int,
) -> None:
    """What is bound decides, not what the configuration calls it."""
    with socket.socket(family) as listener:
        listener.bind(where)
        listener.listen()
        api = launch(launcher=partial(Spawned, pass_fds=(listener.fileno(),)), api={"listen": [f"fd://{listener.fileno()}"]})
        if code == 0:
            api.started()
            with socket.create_connection(listener.getsockname()[:2]) as connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert connection.recv(100).startswith(b"HTTP/1.1 200")
            assert api.stop() == 0
            # The socket is whoever passed it in's: it still takes connections.
            socket.create_connection(listener.getsockname()[:2]).close()
        else:
            assert api.end() == code


def test_descriptor_that_is_no_listening_socket_stops_the_start(launch: Start) -> None:
    """A message, and no traceback."""
    status, said = ended(launch(launcher=Spawned, api={"listen": ["fd://0"]}))
    assert "fd://0" in said
    assert status == 1


def test_address_that_is_taken_stops_the_start(api: Api, launch: Start, tmp_path: Path) -> None:
    """The message names the address; a restart may find it free."""
    (tmp_path / "other").mkdir()
    for listen in (f"127.0.0.1:{api.port}", f"unix:{api.socket_path}"):
        status, said = ended(launch(tmp_path / "other", api={"listen": [listen]}))
        assert listen in said
        assert status == 1
    assert api.put("root/a").status == 202
    assert stat.S_ISSOCK(api.socket_path.stat().st_mode)


def test_stale_socket_is_replaced(start: Start, tmp_path: Path) -> None:
    """A killed process's socket is in nobody's way."""
    first = start()
    first.stop(signal.SIGKILL)
    assert first.socket_path.exists()
    second = start()
    assert second.put("root/a").status == 202
    assert second.stop() == 0
    assert not second.socket_path.exists()


def test_file_in_place_of_the_socket_is_left_alone(launch: Start, tmp_path: Path) -> None:
    """Nothing that is not a socket is removed."""
    (tmp_path / "sock").write_text("precious")
    assert launch().end() == 1
    assert (tmp_path / "sock").read_text() == "precious"


def test_bad_configuration_is_told_in_words(launch: Start) -> None:
    """Exit 78 and the key's name."""
    status, said = ended(launch(launcher=Spawned, api={"lissten": []}))
    assert "api.lissten" in said
    assert status == 78


def read_answer(connection: socket.socket) -> http.client.HTTPResponse:
    """The next answer on a connection, read to its end."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_process_ends_at_once(start: Start, number: int) -> None:
    """Open connections on which nothing is going on do not hold it up."""
    api = start(launcher=Spawned, api={"drain_s": 60.0})
    with api.raw() as connection, api.raw() as used:
        used.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert used.recv(1000)
        connection.sendall(b"GET /he")
        assert api.stop(number) == 0
    assert [event["event"] for event in api.events][-2:] == ["api.draining", "api.stopped"]
    assert api.other_lines == []


def test_running_upload_is_finished_after_the_signal(start: Start) -> None:
    """A client that is sending gets its 202; the door is closed to others meanwhile."""
    api = start(api={"drain_s": 60.0})
    with api.raw() as connection:
        connection.sendall(ASKING)
        assert answer(connection) == CONTINUE
        connection.sendall(b"x" * 10)
        api.send(signal.SIGTERM)
        api.logged("api.draining")
        with pytest.raises(ConnectionError):
            api.put("root/b")
        connection.sendall(b"x" * 990)
        assert connection.recv(1000).startswith(b"HTTP/1.1 202")
    assert api.end() == 0
    assert len(api.spooled()) == 1


def test_request_on_an_open_connection_is_served_after_the_signal(start: Start) -> None:
    """Who was let in gets an answer, which asks to connect anew; so no upload is refused while the process changes."""

    def served() -> bool:
        api = start(api={"drain_s": 60.0})
        before = len(api.spooled())
        with api.raw() as fresh, api.raw() as used:
            used.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert not read_answer(used).will_close
            # No later than the process begins to count.
            over = time.monotonic() + MAX_LAST_REQUESTS_S
            api.send(signal.SIGTERM)
            api.logged("api.draining")
            try:
                for connection in (fresh, used):
                    connection.sendall(HEAD + b"x" * 1000)
                answers = [read_answer(connection) for connection in (fresh, used)]
            except (ConnectionError, http.client.HTTPException):
                # A process that had to wait for its turn comes too late.
                assert time.monotonic() > over
                answers = []
        assert api.end() == 0
        assert [(answer.status, answer.will_close) for answer in answers] in ([], [(202, True)] * 2)
        assert len(api.spooled()) >= before + len(answers)
        return bool(answers)

    assert any(served() for _ in range(5))


@pytest.mark.slow
@pytest.mark.parametrize("sent", [0, 10, 900])
@pytest.mark.parametrize("poured", [False, True])
def test_open_upload_does_not_outlive_the_drain(start: Start, sent: int, poured: bool) -> None:
    """After `drain_s`, and for no other reason, the process is gone, with nothing of the upload left, nor in the log."""
    api = start(api={"drain_s": 1.0, "body_timeout_s": 3600.0, "min_rate_bytes_s": 0})
    with api.raw() as connection:
        connection.sendall(ASKING.replace(b"1000", b"100000000") if poured else ASKING)
        assert answer(connection) == CONTINUE
        connection.sendall(b"x" * (sent * 1000 if poured else sent))
        assert api.stop() == 0
    assert api.spooled() == []
    assert not [event for event in api.events if event["level"] == "error"], api.events
    assert api.other_lines == []


def test_second_signal_ends_the_drain(start: Start) -> None:
    """Who is in a hurry says it twice."""
    api = start(api={"drain_s": 3600.0})
    with api.raw() as connection:
        connection.sendall(ASKING)
        assert answer(connection) == CONTINUE
        connection.sendall(b"x")
        api.send(signal.SIGTERM)
        api.logged("api.draining")
        assert api.stop() == 0


@pytest.mark.full
def test_disk_that_hangs_holds_up_nobody_for_ever(start: Start) -> None:
    """One sync never returns: no more uploads are let in, readiness says why, and the process ends when it is told to."""
    api = start(environment={"INCUS_COURIER_FAULTS": "spool.sync=hang@1"}, api={"drain_s": 1.0})
    with api.raw() as connection:
        connection.sendall(HEAD + bytes(1000))
        ready = wait_until(lambda: (reply := api.ask("GET", "/readyz")).status == 503 and "not answered" in str(
            reply.json()["reasons"]) and reply, "readiness to say so")
        assert [reason["code"] for reason in ready.json()["reasons"]].count("storage_failed") == 1
        refused = api.put("root/b")
        assert (refused.status, refused.code) == (503, "storage_failed")
        # Not well: something was still to be stored.
        assert api.stop() == EXIT_FAILED


class Manager:
    """A service manager that listens to one process."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.said: list[str] = []

    def hears(self, word: str) -> None:
        """Wait until it hears a line that begins so, from now on."""
        self.said.clear()
        while not any(line.startswith(word) for line in self.said):
            self.said.extend(self._listener.recv(4096).decode().splitlines())


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """A service manager at `notify` in the test's directory."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(PATIENCE_S)
        yield Manager(listener)


def test_process_tells_its_manager_when_it_is_ready_and_alive(start: Start, manager: Manager, tmp_path: Path) -> None:
    """READY when the doors are open, a WATCHDOG for each turn, STOPPING at the end."""
    api = start(environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
    manager.hears("READY=1")
    assert api.put("root/a").status == 202
    manager.hears("STATUS=")
    manager.hears("WATCHDOG=1")
    api.send(signal.SIGHUP)
    manager.hears("RELOADING=1")
    manager.hears("READY=1")
    api.send(signal.SIGTERM)
    manager.hears("STOPPING=1")
    assert api.end() == 0


def children(api: Api) -> list[int]:
    """The processes that serve the doors, and last the one that stores what they take."""
    return sorted(int(pid) for pid in Path(f"/proc/{api.pid}/task/{api.pid}/children").read_text().split())


@pytest.mark.slow
def test_several_processes_are_one_service_to_its_manager(start: Start, manager: Manager, tmp_path: Path) -> None:
    """Ready when all are, reloaded when all are, and ended by one signal to the first one."""
    api = start(environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}, api={"processes": 2})
    manager.hears("READY=1")
    assert len(api.logged("api.started", 2)) == 2
    assert len(children(api)) == 3
    for number in range(20):
        assert api.put(f"root/{number}").status == 202
    api.send(signal.SIGHUP)
    manager.hears("RELOADING=1")
    manager.hears("READY=1")
    assert len(api.logged("config.reloaded", 2)) == 2
    manager.hears("WATCHDOG=1")
    assert api.stop() == 0
    manager.hears("STOPPING=1")
    assert len(api.logged("api.stopped", 2)) == 2
    assert len(api.spooled()) == 20


@pytest.mark.slow
@pytest.mark.parametrize(("number", "event"), [
    (signal.SIGKILL, "service.child_died"), (signal.SIGSTOP, "service.child_hangs")])
def test_process_that_dies_or_hangs_is_replaced_and_the_others_go_on(
    start: Start, manager: Manager, tmp_path: Path, number: signal.Signals, event: str,
) -> None:
    """The service is not started again for it."""
    api = start(environment={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000000"}, api={"processes": 2})
    manager.hears("READY=1")
    api.logged("api.started", 2)
    gone, *others = children(api)
    os.kill(gone, number)
    api.logged(event)
    api.logged("api.started", 3)
    assert api.put("root/a").status == 202
    assert set(others) <= set(children(api))
    assert gone not in children(api)
    assert api.stop() == 0


def test_limits_and_level_change_without_a_restart(start: Start) -> None:
    """SIGHUP reads the configuration again; what cannot change live stays."""
    api = start()
    assert api.put("root/a", b"x" * 100).status == 202
    api.configure(api.settings, {"limits": {"max_upload_bytes": 10}, "log": {"level": "warning"},
                                 "queue": {"shards": 7}})
    api.send(signal.SIGHUP)
    wait_until(lambda: api.put("root/a", b"x" * 100).status == 413, "the new limit is in force")
    assert len(api.ask("GET", "/readyz").json()["shards"]) == 2
    assert api.put("root/quiet", b"x").status == 202
    # The log is read to its end then.
    assert api.stop() == 0
    accepted = [event["path"] for event in api.events if event["event"] == "upload.accepted"]
    assert "/root/a" in accepted
    assert "/root/quiet" not in accepted


def test_what_becomes_of_older_uploads_changes_without_a_restart(start: Start) -> None:
    """After a reload with `on_newer = "deliver-all"` a newer upload leaves the older ones of its path alone."""
    api = start()
    assert [api.put("root/a", b"1").status, api.put("root/a", b"2").status] == [202, 202]
    superseded = "/v1/tasks?state=superseded"
    assert len(api.ask("GET", superseded).json()["tasks"]) == 1
    api.configure(api.settings, {"delivery": {"on_newer": "deliver-all"}})
    api.send(signal.SIGHUP)
    api.logged("config.reloaded")
    assert [api.put("root/b", b"1").status, api.put("root/b", b"2").status] == [202, 202]
    assert len(api.ask("GET", superseded).json()["tasks"]) == 1


def test_reload_says_what_waits_for_a_restart(start: Start) -> None:
    """Who changed a key that needs a restart finds its name in the log."""
    api = start()
    api.configure(api.settings, {"queue": {"shards": 7}, "api": {"processes": 3}})
    api.send(signal.SIGHUP)
    assert api.logged("config.reloaded")[0]["restart_for"] == "api.processes, queue.shards"


def test_wrong_configuration_changes_nothing(start: Start) -> None:
    """The old one stays in force, and the log says what is wrong."""
    api = start()
    api.configure(api.settings, {"limits": {"max_upload_bytes": -1}})
    api.send(signal.SIGHUP)
    assert "limits.max_upload_bytes" in api.logged("config.rejected")[0]["detail"]
    assert api.put("root/a", b"x" * 100).status == 202


def test_process_ends_when_its_supervisor_is_gone(launch: Start) -> None:
    """A child of nobody does not start."""
    assert launch(launcher=Spawned, environment={"INCUS_COURIER_SUPERVISOR_PID": "1"}).end() == 1


def test_api_waits_until_its_number_of_shards_is_in_force(start: Start, launch: Start) -> None:
    """Nothing is put under another number of shards; the log says what is waited for."""
    first = start()
    assert first.put("root/a").status == 202
    assert first.stop() == 0
    second = launch(queue={"shards": 3})
    assert "2 shards" in second.logged("api.waiting")[0]["detail"]
    shard_count.record(Layout(second.state), shard_count.ShardCount(3))
    assert second.started().put("root/b").status == 202


@pytest.mark.slow
def test_memory_stays_bounded_while_large_bodies_come(start: Start) -> None:
    """Eight uploads of 48 MiB at once need a few MiB each at most."""
    api = start(launcher=Spawned)
    assert api.put("root/first").status == 202
    before = api.memory_bytes()
    peak = 0
    with ThreadPoolExecutor(8) as clients:
        uploads = [clients.submit(api.put, f"root/{n}", b"x" * (48 * 2**20)) for n in range(8)]
        while wait(uploads, 0.01).not_done:
            peak = max(peak, api.memory_bytes())
    assert [upload.result().status for upload in uploads] == [202] * 8
    assert peak - before < 30 * 2**20
    assert peak < 100 * 2**20


def test_files_of_the_process_are_not_inherited(start: Start) -> None:
    """Sockets and files are closed when another program is run."""
    api = start(launcher=Spawned)
    api.put("root/a")
    looked_at = 0
    for descriptor in Path(f"/proc/{api.pid}/fdinfo").iterdir():
        if int(descriptor.name) <= 2:
            continue
        # One that is closed meanwhile is no concern.
        with contextlib.suppress(FileNotFoundError):
            lines = descriptor.read_text().splitlines()
            flags = int(next(line.split()[1] for line in lines if line.startswith("flags")), 8)
            assert flags & os.O_CLOEXEC, os.readlink(f"/proc/{api.pid}/fd/{descriptor.name}")
            looked_at += 1
    assert looked_at > 10
