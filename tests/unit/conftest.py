"""What the unit tests share."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import seam
from tests.support.depot import Depot

#: Where it exists, a directory in memory: syncing costs nothing there.
_MEMORY = Path("/dev/shm")


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    """No fault outlives its test."""
    yield
    seam.arm("")


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """A new directory that is quick to write to, for tests that make whole state directories."""
    made = Path(tempfile.mkdtemp(prefix="courier-test-", dir=_MEMORY if _MEMORY.is_dir() else None))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def depot(quick_path: Path) -> Iterator[Depot]:
    """A new state directory, to put uploads into."""
    with Depot(quick_path / "state") as made:
        yield made
