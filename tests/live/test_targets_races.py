"""Users of an instance who swap what is made in their directories: nothing but what was just made is changed."""

import contextlib
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.config import Allowed, Denied
from daemon.errors import Undelivered
from tests.live.host import Container, Host
from tests.live.racer import Racer
from tests.live.world import World, directory_world, incus_world
from tests.support.depot import an_upload
from worker.dispatch.ceiling import Ceiling
from worker.targets.attributes import Wanted
from worker.targets.incus.sftp_channel import FAILURE, SftpStatus
from worker.targets.incus.sftp_staging import Staging

USER = 1000
#: Enough for a delivery that can be deceived to be deceived: one in four was, and one in three on a mount.
DELIVERIES = 40


@pytest.fixture
def world(incus: Host, container: Container) -> World:
    """A running container."""
    made = incus_world("sftp", incus, container)
    made.make_directory(made.home)
    return made


@pytest.fixture
def seen_inside(incus: Host, container: Container) -> tuple[Callable[[str], Path], Path]:
    """Gives the path by which the container's own mounts are reached from here, and that of a process in its namespaces."""
    process = container.member.root / f"proc/{incus.call('GET', f'/instances/{container.name}/state')['pid']}"
    return lambda path: Path(f"{process}/root{path}"), process


def facts(path: Path) -> tuple[int, int, int]:
    """Mode and owner."""
    found = path.lstat()
    return found.st_mode, found.st_uid, found.st_gid


@pytest.mark.live
@pytest.mark.parametrize("mounted", [False, True])
@pytest.mark.parametrize("empty", [False, True])
def test_user_takes_over_no_directory_by_a_link(
        world: World, seen_inside: tuple[Callable[[str], Path], Path], mounted: bool, empty: bool) -> None:
    """A directory that is to be made is swapped for a link the moment it is there; on a filesystem of his own, too."""
    inside, process = seen_inside
    own, victim = f"{world.home}/own", f"{world.home}/victim"
    world.make_directory(own)
    world.make_directory(victim, 0o755 if empty else 0o750)
    if not empty:
        world.make_file(f"{victim}/f", b"old")
    world.give(own, USER, 0o755)
    if mounted:
        assert world.run(f"mount -t tmpfs -o uid={USER},gid={USER},mode=755 tmpfs {own}") == 0
    try:
        before = facts(world.host_path(victim))
        with Racer(inside(own), "made", USER, victim, process) as racer, contextlib.closing(world.open()) as session:
            for _ in range(DELIVERIES):
                # What is put into a directory of root's and taken out again makes it look new for the rest of the second.
                os.utime(world.host_path(victim), (0, 0))
                racer.ready()
                delivery = world.delivery(f"{own}/made/f", b"x", mkdirs=True, uid=USER, gid=USER, mode=0o600)
                with contextlib.suppress(Undelivered):
                    session.deliver(delivery, io.BytesIO(b"x"), lambda: None)
                assert facts(world.host_path(victim)) == before
    finally:
        if mounted:
            world.run(f"umount {own}")
    assert world.names(world.home) == ["own", "victim"]


@pytest.mark.live
def test_user_leads_no_delivery_out_of_its_bounds(
        world: World, seen_inside: tuple[Callable[[str], Path], Path]) -> None:
    """A directory on the way is swapped for a link without a pause: no byte ends where that leads."""
    inside, process = seen_inside
    own, victim = f"{world.home}/own", f"{world.home}/victim"
    world.make_directory(own)
    world.make_directory(victim)
    world.give(own, USER, 0o755)
    rule = Ceiling(Allowed(paths=[f"{own}/**"]), Denied()).path_rule(an_upload("/x", b""))
    with Racer(inside(own), "made", USER, victim, process) as racer, contextlib.closing(world.open()) as session:
        for number in range(DELIVERIES):
            racer.ready()
            world.make_directory(f"{own}/{number}")
            world.give(f"{own}/{number}", USER, 0o755)
            world.host_path(f"{own}/{number}").rename(world.host_path(f"{own}/made"))
            delivery = world.delivery(f"{own}/made/f", b"x", path_rule=rule)
            with contextlib.suppress(Undelivered):
                session.deliver(delivery, io.BytesIO(b"x"), lambda: None)
    assert {world.facts(f"{victim}/{name}").data for name in world.names(victim)} <= {b""}


