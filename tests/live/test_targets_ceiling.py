"""What a target must not write, wherever links in the instance lead: nothing outside the ceiling is touched."""

import contextlib
from typing import Any

import pytest

from daemon.config import Allowed, Denied
from daemon.errors import Undelivered
from tests.live.ways import ALL, ATOMIC, refused
from tests.live.world import World
from tests.support.depot import an_upload
from worker.dispatch.ceiling import Ceiling


def within(world: World, path: str = "in/**", modes: str = "7777") -> dict[str, Any]:
    """Make directories in and out of bounds, with a file in each; return what a delivery is told of the bounds."""
    for name in ("in", "out"):
        world.make_directory(f"{world.home}/{name}/d")
        world.make_file(f"{world.home}/{name}/f", b"old")
    ceiling = Ceiling(Allowed(paths=[f"{world.home}/{path}"], modes=modes), Denied(paths=[f"{world.home}/in/no/**"]))
    return {"path_rule": ceiling.path_rule(an_upload("/x", b"")), "set_id_rule": ceiling.set_id_rule()}


@pytest.mark.parametrize("way", ALL)
def test_link_that_leads_out_of_bounds_is_not_followed(world: World) -> None:
    """The file itself, a directory on the way, or what neither is there yet; and no directory is made there."""
    bounds, home = within(world), world.home
    for name, target in (("file", "../out/f"), ("new", f"{home}/out/new"), ("dir", "../out/d"), ("far", "./hop"),
                         ("hop", "d/../../out/d"), ("tricky", f"{home}/out/made/../../in/d")):
        world.make_link(f"{home}/in/{name}", target)
    for path in ("file", "new", "dir/f", "far/f", "far/made/f"):
        assert refused(world, f"{home}/in/{path}", mkdirs=True, **bounds) == "not_allowed"
    # What that link means, where a directory on its way is missing, is not the same everywhere.
    with contextlib.suppress(Undelivered):
        world.deliver(f"{home}/in/tricky/f", b"new", mkdirs=True, **bounds)
    assert world.names(f"{home}/out") == ["d", "f"]
    assert world.names(f"{home}/out/d") == []
    assert world.facts(f"{home}/out/f").data == b"old"


@pytest.mark.parametrize("way", ALL)
def test_link_that_stays_within_bounds_is_followed(world: World) -> None:
    """Its own name counts as ever: what is denied is denied where it leads."""
    bounds, home = within(world), world.home
    world.make_link(f"{home}/in/file", "./f")
    world.make_link(f"{home}/in/dir", f"{home}/in/d")
    world.make_directory(f"{home}/in/no")
    world.make_link(f"{home}/in/denied", "no")
    world.deliver(f"{home}/in/file", b"new", **bounds)
    deep = "made/" * 20
    world.deliver(f"{home}/in/dir/{deep}f", b"new", mkdirs=True, **bounds)
    assert world.facts(f"{home}/in/f").data == b"new"
    assert world.facts(f"{home}/in/d/{deep}f").data == b"new"
    assert refused(world, f"{home}/in/denied/f", **bounds) == "not_allowed"
    assert world.names(f"{home}/in/no") == []


@pytest.mark.parametrize("way", ALL)
def test_bytes_get_no_rights_of_a_set_id_file_that_is_there(world: World) -> None:
    """Such a file is not replaced unless it loses the bits; the files API does not show them, and makes it anew."""
    bounds, path = within(world, modes="1777"), f"{world.home}/in/f"
    world.make_file(path, b"old", 0o4755)
    if world.way == "files_api":
        world.deliver(path, b"new", **bounds)
    else:
        assert refused(world, path, **bounds) == "not_allowed"
        assert world.facts(path).mode == 0o4755
        world.deliver(path, b"new", mode=0o755, **bounds)
    assert (world.facts(path).data, world.facts(path).mode) == (b"new", 0o755)


@pytest.mark.parametrize("way", ATOMIC)
def test_bytes_are_not_written_into_a_set_id_file_or_out_of_bounds(world: World) -> None:
    """In place, the old mode is there while the bytes come, whatever the mode is to be."""
    bounds, path = within(world, modes="1777"), f"{world.home}/in/f"
    world.make_link(f"{world.home}/in/link", "../out/f")
    assert refused(world, f"{world.home}/in/link", replace_group="in-place", **bounds) == "not_allowed"
    assert world.facts(f"{world.home}/out/f").data == b"old"
    world.deliver(path, b"new", replace_group="in-place", **bounds)
    assert world.facts(path).data == b"new"
    world.make_file(path, b"old", 0o4755)
    assert refused(world, path, mode=0o755, replace_group="in-place", **bounds) == "not_allowed"
    assert world.facts(path).data == b"old"
