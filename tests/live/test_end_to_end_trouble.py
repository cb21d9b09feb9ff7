"""Trouble around a real Incus: processes die, Incus is away, the service is told to stop. Nothing is lost by it."""

import contextlib
import hashlib
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from daemon.config import Remote
from daemon.model.upload import Destination
from daemon.task_queue import Command
from daemon.task_queue.sqlite.doctor import SqliteDoctor
from tests.live.host import Container, Host
from tests.live.proxy import Proxy
from tests.support.bodies import body, digest
from tests.support.service import Service, Settings
from tests.support.waiting import PATIENCE_S, eventually
from worker.targets.incus.target import IncusTarget

pytestmark = pytest.mark.live

#: How soon deliveries go on when Incus is back, besides what the machine needs for them anyhow.
RESUMED_S = 2.0
#: A busy machine may take longer, but not each of so many times.
OUTAGES = 5


@pytest.fixture
def proxy_path(tmp_path: Path) -> Path:
    """Where the service thinks that Incus is."""
    return tmp_path / "incus.socket"


@pytest.fixture
def service(tmp_path: Path, proxy_path: Path) -> Iterator[Service]:
    """A service whose Incus is behind a proxy that the test opens and closes; not started yet."""
    settings: Settings = {"target": {"kind": "incus"}, "incus": {"endpoint": str(proxy_path)}, "queue": {"shards": 2},
                "delivery": {"drain_s": 1, "keep_s": 1}, "api": {"drain_s": 60}}
    with Service(tmp_path, settings) as made:
        yield made
        assert not made.mistakes()


@contextlib.contextmanager
def incus_at(path: Path, incus: Host, without_sftp: bool = False, stall_after: int | None = None,
             hold: bytes | None = None) -> Iterator[Proxy]:
    """Incus answers at `path`, as far as a Relay lets it; afterwards it refuses connections there."""
    path.unlink(missing_ok=True)
    with Proxy(path, incus.socket, without_sftp, stall_after, hold) as proxy:
        yield proxy


def upload(service: Service, container: Container, name: str, size: int = 1000) -> str:
    """Upload to the root's home; return the task's id."""
    answer = service.client.put(container.name, f"/root/{name}", body(hash(name), size))
    assert answer is not None
    assert answer.status == 202
    return answer.task_id


def _something_came(acknowledged: Sized, before: int, clients: Iterable["Future[None]"]) -> bool:
    """True when more than `before` uploads are acknowledged, or a client has ended."""
    return len(acknowledged) > before or any(client.done() for client in clients)


def found(container: Container, name: str) -> str | None:
    """The digest of a file in the container, or None."""
    with contextlib.suppress(FileNotFoundError):
        return hashlib.sha256((container.rootfs / "root" / name).read_bytes()).hexdigest()
    return None


def attempts(service: Service, task_id: str) -> tuple[str, int]:
    """State and counted attempts of a task."""
    task = service.client.task(task_id)
    return task["state"], task["attempts"]


@pytest.mark.timeout(900)
def test_every_acknowledged_upload_arrives_whole_when_processes_are_killed_all_the_time(
    service: Service, incus: Host, container: Container, proxy_path: Path,
) -> None:
    """The API and the workers die by SIGKILL at random moments, 20 times and until 200 uploads are acknowledged."""
    seed = random.SystemRandom().randrange(2**32)
    chance = random.Random(seed)
    numbers, sizes = itertools.count(), dict[str, int]()
    acknowledged: set[str] = set()
    enough = threading.Event()

    def client(number: int) -> None:
        sent = random.Random(seed + number)
        while not enough.is_set():
            name = f"kill-{next(numbers)}"
            sizes[name] = sent.choice((0, 1, 1000, 30_000, 300_000, 5_000_000))
            answer = service.client.put(container.name, f"/root/{name}", body(hash(name), sizes[name]))
            if answer is None:
                eventually(lambda: service.client.get("/healthz"))
            elif answer.status == 202:
                acknowledged.add(name)

    with incus_at(proxy_path, incus):
        service.start()
        with ThreadPoolExecutor(4) as clients:
            running = [clients.submit(client, number) for number in range(4)]
            kills = 0
            try:
                while (kills < 20 or len(acknowledged) < 200) and not any(future.done() for future in running):
                    before = len(acknowledged)
                    if chance.random() < 0.5:
                        # However long a start takes here, something comes of some of them.
                        eventually(partial(_something_came, acknowledged, before, running))
                    victim = chance.choice(("api", "worker-0", "worker-1"))
                    threading.Event().wait(chance.uniform(0, 0.3))
                    service.kill(victim)
                    service.begin(victim)
                    kills += 1
            finally:
                enough.set()
            for future in running:
                future.result()
        service.wait_ready()
        service.wait_quiet()
    for name, size in sizes.items():
        what = found(container, name)
        assert what == digest(hash(name), size) or (what is None and name not in acknowledged), (seed, name)
    assert not list((container.rootfs / "root").glob(".courier-*")), seed


