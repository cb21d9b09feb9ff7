"""What a file that is replaced had, and SFTP does not show: its access list, its extended attributes, its hard links."""

import os
import stat
import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.live.ways import ALL, ATOMIC, refused
from tests.live.world import World
from worker.targets.base import Delivery
from worker.targets.directory.entry import Entry
from worker.targets.incus.sftp_channel import Channel

MIB = 2**20
_ACCESS_LIST = "system.posix_acl_access"
_NOBODY = 0xFFFFFFFF
#: Tags of entries, acl(5).
_OWNER, _USER, _GROUP, _MASK, _OTHERS = 0x01, 0x02, 0x04, 0x10, 0x20


def access_list(world: World, uid: int = 1234) -> bytes:
    """One more user reads and writes; the group does not, though its bits, which are the mask, say so."""
    entries = [(_OWNER, 6, _NOBODY), (_USER, 6, uid + world.shift), (_GROUP, 0, _NOBODY), (_MASK, 6, _NOBODY), (_OTHERS, 0, _NOBODY)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.fixture
def listed(world: World) -> str:
    """The path of a file with an access list and a second name; its mode shows as 0660."""
    path = f"{world.home}/f"
    world.make_file(path, b"old and longer")
    os.setxattr(world.host_path(path), _ACCESS_LIST, access_list(world))
    os.link(world.host_path(path), world.host_path(f"{world.home}/second"))
    assert stat.S_IMODE(world.host_path(path).stat().st_mode) == 0o660
    return path


@pytest.mark.live
@pytest.mark.parametrize("way", ["sftp"])
class TestHidden:
    """Where the list cannot be seen."""

    @pytest.mark.parametrize(("replace_group", "mode"), [("keep", 0o660), ("narrow", 0o600)])
    def test_group_gets_what_the_configuration_says(self, world: World, listed: str, replace_group: str, mode: int) -> None:
        """The new file has no list: the bits that were its mask are the group's, or none that others do not have."""
        world.deliver(listed, b"new", replace_group=replace_group)
        assert world.facts(listed).mode == mode
        assert _ACCESS_LIST not in os.listxattr(world.host_path(listed))
        assert world.deliver(listed, b"new", replace_group=replace_group, recheck=True).unchanged

    def test_mode_that_is_asked_for_is_not_narrowed(self, world: World, listed: str) -> None:
        """Who names a mode gets it."""
        world.deliver(listed, b"new", replace_group="narrow", mode=0o664)
        assert world.facts(listed).mode == 0o664


@pytest.mark.parametrize("way", ["directory"])
@pytest.mark.parametrize("replace_group", ["keep", "narrow"])
def test_list_is_carried_over_where_it_can_be_seen(world: World, listed: str, replace_group: str) -> None:
    """The new file is as open as the old one was, to the same people."""
    world.deliver(listed, b"new", replace_group=replace_group)
    assert os.getxattr(world.host_path(listed), _ACCESS_LIST) == access_list(world)
    assert world.facts(listed).data == b"new"
    assert world.facts(f"{world.home}/second").data == b"old and longer"
    world.deliver(listed, b"newer", mode=0o640)
    assert world.facts(listed).mode == 0o640
    assert _ACCESS_LIST in os.listxattr(world.host_path(listed))


@pytest.mark.parametrize("way", ALL)
class TestInPlace:
    """With replace_group = "in-place"."""

    @pytest.mark.parametrize("data", [b"new", b"n" * MIB, b""])
    @pytest.mark.parametrize("verify", ["size", "digest"])
    def test_file_keeps_what_it_had(self, world: World, listed: str, data: bytes, verify: str) -> None:
        """It is the same file with other bytes, whatever their number, and the receipt says that readers could look on."""
        receipt = world.deliver(listed, data, replace_group="in-place", verify=verify)
        assert not receipt.atomic
        assert os.getxattr(world.host_path(listed), _ACCESS_LIST) == access_list(world)
        assert world.facts(f"{world.home}/second").data == data
        assert world.names(world.home) == ["f", "second"]

    def test_new_file_is_made_as_ever(self, world: World) -> None:
        """Where there is nothing, there is nothing to keep."""
        receipt = world.deliver(f"{world.home}/new", b"new", replace_group="in-place")
        assert receipt.atomic is (world.way != "files_api")
        assert world.facts(f"{world.home}/new").mode == 0o644

    def test_directory_is_its_own_error(self, world: World) -> None:
        """As it is without."""
        world.make_directory(f"{world.home}/d")
        assert refused(world, f"{world.home}/d", replace_group="in-place") == "target_is_directory"

    def test_nothing_is_written_when_the_last_word_is_no(self, world: World, listed: str) -> None:
        """The last moment is before the first byte."""
        def refuse() -> None:
            raise InterruptedError("cancelled")

        with pytest.raises(InterruptedError):
            world.deliver(listed, b"new", refuse, replace_group="in-place")
        assert world.facts(listed).data == b"old and longer"


@pytest.mark.parametrize("way", ATOMIC)
def test_mode_that_is_asked_for_is_set_in_place(world: World, listed: str) -> None:
    """As chmod sets it on a file with a list, setuid included."""
    before = world.host_path(listed).stat().st_ino
    world.deliver(listed, b"new", replace_group="in-place", mode=0o4640)
    assert world.facts(listed).mode == 0o4640
    assert world.host_path(listed).stat().st_ino == before


@pytest.mark.live
@pytest.mark.parametrize("way", ["sftp"])
def test_what_is_swapped_for_a_link_is_not_written_into(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server follows links: it is looked at what was opened, before anything is written."""
    world.make_file(f"{world.home}/f", b"old")
    world.make_file(f"{world.home}/secret", b"not yours", 0o600)
    opened = Channel.open_to_write

    def swap(channel: Channel, path: bytes) -> int:
        world.host_path(f"{world.home}/f").unlink()
        world.make_link(f"{world.home}/f", "secret")
        return opened(channel, path)

    monkeypatch.setattr(Channel, "open_to_write", swap)
    assert refused(world, f"{world.home}/f", replace_group="in-place") == "verify_failed"
    assert world.facts(f"{world.home}/secret").data == b"not yours"


@pytest.mark.parametrize("way", ["directory"])
@pytest.mark.parametrize("changes", [{"replace_group": "in-place"}, {"recheck": True}], ids=["in place", "looked at again"])
@pytest.mark.parametrize("thing", ["another file", "a second name", "a FIFO"])
def test_what_is_swapped_after_it_was_seen_is_not_opened(
    world: World, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], thing: str,
) -> None:
    """What was opened is compared with what was seen, before anything is read or written; nothing is waited for."""
    path, secret = f"{world.home}/f", f"{world.home}/secret"
    world.make_file(path, b"new")
    world.make_file(secret, b"old")
    name = world.host_path(path)
    swaps: dict[str, Callable[[], object]] = {
        "another file": lambda: world.host_path(secret).rename(name), "a FIFO": lambda: os.mkfifo(name),
        "a second name": lambda: os.link(world.host_path(secret), name)}
    opened = Entry.open_seen

    def swap(entry: Entry, delivery: Delivery, flags: int) -> int:
        name.unlink()
        swaps[thing]()
        return opened(entry, delivery, flags)

    monkeypatch.setattr(Entry, "open_seen", swap)
    assert refused(world, path, **changes) == "verify_failed"
    assert thing == "a FIFO" or name.read_bytes() == b"old"
