"""What is delivered is where people look for it, in the instance that they mean."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.live.host import Container, Host
from tests.live.test_targets_faults import code
from tests.live.ways import refused
from tests.live.world import World, incus_world

pytestmark = pytest.mark.live


@contextlib.contextmanager
def with_devices(incus: Host) -> Iterator[Container]:
    """A container that was never started, with a volume at /data/volume and a folder of its host at /srv/folder."""
    with incus.volume() as volume, incus.folder() as folder, incus.container(running=False) as container:
        container.attach(
            volume={"type": "disk", "pool": "default", "source": volume, "path": "/data/volume"},
            folder={"type": "disk", "source": folder, "path": "/srv/folder/"})
        yield container


@pytest.fixture(scope="module")
def stopped(incus: Host) -> Iterator[Container]:
    """Such a container, which nobody starts."""
    with with_devices(incus) as container:
        yield container


@pytest.fixture(params=["sftp", "files_api"])
def world(incus: Host, stopped: Container, request: pytest.FixtureRequest) -> World:
    """It, by each way to deliver, with a directory of the test's own."""
    made = incus_world(request.param, incus, stopped)
    made.make_directory(made.home)
    return made


@pytest.mark.parametrize("path", [
    "/data/volume/f", "/data/volume/d/e/f", "/data/volume", "/srv/folder/f", "/run/f", "/dev/shm/f", "/proc/f", "/sys/f"])
def test_path_that_a_start_would_hide_waits_for_the_start(world: World, path: str) -> None:
    """Nothing is written, and no directory made, beneath what is not mounted yet."""
    names = world.names("/")
    assert refused(world, path, mkdirs=True) == "hidden_when_stopped"
    assert world.names("/") == names


@pytest.mark.parametrize(("leads_to", "path"), [
    ("/data/volume", "link/f"), ("../../data", "link/volume/f"), ("/data/volume/f", "link"), ("/run", "link/f"),
    ("/etc/../srv/folder/.", "link/f")])
def test_link_that_leads_to_what_a_start_would_hide_waits_for_the_start(world: World, leads_to: str, path: str) -> None:
    """It counts where the path leads, not how it is written."""
    world.make_link(f"{world.home}/link", leads_to)
    assert refused(world, f"{world.home}/{path}", mkdirs=True) == "hidden_when_stopped"


@pytest.mark.parametrize("path", ["{home}/f", "{home}/link", "/data/volume2/f", "/data/f", "/srv/folderf"])
def test_other_path_of_a_stopped_container_does_not_wait(world: World, path: str) -> None:
    """What only looks like a mount point, is above one, or takes the place of a link to one, is delivered."""
    world.make_link(f"{world.home}/link", "/run/f")
    there = path.format(home=world.home)
    world.deliver(there, b"new", mkdirs=True, symlinks="replace")
    assert world.facts(there).data == b"new"


def test_links_that_lead_round_in_a_circle_do_not_hang(world: World) -> None:
    """They end as any such links do."""
    world.make_link(f"{world.home}/round", f"{world.home}/round/x")
    assert refused(world, f"{world.home}/round/f") == "too_many_links"


def test_part_file_below_what_is_not_mounted_is_not_looked_for(world: World) -> None:
    """It would not be found, and stay for ever."""
    with contextlib.closing(world.open()) as session:
        assert code(lambda: session.sweep(world.delivery("/data/volume/f", b"x"))) == "hidden_when_stopped"


def test_path_on_a_device_is_seen_inside_when_the_container_runs(incus: Host) -> None:
    """After the start the file is on the device, by each way to deliver."""
    with with_devices(incus) as container:
        container.start()
        # The folder belongs to nobody inside: there the files API delivers nothing.
        for way, path in (("sftp", "/data/volume/f"), ("sftp", "/srv/folder/f"), ("sftp", "/dev/f"),
                          ("files_api", "/data/volume/g"), ("files_api", "/dev/g")):
            incus_world(way, incus, container).deliver(path, b"new")
            assert container.run(f'test "$(cat {path})" = new') == 0


def test_path_on_a_device_does_not_wait_for_a_frozen_container(incus: Host) -> None:
    """Its mounts are there, and so is the file when it goes on."""
    with with_devices(incus) as container:
        container.start()
        container.set_state("freeze")
        world = incus_world("sftp", incus, container)
        world.deliver("/data/volume/f", b"new")
        container.set_state("unfreeze")
        assert container.run("test -f /data/volume/f") == 0


def interruptible(incus: Host, container: Container) -> World:
    """The container by a way that keeps nobody from stopping or deleting it: LXD waits for the end of SFTP sessions."""
    return incus_world("sftp" if incus.ends_sessions else "files_api", incus, container)


def test_delivery_does_not_count_when_another_instance_has_the_name(incus: Host) -> None:
    """What was put into the one that was deleted is to be put into the one that is there now."""
    with incus.container() as container:
        world = interruptible(incus, container)
        with contextlib.closing(world.open()) as session:
            session.confirm()
            container.replace()
            assert code(session.confirm) == "instance_changed"
        with contextlib.closing(world.open()) as session:
            session.confirm()


def test_delivery_does_not_count_when_the_instance_is_gone(incus: Host) -> None:
    """Deleted, or known by another name now."""
    with incus.container() as container:
        session = interruptible(incus, container).open()
        container.remove()
        with contextlib.closing(session):
            assert code(session.confirm) == "instance_not_found"


def test_delivery_counts_when_a_snapshot_was_restored_since(incus: Host) -> None:
    """Who restores a snapshot wants what was in it: nothing is pushed again."""
    with incus.container() as container:
        address = f"/instances/{container.name}"
        incus.call("POST", f"{address}/snapshots", {"name": "before"})
        with contextlib.closing(interruptible(incus, container).open()) as session:
            incus.call("PUT", address, {"restore": "before"})
            session.confirm()


def test_delivery_does_not_count_when_the_container_was_stopped_since(incus: Host) -> None:
    """It may have been on its way out already when the file came."""
    with incus.container() as container, contextlib.closing(interruptible(incus, container).open()) as session:
        container.stop()
        assert code(session.confirm) == "instance_changed"
