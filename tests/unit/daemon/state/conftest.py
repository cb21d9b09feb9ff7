"""The state that these tests are about."""

from pathlib import Path

import pytest

from daemon.state.layout import Layout
from tests.support.depot import a_state


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A new state directory."""
    return a_state(tmp_path)


@pytest.fixture
def shard(layout: Layout) -> None:
    """The directory of shard 0."""
    layout.make_shard(0)
