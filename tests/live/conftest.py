"""Containers and worlds for the live tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.host import Container, Host
from tests.live.world import World, directory_world, incus_world


@pytest.fixture(scope="session")
def container(incus: Host) -> Iterator[Container]:
    """A running container that the tests share; each works in a directory of its own."""
    with incus.container() as running:
        yield running


@pytest.fixture
def make_world(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], World]:
    """Makes the world of a way to deliver: sftp, files_api or directory."""

    def make(way: str) -> World:
        if way == "directory":
            made = directory_world(tmp_path / "instances")
        else:
            made = incus_world(way, request.getfixturevalue("incus"), request.getfixturevalue("container"))
        made.make_directory(made.home)
        return made

    return make


@pytest.fixture
def world(make_world: Callable[[str], World], way: str) -> World:
    """The world of the way that the test is run for."""
    return make_world(way)
