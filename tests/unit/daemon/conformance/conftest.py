"""The doors as everyone sees them, and what stands behind them: each test here passes for every implementation."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.spool import CheckedSpool, open_checked
from daemon.state.layout import Layout
from daemon.task_queue import Intake, TaskQueue, open_intake
from daemon.task_queue.sqlite.doctor import SqliteDoctor
from tests.unit.daemon.conformance.doors import Held, QueueStore, SpoolStore


class SqliteStore(QueueStore):
    """A shard's queue in SQLite."""

    def __init__(self, directory: Path) -> None:
        """`directory` is the state directory."""
        self._layout = Layout(directory)
        self._layout.create()
        self.spool = Held()
        self._opened: list[TaskQueue | Intake] = []

    def open(self) -> TaskQueue:
        """Open the queue as the holder of the shard's lock does."""
        queue = SqliteDoctor(self._layout, 0, self.spool)
        self._opened.append(queue)
        return queue

    def open_intake(self) -> Intake:
        """Open the queue as the API does."""
        intake = open_intake(self._layout, 0, self.spool)
        self._opened.append(intake)
        return intake

    def close(self) -> None:
        """Close what was opened."""
        while self._opened:
            self._opened.pop().close()


class FileStore(SpoolStore):
    """A spool of files."""

    def __init__(self, directory: Path) -> None:
        """`directory` is the state directory."""
        self._layout = Layout(directory)
        self._layout.create()
        self._opened: list[CheckedSpool] = []

    def open(self) -> CheckedSpool:
        """Open the spool."""
        spool = open_checked(self._layout)
        self._opened.append(spool)
        return spool

    def close(self) -> None:
        """Close what was opened."""
        while self._opened:
            self._opened.pop().close()


#: What keeps queues, and what keeps bytes.
QUEUES: dict[str, Callable[[Path], QueueStore]] = {"sqlite": SqliteStore}
SPOOLS: dict[str, Callable[[Path], SpoolStore]] = {"files": FileStore}


@pytest.fixture(params=QUEUES)
def queues(request: pytest.FixtureRequest, quick_path: Path) -> Iterator[QueueStore]:
    """What keeps one shard's queue."""
    store = QUEUES[request.param](quick_path / "state")
    yield store
    store.close()


@pytest.fixture
def queue(queues: QueueStore) -> TaskQueue:
    """An empty queue, for the holder of its shard's lock."""
    return queues.open()


@pytest.fixture(params=["holder", "api"])
def intake(request: pytest.FixtureRequest, queues: QueueStore) -> Intake:
    """An empty queue, for those who put and read: the lock's holder may do that too."""
    return queues.open() if request.param == "holder" else queues.open_intake()


@pytest.fixture(params=SPOOLS)
def spools(request: pytest.FixtureRequest, quick_path: Path) -> Iterator[SpoolStore]:
    """What keeps the bytes of uploads."""
    store = SPOOLS[request.param](quick_path / "state")
    yield store
    store.close()


@pytest.fixture
def spool(spools: SpoolStore) -> CheckedSpool:
    """An empty spool."""
    return spools.open()
