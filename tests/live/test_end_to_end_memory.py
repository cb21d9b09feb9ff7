"""Memory stays bounded, however large the files are and however many come at once."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.live.host import Container, Host
from tests.support.bodies import pieces
from tests.support.processes import Spawned
from tests.support.service import Service
from tests.support.waiting import eventually

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]

MIB = 2**20
#: The most that a process may ever have had in memory.
LIMIT_BYTES = 100 * MIB


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory whose gigabytes do not outlive the test."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had so far."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


#: Several times the limit, in all; more of it takes longer and is no other proof.
@pytest.mark.parametrize("size", [64 * MIB, pytest.param(256 * MIB, marks=pytest.mark.full)])
def test_api_stays_small_while_eight_clients_upload_large_files(directory: Path, size: int) -> None:
    """All of it passes through in pieces."""
    with Service(directory, launch=Spawned) as service:
        service.start()
        with ThreadPoolExecutor(8) as clients:
            uploads = [clients.submit(service.client.put, f"c{n}", "/x", pieces(n, size), size=size)
                       for n in range(8)]
        answers = [upload.result() for upload in uploads]
        assert [answer and answer.status for answer in answers] == [202] * 8
        assert peak_bytes(service.processes["api"].pid) < LIMIT_BYTES
        service.wait_quiet(300)
        assert peak_bytes(service.processes["worker-0"].pid) < LIMIT_BYTES


@pytest.mark.parametrize(("kind", "size"), [
    ("incus", 256 * MIB), *(pytest.param(kind, 1024 * MIB, marks=pytest.mark.full) for kind in ("incus", "directory"))])
def test_worker_stays_small_while_it_pushes_a_large_file(
    directory: Path, incus: Host, container: Container, kind: str, size: int,
) -> None:
    """One that is larger than it may be itself, into a real instance and into a directory."""
    with Service(directory, {"target": {"kind": kind}, "incus": {"endpoint": incus.socket}}, Spawned) as service:
        service.start()
        answer = service.client.put(container.name, "/root/large", pieces(1, size), size=size)
        assert answer is not None
        assert answer.status == 202
        eventually(lambda: service.client.task(answer.task_id)["state"] == "delivered", 300)
        assert peak_bytes(service.processes["worker-0"].pid) < LIMIT_BYTES
        assert peak_bytes(service.processes["api"].pid) < LIMIT_BYTES
        service.wait_quiet()
    (container.rootfs / "root/large").unlink(missing_ok=True)
