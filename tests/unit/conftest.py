"""What the unit tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import failpoints
from tests.support.depot import Depot


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    """No fault outlives its test."""
    yield
    failpoints.arm("")


@pytest.fixture
def depot(quick_path: Path) -> Iterator[Depot]:
    """A new state directory, to put uploads into."""
    with Depot(quick_path / "state") as made:
        yield made
