"""The room that a worker sets aside."""

import os
import resource

import pytest

from daemon.state.layout import Layout
from daemon.state.reserve import INODES, Reserve
from tests.support.plants import PLANTS, Plant

pytestmark = pytest.mark.usefixtures("shard")

_SIZE_BYTES = 64 * 1024


def files(layout: Layout) -> list[os.stat_result]:
    """What there is of the reserve."""
    return [path.stat() for path in layout.reserves(0, INODES) if path.exists()]


def test_reserve_has_bytes_and_inodes_when_there_is_room(layout: Layout) -> None:
    """A disk may run out of either."""
    Reserve(layout, 0, _SIZE_BYTES).restore()
    assert len({file.st_ino for file in files(layout)}) == INODES
    assert sum(file.st_size for file in files(layout)) == _SIZE_BYTES


def test_reserve_is_released_once(layout: Layout) -> None:
    """All of it goes at once, and the second time there is nothing to give."""
    reserve = Reserve(layout, 0, _SIZE_BYTES)
    reserve.restore()
    assert reserve.release()
    assert files(layout) == []
    assert not reserve.whole
    assert not reserve.release()


def test_reserve_is_found_whole_only_when_all_of_it_is_there(layout: Layout) -> None:
    """Whoever needed room may have removed a part."""
    Reserve(layout, 0, _SIZE_BYTES).restore()
    assert Reserve(layout, 0, _SIZE_BYTES).whole
    layout.reserves(0, INODES)[-1].unlink()
    assert not Reserve(layout, 0, _SIZE_BYTES).whole


def test_nothing_is_set_aside_when_none_is_wanted(layout: Layout) -> None:
    """limits.reserve_bytes = 0."""
    reserve = Reserve(layout, 0, 0)
    reserve.restore()
    assert reserve.whole
    assert files(layout) == []
    assert not reserve.release()


def test_nothing_is_left_of_a_reserve_that_did_not_fit(layout: Layout) -> None:
    """What is free on the disk is not what a quota, or the largest size of a file, leaves."""
    reserve = Reserve(layout, 0, 2**20)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20 + 1, hard))
    try:
        reserve.restore()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not reserve.whole
    assert files(layout) == []


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_reserve_is_made_where_something_else_had_its_name(layout: Layout, plant: Plant, place: int) -> None:
    """Another user may write in the shard's directory; what he left there is no room that could be given free."""
    plant(layout.reserves(0, INODES)[place])
    reserve = Reserve(layout, 0, _SIZE_BYTES)
    reserve.restore()
    assert Reserve(layout, 0, _SIZE_BYTES).whole
    assert sum(file.st_size for file in files(layout)) == _SIZE_BYTES


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_reserve_is_released_where_something_else_has_its_name(layout: Layout, plant: Plant) -> None:
    """The rest of it gives room all the same."""
    reserve = Reserve(layout, 0, _SIZE_BYTES)
    reserve.restore()
    for path in layout.reserves(0, INODES)[:2]:
        path.unlink()
        plant(path)
    assert reserve.release()
    assert files(layout) == []


@pytest.mark.parametrize("size_bytes", [0, _SIZE_BYTES // 2, 2 * _SIZE_BYTES])
def test_reserve_has_another_size_once_it_was_restored(layout: Layout, size_bytes: int) -> None:
    """Wanting another touches nothing, so that it cannot fail."""
    reserve = Reserve(layout, 0, _SIZE_BYTES)
    reserve.restore()
    reserve.resize(size_bytes)
    assert sum(file.st_size for file in files(layout)) == _SIZE_BYTES
    reserve.restore()
    assert sum(file.st_size for file in files(layout)) == size_bytes
    assert reserve.whole
