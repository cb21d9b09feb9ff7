"""`incus-courier explain` beside a real Incus, while things break and are mended."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.model.task import State
from tests.live.host import Container, Host
from tests.live.proxy import Proxy
from tests.support.bodies import body
from tests.support.command import incus_courier
from tests.support.service import Service, Settings
from tests.support.waiting import eventually

pytestmark = [pytest.mark.live, pytest.mark.full]

MIB = 2**20


@pytest.fixture
def container(incus: Host) -> Iterator[Container]:
    """A running container that is this test's alone."""
    with incus.container() as made:
        yield made


@pytest.fixture
def proxy_path(tmp_path: Path) -> Path:
    """Where the service thinks that Incus is."""
    return tmp_path / "incus.socket"


@pytest.fixture
def service(tmp_path: Path, proxy_path: Path) -> Iterator[Service]:
    """A service whose Incus is behind a proxy, and which waits for instances that are stopped; not started yet."""
    settings: Settings = {"target": {"kind": "incus"}, "incus": {"endpoint": str(proxy_path), "timeout_s": 3},
                "delivery": {"stopped": "wait", "drain_s": 1}}
    with Service(tmp_path, settings) as made:
        yield made
        assert not made.mistakes()


@contextlib.contextmanager
def incus_at(path: Path, incus: Host, stall_after: int | None = None) -> Iterator[None]:
    """Incus answers at `path`, and lets so many bytes through; afterwards it refuses connections there."""
    path.unlink(missing_ok=True)
    with Proxy(path, incus.socket, False, stall_after, None):
        yield


def upload(service: Service, instance: str, path: str, size: int = 1000) -> str:
    """Upload; return the task's id."""
    answer = service.client.put(instance, path, body(hash(path), size))
    assert answer is not None
    assert answer.status == 202
    return answer.task_id


def explained(service: Service, what: str) -> tuple[int, dict[str, Any]]:
    """The exit status, and what the command said."""
    done = incus_courier("--config", str(service.config), "explain", what, "--json")
    [found] = done.json
    return done.code, found


def until(service: Service, what: str, condition: Callable[[dict[str, Any]], object]) -> tuple[int, dict[str, Any]]:
    """The explanation once it is as the condition says."""
    def look() -> tuple[int, dict[str, Any]] | None:
        code, found = explained(service, what)
        return (code, found) if condition(found) else None

    return eventually(look, what="the explanation") or (-1, {})


def says(code: str) -> Callable[[dict[str, Any]], bool]:
    """True for an explanation by that error."""
    return lambda found: (found["error"] or {}).get("code") == code


def test_explanations_follow_what_breaks_and_is_mended(
    service: Service, incus: Host, container: Container, proxy_path: Path,
) -> None:
    """Incus away, an instance that is stopped, or not there, a worker that is killed: then all is delivered."""
    service.start()
    task = upload(service, container.name, "/root/first")
    code, found = until(service, task, says("incus_unreachable"))
    assert (code, found["summary"]) == (1, "The remote local is away. Incus does not answer.")
    with incus_at(proxy_path, incus):
        code, found = until(service, task, lambda found: not found["stuck"] and found["summary"] == "It is in the instance.")
        assert code == 0
        container.stop()
        second = upload(service, container.name, "/root/second")
        code, found = until(service, second, says("instance_stopped"))
        assert (code, found["error"]["hint"][:9]) == (1, "Start it;")
        code, found = explained(service, container.name)
        assert (code, found["waiting"], found["error"]["code"]) == (1, 1, "instance_stopped")
        assert found["next_try_at"] is not None
        container.start()
        assert until(service, second, lambda found: found["summary"] == "It is in the instance.")[0] == 0
        assert explained(service, container.name)[0] == 0
        missing = upload(service, "not-there", "/root/x")
        code, found = until(service, missing, says("instance_not_found"))
        assert (code, "The instance not-there takes nothing now." in found["summary"]) == (1, True)
        service.kill("worker-0")
        code, found = explained(service, missing)
        assert (code, found["error"]["code"]) == (1, "no_worker")


def test_progress_of_a_large_file_is_told_while_its_push_stands_still(
    service: Service, incus: Host, container: Container, proxy_path: Path,
) -> None:
    """How much went through is seen from outside; once it is given up for now, why, and until when."""
    with incus_at(proxy_path, incus, stall_after=8 * MIB):
        service.start()
        task = upload(service, container.name, "/root/large", 64 * MIB)
        code, found = until(service, task, lambda found: any(file["sent_bytes"] for file in found["pushing"]))
        [file] = found["pushing"]
        assert (code, found["summary"], file["task_id"]) == (0, "It is being pushed now.", task)
        assert 0 < file["sent_bytes"] < file["size_bytes"] == 64 * MIB
        code, found = until(service, container.name, lambda found: found["stuck"])
        assert found["error"]["code"] in {"stalled", "connection_lost", "incus_unreachable"}
    assert all(each.state is not State.FAILED for each in service.tasks())
