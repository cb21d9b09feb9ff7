"""The state that these tests are about."""

from pathlib import Path

import pytest

from daemon.state.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A new state directory."""
    made = Layout(tmp_path / "state")
    made.create()
    return made


@pytest.fixture
def shard(layout: Layout) -> None:
    """The directory of shard 0."""
    layout.make_shard(0)
