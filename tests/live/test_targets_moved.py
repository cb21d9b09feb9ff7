"""An instance that is moved while files are delivered to it has all that counts as delivered."""

import contextlib
import io
import itertools

import pytest

from daemon.errors import Undelivered
from tests.live.host import Host
from tests.live.world import World, incus_world

pytestmark = pytest.mark.live
#: So much is there to be copied that deliveries fall into the middle of it.
FILLING_BYTES = 48 * 2**20


def deliver(world: World, name: str) -> str:
    """Deliver an empty file; return why it does not count as delivered, nothing if it does."""
    try:
        with contextlib.closing(world.open()) as session:
            session.deliver(world.delivery(f"{world.home}/{name}", b""), io.BytesIO(), lambda: None)
            session.confirm()
    except Undelivered as error:
        return error.code
    return ""


@pytest.mark.parametrize("way", ["sftp", "files_api"])
def test_file_that_counts_as_delivered_while_its_instance_was_moved_is_there_afterwards(incus: Host, way: str) -> None:
    """What is written after its directory was copied is lost without an error, so it must not count."""
    with incus.pool() as pool, incus.container(running=False) as container:
        world = incus_world(way, incus, container)
        world.make_directory(world.home)
        world.make_file("/filling", bytes(FILLING_BYTES))
        assert deliver(world, "before") == ""
        goes_on = container.move(pool)
        ends = {}
        for number in itertools.count():
            ends[str(number)] = deliver(world, str(number))
            if not goes_on():
                break
        assert deliver(world, "after") == ""
        there = incus.directory / f"storage-pools/{pool}/containers/{container.name}/rootfs{world.home}"
        assert {"before", "after", *(name for name, code in ends.items() if not code)} <= {file.name for file in there.iterdir()}
        assert set(ends.values()) & {"instance_busy", "instance_changed"}
