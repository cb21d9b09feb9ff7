"""Instances that hang, beside a container that does not."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daemon.model.task import State
from tests.live.host import Container, Host
from tests.support.hanging import STEPS, Hanging, hung
from tests.support.service import Service, Settings
from tests.support.waiting import eventually

pytestmark = pytest.mark.live

#: More than all threads of a worker.
HUNG = 300


@pytest.fixture
def service(tmp_path: Path, incus: Host) -> Iterator[Service]:
    """A worker whose Incus has any number of instances that hang; not started yet."""
    settings: Settings = {"target": {"kind": "incus"}, "incus": {"endpoint": str(tmp_path / "incus.socket")},
                "remotes.silent": {"endpoint": str(tmp_path / "silent.socket")}, "delivery": {"drain_s": 1}}
    with (closing(socket.socket(socket.AF_UNIX)) as silent, Hanging(tmp_path / "incus.socket", incus.socket),
          Service(tmp_path, settings) as made):
        silent.bind(str(tmp_path / "silent.socket"))
        silent.listen(1)
        yield made
        assert not made.mistakes()


def upload(service: Service, instance: str, name: str) -> str:
    """Upload a small file; return the task's id."""
    answer = service.client.put(instance, f"/root/{name}", b"hello")
    assert answer is not None
    assert answer.status == 202
    return answer.task_id


def wait_delivered(service: Service, task_id: str) -> None:
    """Wait until a task is delivered: without threads for those that hang it takes several times as long."""
    eventually(lambda: service.client.task(task_id)["state"] == "delivered", what="the delivery")


def hang(service: Service) -> list[str]:
    """Upload into many instances that hang, equally many at each step; return the tasks' ids."""
    return [upload(service, hung(STEPS[number % len(STEPS)], number), "f") for number in range(HUNG)]


def test_container_gets_its_files_beside_instances_that_hang_at_each_step(service: Service, container: Container) -> None:
    """Whether it answered before or was never tried, and whether the others were accepted before it or since."""
    service.start()
    wait_delivered(service, upload(service, container.name, "before"))
    tasks = hang(service)
    wait_delivered(service, upload(service, container.name, "known"))
    service.kill("worker-0")
    service.start()
    wait_delivered(service, upload(service, container.name, "new"))
    found = {task.task_id: task for task in service.tasks()}
    assert {found[task_id].state for task_id in tasks} <= {State.QUEUED, State.PUSHING, State.DEFERRED}


def test_container_gets_its_files_beside_a_remote_that_takes_no_connection(
    service: Service, container: Container,
) -> None:
    """However many instances of that remote have uploads that wait."""
    service.start()
    tasks = [upload(service, f"silent:c{number}", "f") for number in range(HUNG)]
    wait_delivered(service, upload(service, container.name, "beside"))
    eventually(lambda: [event["remote"] for event in service.events("target.down")] == ["silent"])
    wait_delivered(service, upload(service, container.name, "beside"))
    found = {task.task_id: task for task in service.tasks()}
    assert {(found[task_id].state.label, found[task_id].attempts) for task_id in tasks} <= {("queued", 0), ("pushing", 0)}


def test_instance_that_was_hurried_is_tried_again_and_no_attempt_counts(service: Service) -> None:
    """Had its thread not been wanted by others, it would have had thirty seconds."""
    service.start()
    tasks = set(hang(service))
    eventually(lambda: {event["task_id"] for event in service.events("push.waiting")} & tasks)
    hurried = {event["task_id"] for event in service.events("push.waiting")} & tasks
    assert {task.attempts for task in service.tasks() if task.task_id in hurried} == {0}


def test_worker_stops_although_all_that_it_pushes_hangs(service: Service, container: Container) -> None:
    """What hangs is queued again at the next start, and a healthy container gets its file then."""
    service.start()
    hang(service)
    eventually(lambda: len(service.events("push.started")) > HUNG // 2)
    service.stop()
    service.start()
    wait_delivered(service, upload(service, container.name, "after"))
