"""After a boot of the machine: what was delivered just before may not have reached the disk, and is looked at again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.task_queue.sqlite.doctor import SqliteDoctor
from tests.support.processes import Forked, end
from tests.support.service import Service
from tests.support.waiting import eventually


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service that runs."""
    with Service(tmp_path) as made:
        yield made.start()


def deliver_without_barrier(service: Service, path: str, data: bytes) -> str:
    """Upload, wait for the delivery, and end the machine before its barrier; return the task's id."""
    worker = service.processes["worker-0"]
    assert isinstance(worker, Forked)
    worker.arm("barrier.sync=EIO")
    answer = service.client.put("c1", path, data)
    assert answer is not None
    eventually(lambda: service.client.task(answer.task_id)["state"] == "delivered")
    return answer.task_id


def boot(service: Service) -> None:
    """End every process and start the service as after a boot of the machine."""
    service.kill()
    with SqliteDoctor(service.layout, 0) as queue:
        queue.remember("boot_id", "the boot before")
    service.start()
    service.wait_quiet()


def test_delivery_is_pushed_again_after_a_boot_when_it_did_not_reach_the_disk(service: Service) -> None:
    """The instance has an empty file, as after a power cut; the spooled bytes replace it."""
    deliver_without_barrier(service, "/x", b"the bytes")
    (service.layout.instances / "c1/x").write_bytes(b"")
    boot(service)
    assert service.delivered("c1", "/x") == b"the bytes"


def test_delivery_is_left_alone_after_a_boot_when_it_is_whole(service: Service) -> None:
    """What did reach the disk is compared, not written once more."""
    deliver_without_barrier(service, "/x", b"the bytes")
    inode = (service.layout.instances / "c1/x").stat().st_ino
    boot(service)
    assert (service.layout.instances / "c1/x").stat().st_ino == inode
    assert service.events("push.delivered")[-1]["unchanged"]


def test_older_delivery_is_not_brought_back_by_a_boot_when_a_newer_one_followed(service: Service) -> None:
    """Two deliveries to one path without a barrier: only the newer is looked at again."""
    deliver_without_barrier(service, "/x", b"older")
    deliver_without_barrier(service, "/x", b"newer")
    (service.layout.instances / "c1/x").unlink()
    boot(service)
    assert service.delivered("c1", "/x") == b"newer"


def test_delivery_stays_delivered_after_a_boot_when_its_bytes_went_before_its_row_said_so(service: Service) -> None:
    """Bytes go only after the barrier, so a delivery without bytes is on the disk, and no dead letter."""
    worker = service.processes["worker-0"]
    assert isinstance(worker, Forked)
    worker.arm("queue.unspool=kill")
    answer = service.client.put("c1", "/x", b"the bytes")
    assert answer is not None
    eventually(lambda: worker.status() is not None)
    end(worker)
    boot(service)
    assert service.client.task(answer.task_id)["state"] == "delivered"
    assert service.delivered("c1", "/x") == b"the bytes"
