"""Setting aside what is doubtful, and freeing names that the service needs."""

import os
from pathlib import Path

import pytest

from daemon.state.layout import Layout
from daemon.state.quarantine import clear_name, open_cleared, retire
from tests.support.plants import PLANTS, Plant

pytestmark = pytest.mark.usefixtures("shard")


def kept(layout: Layout) -> list[Path]:
    """What is in lost+found."""
    return sorted(layout.lost_found.iterdir())


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_name_is_free_after_it_was_cleared(layout: Layout, plant: Plant) -> None:
    """Whatever had it; a directory is kept, as it may hold anything."""
    path = layout.suspect(0)
    plant(path)
    was_directory = path.is_dir() and not path.is_symlink()
    clear_name(layout, path)
    assert not os.path.lexists(path)
    assert [(found / "inside").exists() for found in kept(layout)] == [True] * was_directory


def test_clearing_a_name_that_is_free_does_nothing(layout: Layout) -> None:
    """Whoever cleared it before may have died of something else."""
    clear_name(layout, layout.suspect(0))
    assert kept(layout) == []


@pytest.mark.parametrize("name", [name for name in PLANTS if name != "closed"])
def test_file_of_the_service_is_made_where_something_else_had_its_name(layout: Layout, name: str) -> None:
    """It is opened for writing, and is the service's own."""
    path = layout.suspect(0)
    PLANTS[name](path)
    descriptor = open_cleared(layout, path)
    with open(descriptor, "r+b") as file:
        file.write(b"own")
    assert path.read_bytes() == b"own"


def test_longest_name_can_be_set_aside(layout: Layout) -> None:
    """A date comes behind it, and no name is longer than 255 bytes."""
    path = layout.bucket(0) / ("é" * 127)
    path.write_bytes(b"mine")
    assert retire(layout, path).read_bytes() == b"mine"


@pytest.mark.slow
def test_any_number_of_one_name_can_be_set_aside_in_a_second(layout: Layout) -> None:
    """Nothing is overwritten, and no number is the last."""
    for number in range(1100):
        path = layout.bucket(0) / "same"
        path.write_text(str(number))
        retire(layout, path)
    assert sorted(int(found.read_text()) for found in kept(layout)) == list(range(1100))