@pytest.mark.live
@pytest.mark.parametrize("words", ["file exists", "directory not empty"])
def test_directory_that_another_has_made_meanwhile_is_used(
        world: World, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """The server looks whether it is there, and then the kernel does: by then there may be something in it."""
    directories, made = Staging.directories, f"{world.home}/made"

    async def after_another(staging: Staging, paths: list[bytes], want: Wanted) -> None:
        if world.names(world.home):
            await directories(staging, paths, want)
            return
        world.make_directory(made)
        world.make_file(f"{made}/other", b"old")
        raise SftpStatus(FAILURE, f"rename {made}.new {made}: {words}")

    monkeypatch.setattr(Staging, "directories", after_another)
    world.deliver(f"{made}/d/f", b"x", mkdirs=True)
    assert world.facts(f"{made}/d/f").data == b"x"
    assert world.names(made) == ["d", "other"]


@pytest.mark.parametrize("mode", [0o700, 0o750])
def test_directory_that_is_swapped_for_another_stays_as_it_is(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    """In a directory of this machine, too: only what was made apart, where nobody else can enter, is changed."""
    world = directory_world(tmp_path)
    world.make_directory(f"{world.home}/victim", mode)
    world.make_file(f"{world.home}/victim/f", b"old")
    victim = world.host_path(f"{world.home}/victim").stat().st_ino
    make = os.mkdir

    def swap(name: bytes, mode: int, dir_fd: int) -> None:
        make(name, mode, dir_fd=dir_fd)
        if os.path.samestat(os.fstat(dir_fd), world.host_path(world.home).stat()):
            os.rename(name, "aside", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
            os.rename("victim", name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    with contextlib.closing(world.open()) as session:
        monkeypatch.setattr(os, "mkdir", swap)
        delivery = world.delivery(f"{world.home}/made/f", b"x", mkdirs=True, dir_mode=0o755)
        with pytest.raises(Undelivered):
            session.deliver(delivery, io.BytesIO(b"x"), lambda: None)
        assert session.left_part
    (there,) = {path.stat().st_mode for path in world.host_path(world.home).iterdir() if path.stat().st_ino == victim}
    assert stat.S_IMODE(there) == mode


@pytest.mark.live
@pytest.mark.parametrize("mounted", [False, True])
def test_directories_are_made_where_a_user_owns_the_one_above(
        world: World, seen_inside: tuple[Callable[[str], Path], Path], mounted: bool) -> None:
    """Also where nothing can be moved to from a place that only root can change."""
    inside, _ = seen_inside
    own = f"{world.home}/own"
    world.make_directory(own)
    world.give(own, USER, 0o755)
    if mounted:
        assert world.run(f"mount -t tmpfs -o uid={USER},gid={USER},mode=755 tmpfs {own}") == 0
    try:
        world.deliver(f"{own}/a/b/f", b"x", mkdirs=True, uid=USER, gid=USER, mode=0o600, dir_mode=0o710)
        for made in ("a", "a/b"):
            assert stat.S_IMODE(inside(f"{own}/{made}").stat().st_mode) == 0o710
            assert inside(f"{own}/{made}").stat().st_uid == inside(own).stat().st_uid
        assert inside(f"{own}/a/b/f").read_bytes() == b"x"
        assert os.listdir(inside(own)) == ["a"]
    finally:
        if mounted:
            world.run(f"umount {own}")
    assert world.names(world.home) == ["own"]


@pytest.mark.live
def test_directories_are_made_below_a_read_only_filesystem(
        world: World, seen_inside: tuple[Callable[[str], Path], Path]) -> None:
    """Where the only place that no user can change takes nothing, a volume of his takes what it can."""
    inside, _ = seen_inside
    below = f"{world.home}/below"
    world.make_directory(below)
    assert world.run(f"mount -t tmpfs -o mode=755 tmpfs {below} && mkdir {below}/own && "
                     f"mount -t tmpfs -o uid={USER},gid={USER},mode=755 tmpfs {below}/own && mount -o remount,ro {below}") == 0
    try:
        world.deliver(f"{below}/own/a/f", b"x", mkdirs=True, uid=USER, gid=USER, mode=0o600)
        assert inside(f"{below}/own/a/f").read_bytes() == b"x"
        assert os.listdir(inside(f"{below}/own")) == ["a"]
    finally:
        world.run(f"umount {below}/own; umount {below}")


@pytest.mark.live
def test_links_of_root_on_the_way_are_no_obstacle(world: World) -> None:
    """Where a directory is made apart first is looked for behind them."""
    world.make_directory(f"{world.home}/real/own")
    world.give(f"{world.home}/real/own", USER, 0o755)
    world.make_link(f"{world.home}/absolute", f"{world.home}/relative")
    world.make_link(f"{world.home}/relative", "./real")
    world.deliver(f"{world.home}/absolute/own/a/f", b"x", mkdirs=True, uid=USER, gid=USER)
    assert world.facts(f"{world.home}/real/own/a/f").data == b"x"
    assert world.names(f"{world.home}/real") == ["own"]
