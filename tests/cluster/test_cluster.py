"""Uploads to the instances of a real cluster, whose members come and go, and between which instances are moved."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.cluster.cluster import MEMBERS, Cluster
from tests.live.host import Container
from tests.support.service import Service, Settings
from tests.support.waiting import eventually

pytestmark = [pytest.mark.live, pytest.mark.full]
#: A cluster notices within some twenty seconds that a member is gone, and tries within ten whether it is back.
PATIENCE_S = 120.0
FILLING_BYTES = 24 * 2**20
#: Files that a stream sends anew again and again.
PATHS = 4


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that the tests share; each leaves it whole."""
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def service(cluster: Cluster, tmp_path: Path) -> Iterator[Service]:
    """A service that speaks to m1, and to m2 when m1 does not answer."""
    settings: Settings = {
        "target": {"kind": "incus"}, "incus": {"endpoint": [cluster[member].socket for member in ("m1", "m2")]},
        "delivery": {"mkdirs": False, "keep_s": 1}, "queue": {"shards": 2}}
    with Service(tmp_path, settings) as made:
        yield made.start()
        assert not made.mistakes()


@pytest.fixture
def everywhere(cluster: Cluster) -> Iterator[dict[str, Container]]:
    """A running container on each member."""
    with contextlib.ExitStack() as stack:
        yield {member: stack.enter_context(cluster["m3"].container(location=member)) for member in MEMBERS}


def upload(service: Service, container: Container, name: str, content: bytes = b"content") -> str:
    """Upload to the root's home; return the task's id."""
    answer = service.client.put(container.name, f"/root/{name}", content)
    assert answer is not None
    assert answer.status == 202
    return answer.task_id


def is_delivered(service: Service, task_id: str) -> bool:
    """True when the task is delivered; fails when it never will be."""
    state = service.client.task(task_id)["state"]
    assert state not in {"failed", "cancelled"}
    return bool(state == "delivered")


def wait_delivered(service: Service, *task_ids: str) -> None:
    """Wait for deliveries."""
    for task_id in task_ids:
        eventually(partial(is_delivered, service, task_id), PATIENCE_S, f"the delivery of {task_id}")


def content(container: Container, name: str) -> bytes:
    """What the container has there."""
    return (container.rootfs / "root" / name).read_bytes()


@contextlib.contextmanager
def stream(service: Service, container: Container) -> Iterator[Callable[[], dict[str, bytes]]]:
    """Upload all the time; what is yielded waits for some more uploads, ends them, and tells what each file has to be."""
    sent: dict[str, bytes] = {}
    enough, over = threading.Event(), threading.Event()

    def send() -> None:
        for number in itertools.count():
            if over.is_set():
                return
            for name in (f"again-{number % PATHS}", f"once-{number}"):
                content = f"{number}\n".encode() * (1 + number % 50)
                upload(service, container, name, content)
                sent[name] = content
            over.wait(0.02)
            enough.set()

    def end() -> dict[str, bytes]:
        enough.clear()
        assert enough.wait(PATIENCE_S)
        over.set()
        sending.join()
        return sent

    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield end
    finally:
        over.set()
        sending.join()


def check(service: Service, cluster: Cluster, container: Container, sent: dict[str, bytes]) -> None:
    """See that each file is in the container as it was sent last."""
    service.wait_quiet(PATIENCE_S)
    there = Container(cluster["m1"], container.name, container.project)
    assert {name: content(there, name) for name in sent} == sent


def test_instances_of_a_member_that_is_away_wait_for_it_and_no_others_do(
        cluster: Cluster, service: Service, everywhere: dict[str, Container]) -> None:
    """As if they were stopped: no attempt counts but one over a connection from before, and they go on when it is back."""
    wait_delivered(service, *(upload(service, container, "before") for container in everywhere.values()))
    cluster.kill("m2")
    try:
        tasks = {member: upload(service, container, "meanwhile") for member, container in everywhere.items()}
        wait_delivered(service, tasks["m1"], tasks["m3"])
        eventually(lambda: (service.client.task(tasks["m2"])["error"] or {}).get("code") == "member_unreachable", PATIENCE_S)
        assert service.client.task(tasks["m2"])["attempts"] <= 1
        wait_delivered(service, upload(service, everywhere["m3"], "beside"))
    finally:
        cluster.start()
    wait_delivered(service, tasks["m2"])


def test_all_is_delivered_when_the_member_that_is_spoken_to_goes(
        cluster: Cluster, service: Service, everywhere: dict[str, Container]) -> None:
    """The next one in the configuration is spoken to from then on."""
    wait_delivered(service, upload(service, everywhere["m3"], "before"))
    cluster.kill("m1")
    try:
        wait_delivered(service, *(upload(service, everywhere[member], "meanwhile") for member in ("m2", "m3")))
        waiting = upload(service, everywhere["m1"], "meanwhile")
    finally:
        cluster.start()
    wait_delivered(service, waiting)


def test_instance_that_does_not_run_has_everything_after_it_was_moved_between_members(
        cluster: Cluster, service: Service) -> None:
    """Uploads keep coming while its files are copied and removed."""
    with cluster["m1"].container(running=False, location="m1") as container:
        (container.rootfs / "filling").write_bytes(bytes(FILLING_BYTES))
        with stream(service, container) as end:
            for member in ("m2", "m3", "m1"):
                cluster["m1"].call("POST", f"/instances/{container.name}?target={member}",
                                   {"name": container.name, "migration": True})
            sent = end()
        check(service, cluster, container, sent)


def test_instance_has_everything_after_its_member_was_evacuated_and_restored(cluster: Cluster, service: Service) -> None:
    """It is stopped, moved and started, twice, while uploads keep coming."""
    with cluster["m1"].container(location="m2") as container:
        (container.rootfs / "filling").write_bytes(bytes(FILLING_BYTES))
        with stream(service, container) as end:
            cluster.evacuate("m2", via="m1")
            cluster.restore("m2", via="m1")
            sent = end()
        check(service, cluster, container, sent)
