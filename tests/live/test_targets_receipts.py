"""A receipt says what mode and owner the file in the instance has, whatever the way to deliver."""

from typing import Any

import pytest

from tests.live.ways import ALL, AS_ROOT, ATOMIC
from tests.live.world import World
from worker.targets.base import Receipt


def deliver(world: World, data: bytes = b"new", **changes: Any) -> Receipt:
    """Deliver, and see that the receipt tells what is in the instance."""
    receipt = world.deliver(f"{world.home}/f", data, **changes)
    facts = world.facts(f"{world.home}/f")
    assert (receipt.uid, receipt.gid) == (facts.uid, facts.gid)
    assert receipt.mode in {facts.mode, None}
    return receipt


@pytest.mark.parametrize("way", ALL)
def test_receipt_of_a_new_file_has_the_mode_and_owner_that_were_asked(world: World, way: str) -> None:
    """However large it is, and found there already or not."""
    uid, gid = world.owner
    asked = {"mode": 0o640, "uid": uid, "gid": gid}
    receipt = deliver(world, b"x" * 200_000, **asked)
    assert (receipt.way, receipt.mode, receipt.unchanged) == ({"files_api": "files"}.get(way, way), 0o640, False)
    again = deliver(world, b"x" * 200_000, recheck=True, **asked)
    assert (again.unchanged, again.uid, again.gid) == (True, uid, gid)


@pytest.mark.parametrize("way", AS_ROOT)
def test_receipt_of_a_file_that_kept_its_own_mode_and_owner_has_these(world: World) -> None:
    """Where the way does not show all bits of the mode, it says nothing of it."""
    world.make_file(f"{world.home}/f", b"old", 0o4751, (7, 8))
    assert deliver(world).mode == (None if world.way == "files_api" else 0o4751)


@pytest.mark.parametrize("way", ATOMIC)
def test_receipt_of_a_file_that_was_written_in_place_has_what_it_is_then(world: World) -> None:
    """Mode and owner are looked at last."""
    world.make_file(f"{world.home}/f", b"old", 0o604, world.owner)
    assert deliver(world, replace_group="in-place").mode == 0o604
    assert deliver(world, replace_group="in-place", mode=0o600).mode == 0o600