@pytest.mark.parametrize("restart", [False, True])
def test_uploads_are_accepted_while_incus_is_away_and_delivered_when_it_is_back(
    service: Service, incus: Host, container: Container, proxy_path: Path, restart: bool,
) -> None:
    """No attempt counts while nobody answers, and deliveries go on soon after, also after a restart meanwhile."""
    service.start()
    names, downs = itertools.count(), 0

    def resumed() -> bool:
        nonlocal downs
        before = upload_some()
        eventually(lambda: len(service.events("target.down")) > downs)
        before += upload_some()
        assert {attempts(service, task_id)[1] for task_id in before} == {0}
        if restart:
            service.stop()
            service.start()
        with incus_at(proxy_path, incus):
            took_s = seconds_until_delivered(before)
            usual_s = seconds_until_delivered(upload_some() + upload_some())
            downs = len(service.events("target.down"))
        return took_s < RESUMED_S + usual_s

    def upload_some() -> list[str]:
        return [upload(service, container, f"away-{next(names)}") for _ in range(5)]

    def seconds_until_delivered(tasks: list[str]) -> float:
        began = time.monotonic()
        eventually(lambda: {attempts(service, task_id) for task_id in tasks} == {("delivered", 1)})
        return time.monotonic() - began

    assert any(resumed() for _ in range(OUTAGES))
    with incus_at(proxy_path, incus):
        service.wait_quiet()
    for name in (f"away-{n}" for n in range(next(names))):
        assert found(container, name) == digest(hash(name), 1000)


