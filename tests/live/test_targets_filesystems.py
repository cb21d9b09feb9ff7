"""What only an instance has: mounts, an id map, and users who look on."""

import contextlib
import io
import os
import stat
from pathlib import Path

import pytest

from tests.live.ways import IN_INCUS, refused
from tests.live.world import World
from worker.targets.incus.sftp_channel import Channel

MIB = 2**20


@pytest.mark.parametrize("way", IN_INCUS)
class TestFilesystems:
    """Filesystems that refuse, mounted inside the container."""

    def test_read_only_filesystem_is_its_own_error(self, world: World) -> None:
        """A mount inside the container counts, and its refusal is told apart."""
        world.make_directory(f"{world.home}/ro")
        assert world.run(f"mount -t tmpfs -o ro,mode=755 tmpfs {world.home}/ro") == 0
        try:
            assert refused(world, f"{world.home}/ro/f") == "read_only"
        finally:
            world.run(f"umount {world.home}/ro")

    @pytest.mark.parametrize("size", [200_000, 4 * MIB])
    def test_full_filesystem_is_its_own_error(self, world: World, size: int) -> None:
        """No room is told apart, whether it shows in the first write or later."""
        world.make_directory(f"{world.home}/small")
        assert world.run(f"mount -t tmpfs -o size=64k,mode=755 tmpfs {world.home}/small") == 0
        try:
            assert refused(world, f"{world.home}/small/f", os.urandom(size)) == "target_full"
            if world.way == "sftp":
                assert world.run(f"test -z \"$(ls -A {world.home}/small)\"") == 0
        finally:
            world.run(f"umount {world.home}/small")

    @pytest.mark.parametrize("option", ["ro", "nr_inodes=2"])
    def test_link_on_a_filesystem_that_takes_no_files_is_followed(self, world: World, option: str) -> None:
        """Only where the link leads to must take a file: no part file is left there, and none is missed."""
        world.make_directory(f"{world.home}/mounted")
        world.make_directory(f"{world.home}/d")
        assert world.run(f"cd {world.home} && mount -t tmpfs tmpfs mounted && ln -s {world.home}/d/f mounted/link && "
                         f"mount -o remount,{option} mounted") == 0
        try:
            world.deliver(f"{world.home}/mounted/link", b"new")
            assert world.facts(f"{world.home}/d/f").data == b"new"
            delivery = world.delivery(f"{world.home}/mounted/link", b"new")
            world.make_file(f"{world.home}/d/{delivery.part_name}", b"half of the")
            with contextlib.closing(world.open()) as session:
                assert session.sweep(delivery)
            assert world.names(f"{world.home}/d") == ["f"]
        finally:
            world.run(f"umount {world.home}/mounted")

    @pytest.mark.parametrize(("option", "code"), [("ro", "read_only"), ("nr_inodes=1", "target_full")])
    def test_directories_that_cannot_be_made_say_why(self, world: World, option: str, code: str) -> None:
        """What a filesystem answers to a new directory counts as what it answers to a file."""
        world.make_directory(f"{world.home}/mounted")
        assert world.run(f"mount -t tmpfs -o {option},mode=755 tmpfs {world.home}/mounted") == 0
        try:
            assert refused(world, f"{world.home}/mounted/a/b/f", mkdirs=True) == code
        finally:
            world.run(f"umount {world.home}/mounted")

    @pytest.mark.parametrize("path", ["/sys/new", "/sys/new/f"])
    def test_path_that_takes_no_files_is_not_permitted(self, world: World, path: str) -> None:
        """The kernel's own filesystems take no new files, and no new directories; they are not even root's there."""
        assert refused(world, path, mkdirs=True) == ("permission_denied" if world.way == "sftp" else "parent_not_guarded")


@pytest.mark.live
@pytest.mark.parametrize("way", ["sftp"])
class TestOnlyInAnInstance:
    """What only a real instance has."""

    def test_mounted_file_is_its_own_error(self, world: World) -> None:
        """A file that something is mounted on cannot be replaced."""
        world.make_file(f"{world.home}/f", b"old")
        assert world.run(f"mount --bind /etc/passwd {world.home}/f") == 0
        try:
            assert refused(world, f"{world.home}/f") == "target_is_mount_point"
        finally:
            world.run(f"umount {world.home}/f")
        assert world.names(world.home) == ["f"]

    @pytest.mark.parametrize("size", [10, MIB])
    @pytest.mark.parametrize("asked", [0o600, None])
    def test_secret_cannot_be_opened_before_it_is_private(
            self, world: World, monkeypatch: pytest.MonkeyPatch, size: int, asked: int | None) -> None:
        """Who opens each file that is not private from its first moment has opened nothing but empty ones."""
        world.make_file(f"{world.home}/f", b"", 0o600)
        with contextlib.ExitStack() as opened:
            spied = [opened.enter_context(world.host_path(f"{world.home}/f").open("rb"))]

            async def spy(channel: Channel, number: int) -> bytes:
                handle = await wait_for_handle(channel, number)
                spied.extend(opened.enter_context(path.open("rb"))
                             for path in world.host_path(world.home).rglob("*") if open_to_others(path))
                return handle

            wait_for_handle = Channel.handle
            monkeypatch.setattr(Channel, "handle", spy)
            with contextlib.closing(world.open()) as session:
                for _ in range(2):
                    delivery = world.delivery(f"{world.home}/f", b"s" * size, mode=asked)
                    session.deliver(delivery, io.BytesIO(b"s" * size), lambda: None)
                    assert not session.left_part
            assert {file.read() for file in spied} == {b""}
        assert world.names(world.home) == ["f"]
        assert world.facts(f"{world.home}/f").data == b"s" * size

    def test_hidden_part_file_is_removed_when_the_delivery_ends(self, world: World) -> None:
        """Neither a refusal nor a part file of an attempt that was killed leaves anything."""
        delivery = world.delivery(f"{world.home}/f", b"new", mode=0o600, left_part=True)
        world.make_directory(f"{world.home}/{delivery.staging_name}", 0o700)
        world.make_file(f"{world.home}/{delivery.staging_name}/{delivery.staging_name}", b"", 0o600)

        def refuse() -> None:
            raise InterruptedError("cancelled")

        with contextlib.closing(world.open()) as session:
            with pytest.raises(InterruptedError):
                session.deliver(delivery, io.BytesIO(b"new"), refuse)
            assert not session.left_part
            assert world.names(world.home) == []

    def test_owner_outside_the_id_map_is_its_own_error(self, world: World) -> None:
        """A uid that the instance does not have cannot be given."""
        assert refused(world, f"{world.home}/f", uid=4_000_000_000) == "owner_not_mapped"
        assert world.names(world.home) == []


def open_to_others(path: Path) -> bool:
    """True if users that are not its owner could open the file."""
    found = path.stat()
    return stat.S_ISREG(found.st_mode) and bool(found.st_mode & 0o044 and path.parent.stat().st_mode & 0o011)
