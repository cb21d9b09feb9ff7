"""A disk without room for one outcome more."""

from pathlib import Path

import pytest

from tests.support.processes import Forked
from tests.support.service import Service
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow


def test_finished_bytes_go_while_a_full_disk_takes_no_outcome(tmp_path: Path) -> None:
    """Removing them is what makes room; a worker that waited for room first would wait for ever."""
    with Service(tmp_path) as service:
        service.start()
        worker = service.processes["worker-0"]
        assert isinstance(worker, Forked)
        worker.arm("barrier.sync=EIO")
        for number in range(3):
            answer = service.client.put("c1", f"/{number}", b"x")
            assert answer is not None
        eventually(lambda: worker.fired() and service.idle())
        worker.arm("queue.settle=ENOSPC")
        assert service.client.put("c1", "/last", b"x")
        eventually(lambda: len(service.spooled()) == 1)
        worker.arm("")
        service.wait_quiet()
        assert not service.mistakes()
