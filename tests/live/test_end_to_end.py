"""From an HTTP request to a file in a real instance, compared inside it."""

import hashlib
import shlex
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.live.host import Container, Host
from tests.support.bodies import body, digest, pieces
from tests.support.service import Service, Settings
from tests.support.waiting import eventually

pytestmark = pytest.mark.live

MIB = 2**20
#: A directory in the instance that no test has to make.
HOME = "/root"


@pytest.fixture(scope="module")
def service(incus: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that delivers into this machine's Incus and makes no directories unless it is told to."""
    settings: Settings = {"target": {"kind": "incus"}, "incus": {"endpoint": incus.socket}, "delivery": {"mkdirs": False}}
    with Service(tmp_path_factory.mktemp("service"), settings) as made:
        yield made.start()
        assert not made.mistakes()


@pytest.fixture(scope="module")
def stopped(incus: Host) -> Iterator[Container]:
    """A container that does not run."""
    with incus.container(running=False) as made:
        yield made


@pytest.fixture(params=["running", "stopped"])
def instance(request: pytest.FixtureRequest, container: Container, stopped: Container) -> Container:
    """A container in each of its states."""
    return container if request.param == "running" else stopped


def delivered(service: Service, task_id: str) -> bool:
    """True when the task is delivered; fails when it never will be."""
    task = service.client.task(task_id)
    assert task["state"] != "failed", task
    return bool(task["state"] == "delivered")


def _tasks(service: Service, container: Container) -> int:
    """How many tasks of the container there are."""
    answer = service.client.request("GET", f"/v1/tasks?instance={container.name}")
    assert answer is not None
    return len(answer.json["tasks"])


def upload(service: Service, container: Container, path: str, seed: int, size: int, **query: Any) -> None:
    """Upload and wait for the delivery."""
    answer = service.client.put(container.name, path, pieces(seed, size), size=size, **query)
    assert answer is not None
    assert answer.status == 202, answer.body
    assert answer.json["sha256"] == digest(seed, size)
    eventually(lambda: delivered(service, answer.task_id))


def runs(container: Container) -> bool:
    """True when the container is running."""
    return bool(container.host.call("GET", f"/instances/{container.name}?project={container.project}")["status"] == "Running")


def has(container: Container, path: str, sha256: str, attributes: str) -> bool:
    """True when the file in the instance has that digest and `MODE UID GID`; asked inside, if the instance runs."""
    if runs(container):
        quoted = shlex.quote(path)
        return container.run(f'test "$(sha256sum < {quoted})" = "{sha256}  -" &&'
                             f' test "$(stat -c "%a %u %g" {quoted})" = "{attributes}"') == 0
    file = container.rootfs / path.lstrip("/")
    found, shift = file.stat(), container.shift
    if f"{found.st_mode & 0o7777:o} {found.st_uid - shift} {found.st_gid - shift}" != attributes:
        return False
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == sha256


@pytest.mark.parametrize("size", [0, 1, MIB, 32 * MIB, pytest.param(256 * MIB, marks=pytest.mark.full)],
                         ids=["0", "1", "1MiB", "32MiB", "256MiB"])
def test_file_arrives_as_it_was_sent_when_its_size_is(service: Service, instance: Container, size: int) -> None:
    """Every byte, and the default mode and owner, in a running and in a stopped container."""
    upload(service, instance, f"{HOME}/size-{size}", size + 1, size)
    assert has(instance, f"{HOME}/size-{size}", digest(size + 1, size), "644 0 0")


@pytest.mark.parametrize("name", ["with spaces and  two", "한국어 파일.txt", "emoji 🚀🎉", "quote'\"$(x)`", "-rf *", "a" * 255,
                                  "한" * 85, "%2F", "?#&=+;"])
def test_file_arrives_under_its_name_when_that_is_unusual(service: Service, instance: Container, name: str) -> None:
    """Names are UTF-8 text without any meaning; the address spells them with percent signs."""
    upload(service, instance, f"{HOME}/{name}", len(name), 1000)
    assert has(instance, f"{HOME}/{name}", digest(len(name), 1000), "644 0 0")


@pytest.mark.parametrize("path", ["root%2Fx", "root/..%2Fx", "root/%2e%2e/x", "root/../x", "root/./x", "root//x", "root/x/",
                                  "root/%00", "root/%0a", "root/%ff", "root/" + "a" * 256])
def test_path_is_refused_when_it_could_mean_two_things(service: Service, container: Container, path: str) -> None:
    """An encoded slash, a dot segment, a control character: 400, and no task."""
    before = _tasks(service, container)
    answer = service.client.request("PUT", f"/v1/instances/{container.name}/files/{path}", b"x")
    assert answer is not None
    assert (answer.status, answer.code) == (400, "bad_path")
    assert _tasks(service, container) == before


def test_file_has_the_mode_and_owner_that_were_asked_for(service: Service, instance: Container) -> None:
    """Whether it is new or there already; what was not asked for stays as it is."""
    path = f"{HOME}/owned"
    upload(service, instance, path, 1, 100, mode="0640", uid=1000, gid=1001)
    assert has(instance, path, digest(1, 100), "640 1000 1001")
    upload(service, instance, path, 2, 100, mode="4755", gid=0)
    assert has(instance, path, digest(2, 100), "4755 1000 0")
    upload(service, instance, path, 3, 100)
    assert has(instance, path, digest(3, 100), "4755 1000 0")


def test_missing_directories_are_made_when_they_were_asked_for(service: Service, instance: Container) -> None:
    """With mkdirs the directories belong to the file's owner."""
    upload(service, instance, f"{HOME}/made/for/it", 1, 10, mkdirs="true", uid=1000, gid=1000)
    assert has(instance, f"{HOME}/made/for/it", digest(1, 10), "644 1000 1000")


def test_upload_is_a_dead_letter_when_its_directory_is_missing(service: Service, instance: Container) -> None:
    """Without mkdirs nothing is made; the bytes are kept, with the reason."""
    answer = service.client.put(instance.name, f"{HOME}/missing/x", body(1, 10))
    assert answer is not None
    eventually(lambda: service.client.task(answer.task_id)["state"] == "failed")
    assert service.client.task(answer.task_id)["error"]["code"] == "parent_not_found"
    assert f"{answer.task_id}.failed" in service.spooled()
    assert not (instance.rootfs / "root/missing").exists()


def test_old_client_is_served_as_ever(service: Service, container: Container) -> None:
    """POST /upload with names in headers, and its sentence for an answer."""
    headers = {"X-File-Path": f"{HOME}/", "X-Container-Name": container.name,
               "X-Host-Path": "/home/me/옛 파일".encode().decode("latin-1")}
    answer = service.client.request("POST", "/upload", body(5, 500), headers)
    assert answer is not None
    assert answer.status == 202
    assert answer.body.decode() == f"File '옛 파일' queued for processing on container '{container.name}'."
    eventually(lambda: delivered(service, answer.task_id))
    assert has(container, f"{HOME}/옛 파일", digest(5, 500), "644 0 0")


def test_instance_can_be_stopped_and_snapshotted_while_uploads_keep_coming(service: Service, incus: Host) -> None:
    """Incus waits until nobody is in an instance: it never waits for the end of a trickle of uploads."""
    with incus.container() as container:
        path, done = f"/instances/{container.name}/snapshots", threading.Event()

        def trickle() -> list[str]:
            tasks = []
            while not done.wait(0.1):
                answer = service.client.put(container.name, f"{HOME}/trickle", b"x")
                assert answer is not None
                tasks.append(answer.task_id)
            return tasks

        with ThreadPoolExecutor(1) as clients:
            tasks = clients.submit(trickle)
            try:
                eventually((container.rootfs / "root/trickle").exists, 30)
                # Refused after a minute.
                incus.call("POST", path, {"name": "first"})
                container.stop()
                # Incus waits too long when it begins while somebody is just coming in: it misses the newcomer.
                again = service.client.put(container.name, f"{HOME}/stopped", b"x")
                assert again is not None
                eventually(lambda: delivered(service, again.task_id))
                incus.call("POST", path, {"name": "second"})
            finally:
                done.set()
        eventually(lambda: service.client.task(tasks.result()[-1])["state"] == "delivered", 60)
