"""Fixtures: a spool in files."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import failpoints
from daemon.spool.inspect import FileSpoolCheck
from daemon.state.layout import Layout
from tests.support.depot import a_state


@pytest.fixture
def layout(quick_path: Path) -> Layout:
    """A new state directory."""
    return a_state(quick_path)


@pytest.fixture
def spool(layout: Layout) -> Iterator[FileSpoolCheck]:
    """Its spool."""
    made = FileSpoolCheck(layout)
    yield made
    failpoints.arm("")
    made.close()