def test_connection_that_breaks_in_the_middle_of_a_push_leaves_nothing_behind(
    service: Service, incus: Host, container: Container, proxy_path: Path,
) -> None:
    """Incus goes away while 64 MiB are on their way; the whole file arrives later, and no part file stays."""
    size = 64 * 2**20
    with incus_at(proxy_path, incus, stall_after=size // 2):
        service.start()
        task_id = upload(service, container, "broken", size)
        eventually(lambda: list((container.rootfs / "root").glob(".courier-*")))
    assert service.client.task(task_id)["state"] != "delivered"
    with incus_at(proxy_path, incus):
        eventually(lambda: attempts(service, task_id)[0] == "delivered")
        service.wait_quiet()
    assert found(container, "broken") == digest(hash("broken"), size)
    assert not list((container.rootfs / "root").glob(".courier-*"))


@pytest.mark.full
@pytest.mark.timeout(600)
def test_uploads_arrive_although_incus_has_lost_its_own_file_server_of_the_instance(
    service: Service, incus: Host, container: Container, proxy_path: Path,
) -> None:
    """It loses each new one, as long as somebody asks again within seconds; many tasks that wait do not do that."""
    near = IncusTarget("local", Remote(endpoint=incus.socket))
    with incus_at(proxy_path, incus):
        service.start()
        with contextlib.closing(near.open(Destination("local", "default", container.name, "/"), "push")):
            # It ends some time after its last session, and takes with it the socket of the next one.
            container.file_server.unlink()
            tasks = [upload(service, container, f"lost-{n}") for n in range(40)]
            eventually(lambda: service.events("push.started"))
        # Incus 7.0 finds it at once.
        eventually(lambda: {attempts(service, task_id)[0] for task_id in tasks} == {"delivered"}, 5 * PATIENCE_S)
        service.wait_quiet()
    for n in range(40):
        assert found(container, f"lost-{n}") == digest(hash(f"lost-{n}"), 1000)


def cut_off(service: Service, incus: Host, container: Container, proxy_path: Path) -> str:
    """End the workers by SIGKILL in the middle of a push of 64 MiB; return its task's id. A part file is left."""
    with incus_at(proxy_path, incus, stall_after=8 * 2**20):
        service.start()
        task_id = upload(service, container, "cut", 64 * 2**20)
        part = container.rootfs / f"root/.courier-{task_id}.part"
        eventually(lambda: part.exists() and part.stat().st_size > 2**20)
        service.kill("worker-0", "worker-1")
    assert part.exists()
    return task_id


def wait_swept(service: Service, container: Container, task_id: str) -> None:
    """Wait until the part file of that task was removed."""
    eventually(lambda: [event["task_id"] for event in service.events("target.swept")] == [task_id])
    # Another task may be in the middle of its push.
    assert not (container.rootfs / f"root/.courier-{task_id}.part").exists()


def ask(service: Service, container: Container, verb: str, task_id: str) -> None:
    """A person asks for something about a task."""
    shard = Destination("local", "default", container.name, "/").shard(2)
    with SqliteDoctor(service.layout, shard) as queue:
        queue.ask([Command(verb=verb, task_id=task_id)])


def test_part_file_of_a_killed_push_is_removed_when_a_newer_upload_has_replaced_its_task(
    service: Service, incus: Host, container: Container, proxy_path: Path,
) -> None:
    """The newer upload came while the workers were down; it is delivered, and nothing of the older is left."""
    older = cut_off(service, incus, container, proxy_path)
    newer = upload(service, container, "cut", 1000)
    with incus_at(proxy_path, incus):
        service.start()
        wait_swept(service, container, older)
        eventually(lambda: attempts(service, newer) == ("delivered", 1))
        service.wait_quiet()
    assert not list((container.rootfs / "root").glob(".courier-*"))
    assert service.client.task(older)["state"] == "superseded"
    assert found(container, "cut") == digest(hash("cut"), 1000)
    (container.rootfs / "root/cut").unlink()


@pytest.mark.parametrize("verb", ["cancel", "hold"])
def test_part_file_of_a_killed_push_is_removed_when_a_person_does_not_want_it(
    service: Service, incus: Host, container: Container, proxy_path: Path, verb: str,
) -> None:
    """It is removed when Incus is back, and no attempt is counted."""
    task_id = cut_off(service, incus, container, proxy_path)
    ask(service, container, verb, task_id)
    service.start()
    eventually(lambda: service.events("target.down"))
    assert service.events("target.swept") == []
    with incus_at(proxy_path, incus):
        wait_swept(service, container, task_id)
    assert attempts(service, task_id) == ({"cancel": "cancelled", "hold": "held"}[verb], 0)
    assert found(container, "cut") is None


def test_part_file_of_a_broken_push_is_removed_when_its_task_was_cancelled_meanwhile(
    service: Service, incus: Host, container: Container, proxy_path: Path,
) -> None:
    """The connection was lost, so the part file stayed; the worker remembers it until Incus is back."""
    with incus_at(proxy_path, incus, stall_after=8 * 2**20) as proxy:
        service.start()
        task_id = upload(service, container, "cut", 64 * 2**20)
        part = container.rootfs / f"root/.courier-{task_id}.part"
        eventually(lambda: part.exists() and part.stat().st_size > 2**20)
        proxy_path.unlink()
        proxy.cut()
        eventually(lambda: attempts(service, task_id) == ("queued", 0))
    assert part.exists()
    ask(service, container, "cancel", task_id)
    eventually(lambda: attempts(service, task_id) == ("cancelled", 0))
    with incus_at(proxy_path, incus):
        wait_swept(service, container, task_id)


def test_part_file_in_an_instance_that_is_away_is_removed_when_it_is_back(
    service: Service, incus: Host, container: Container, proxy_path: Path,
) -> None:
    """With `delivery.stopped = "wait"` nothing is done in a container that does not run, sweeping included."""
    service.settings["delivery"]["stopped"] = "wait"
    service.write_config()
    task_id = cut_off(service, incus, container, proxy_path)
    container.stop()
    ask(service, container, "cancel", task_id)
    with incus_at(proxy_path, incus):
        service.start()
        eventually(lambda: "instance_stopped" in {event["code"] for event in service.events("target.down")})
        assert service.events("target.swept") == []
        assert list((container.rootfs / "root").glob(".courier-*"))
        container.start()
        wait_swept(service, container, task_id)


def test_stop_hands_back_what_is_being_pushed_and_counts_nothing(
    service: Service, incus: Host, container: Container, proxy_path: Path,
) -> None:
    """SIGTERM while every push hangs: the workers end, and after a start all is delivered at the first attempt."""
    with incus_at(proxy_path, incus) as proxy:
        service.start()
        upload(service, container, "first")
        service.wait_quiet()
        proxy.stall()
        tasks = [upload(service, container, f"stop-{n}", 1000 if n else 5_000_000) for n in range(20)]
        eventually(lambda: "pushing" in {attempts(service, task_id)[0] for task_id in tasks})
        service.stop()
    with incus_at(proxy_path, incus):
        service.start()
        eventually(lambda: {attempts(service, task_id) for task_id in tasks} == {("delivered", 1)})
        service.wait_quiet()
    for n in range(20):
        assert found(container, f"stop-{n}") == digest(hash(f"stop-{n}"), 1000 if n else 5_000_000)
    assert not list((container.rootfs / "root").glob(".courier-*"))


def test_stop_lets_pushes_and_uploads_that_run_finish(
    service: Service, incus: Host, container: Container, proxy_path: Path,
) -> None:
    """SIGTERM under load: each process ends well, nothing is refused that was begun, nothing is counted twice."""
    with incus_at(proxy_path, incus):
        service.start()
        half_sent, go_on = threading.Event(), threading.Event()

        def slowly() -> Iterator[bytes]:
            yield b"first half, "
            half_sent.set()
            go_on.wait(PATIENCE_S)
            yield b"second half"

        with ThreadPoolExecutor(1) as clients:
            slow = clients.submit(service.client.put, container.name, "/root/slow", slowly(), size=23)
            assert half_sent.wait(PATIENCE_S)
            # An API that has answered those that came later has begun with it.
            tasks = [upload(service, container, f"drain-{n}") for n in range(50)]
            for process in service.processes.values():
                process.send(signal.SIGTERM)
            eventually(lambda: service.events("api.draining"))
            go_on.set()
            answer = slow.result()
        assert answer is not None
        assert answer.status == 202
        service.stop()
        service.start()
        eventually(lambda: {attempts(service, task_id) for task_id in (*tasks, answer.task_id)} == {("delivered", 1)})
        service.wait_quiet()
    assert (container.rootfs / "root/slow").read_bytes() == b"first half, second half"


def test_rename_that_arrives_too_late_puts_no_older_file_over_a_newer(
    service: Service, incus: Host, container: Container, proxy_path: Path,
) -> None:
    """The worker has given up the connection and delivered the newer upload when the older's rename comes through."""
    service.settings = {**service.settings, "incus": {**service.settings["incus"], "timeout_s": 2}}
    service.write_config()
    with incus_at(proxy_path, incus, hold=b"posix-rename@openssh.com") as proxy:
        service.start()
        older = upload(service, container, "late", 1000)
        assert proxy.held.wait(PATIENCE_S)
        newer = upload(service, container, "late", 2000)
        eventually(lambda: service.client.task(newer)["state"] == "delivered")
        proxy.let_arrive()
        assert service.client.task(older)["state"] == "superseded"
        assert found(container, "late") == digest(hash("late"), 2000)
    assert [name for name in os.listdir(container.rootfs / "root") if name.startswith(".courier-")] == []


@pytest.mark.full
def test_rename_of_the_last_attempt_that_arrives_too_late_shows_no_half_of_the_file(
    service: Service, incus: Host, container: Container, proxy_path: Path,
) -> None:
    """It arrives while the next attempt of the same task fills its part file; that is delivered undisturbed."""
    size = 200 * 2**20
    service.settings = {**service.settings, "incus": {**service.settings["incus"], "timeout_s": 2}}
    service.write_config()

    def half_written() -> bool:
        with contextlib.suppress(FileNotFoundError):
            sizes = [part.stat().st_size for part in (container.rootfs / "root").glob(".courier-*")]
            return len(sizes) == 1 and size // 10 < sizes[0] < size // 2
        return False

    with incus_at(proxy_path, incus, hold=b"posix-rename@openssh.com") as proxy:
        service.start()
        task_id = upload(service, container, "twice", size)
        assert proxy.held.wait(PATIENCE_S)
        eventually(half_written)
        proxy.let_arrive()
        assert found(container, "twice") in {None, digest(hash("twice"), size)}
        eventually(lambda: attempts(service, task_id)[0] == "delivered")
        assert "verify_failed" not in {event["code"] for event in service.events("push.deferred")}
        service.wait_quiet()
    assert found(container, "twice") == digest(hash("twice"), size)
    assert not list((container.rootfs / "root").glob(".courier-*"))
    (container.rootfs / "root/twice").unlink()


def test_upload_to_a_path_on_a_device_waits_for_the_start_of_its_instance_and_keeps_nobody_waiting(
    service: Service, incus: Host, proxy_path: Path,
) -> None:
    """Beneath the device nobody would see it. Waiting counts no attempt; the other paths are delivered meanwhile."""
    with incus_at(proxy_path, incus), incus.volume() as volume, incus.container(running=False) as container:
        container.attach(volume={"type": "disk", "pool": "default", "source": volume, "path": "/root/volume"})
        service.start()
        hidden = upload(service, container, "volume/f")
        other = upload(service, container, "f")
        eventually(lambda: attempts(service, other) == ("delivered", 1))
        eventually(lambda: (service.client.task(hidden)["error"] or {}).get("code") == "hidden_when_stopped")
        assert attempts(service, hidden)[1] == 0
        container.start()
        eventually(lambda: attempts(service, hidden)[0] == "delivered")
        assert container.run("test -f /root/volume/f") == 0
        service.wait_quiet()


def test_file_that_another_machine_lost_before_it_was_on_its_disk_is_pushed_again(
    service: Service, incus: Host, proxy_path: Path,
) -> None:
    """An instance that sees other counters than this machine's is elsewhere; it starts anew when its machine does.

    Nor does it see this machine's uptime, which would tell that nothing was lost.
    """
    service.settings["delivery"] = {"keep_s": 3600}
    service.write_config()
    elsewhere = {"raw.lxc": "\n".join(f"lxc.mount.entry = /dev/null proc/{name} none bind 0 0" for name in ("vmstat", "uptime"))}
    with incus_at(proxy_path, incus), incus.container(config=elsewhere) as container:
        service.start()
        kept, lost = upload(service, container, "kept"), upload(service, container, "lost")
        eventually(lambda: {attempts(service, task)[0] for task in (kept, lost)} == {"delivered"})
        (container.rootfs / "root/lost").unlink()
        container.stop()
        container.start()
        eventually(lambda: found(container, "lost") == digest(hash("lost"), 1000))
        eventually(lambda: {attempts(service, task)[0] for task in (kept, lost)} == {"delivered"})
        assert found(container, "kept") == digest(hash("kept"), 1000)
        again = {event["path"]: event.get("unchanged", False) for event in service.events("push.delivered")}
        assert again == {"/root/kept": True, "/root/lost": False}


def test_upload_arrives_in_the_new_instance_when_the_old_was_deleted_before_the_delivery_counted(
    service: Service, incus: Host, proxy_path: Path,
) -> None:
    """The file had its name in the old one already; the task was not ended, so it is meant for the one that is there now."""
    with incus.container() as container:
        question = f"GET /1.0/instances/{container.name}?".encode()
        # With LXD nothing is deleted as long as somebody is in there by SFTP.
        with incus_at(proxy_path, incus, without_sftp=not incus.ends_sessions, hold=question) as proxy:
            service.start()
            task_id = upload(service, container, "f")
            assert proxy.held.wait(PATIENCE_S)
            assert found(container, "f") == digest(hash("f"), 1000)
            container.replace()
            assert found(container, "f") is None
            proxy.let_arrive()
            eventually(lambda: attempts(service, task_id)[0] == "delivered")
            assert found(container, "f") == digest(hash("f"), 1000)
            assert "instance_changed" in {event.get("code") for event in service.events("push.deferred")}
