"""Fixtures: a state directory to break."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.recovery.world import World


@pytest.fixture
def world(quick_path: Path) -> Iterator[World]:
    """A state directory of one shard, without processes."""
    made = World(quick_path / "state")
    yield made
    made.close()
