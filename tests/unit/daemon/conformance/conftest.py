"""The doors as everyone sees them, and what stands behind them: each test here passes for every implementation."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.lease import Leases, open_leases
from daemon.spool import CheckedSpool, open_checked
from daemon.state.layout import Layout
from daemon.state.tenure import Host
from daemon.task_queue import Intake, TaskQueue, open_intake
from daemon.task_queue.sqlite.doctor import SqliteDoctor
from daemon.task_queue.sqlite.history import MOST_KEPT
from daemon.task_queue.sqlite.numbers import BOOT_FACT
from tests.support import memory_lease, memory_queue, memory_spool
from tests.unit.daemon.conformance.doors import Held, LeaseStore, QueueStore, SpoolStore


class SqliteStore(QueueStore):
    """A shard's queue in SQLite."""

    attempts_kept = MOST_KEPT

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

    def restart_machine(self) -> None:
        """Have the queue believe that the machine was restarted since."""
        self.open().remember(BOOT_FACT, "the boot before")

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


class MemoryStore(QueueStore):
    """A shard's queue in memory."""

    attempts_kept = memory_queue.MOST_KEPT

    def __init__(self, _directory: Path) -> None:
        """Nothing is in it."""
        self._store = memory_queue.Store()
        self.spool = Held()

    def open(self) -> TaskQueue:
        """Open the queue as the holder of the shard's lock does."""
        return memory_queue.MemoryQueue(self._store, self.spool)

    def open_intake(self) -> Intake:
        """Open the queue as the API does."""
        return memory_queue.MemoryQueue(self._store, self.spool)

    def restart_machine(self) -> None:
        """Have the queue believe that the machine was restarted since."""
        self._store.restarted = True

    def close(self) -> None:
        """Close what was opened."""


class MemoryShelf(SpoolStore):
    """A spool in memory."""

    def __init__(self, _directory: Path) -> None:
        """Nothing is on it."""
        self._shelf = memory_spool.Shelf()

    def open(self) -> CheckedSpool:
        """Open the spool."""
        return memory_spool.MemorySpool(self._shelf)

    def close(self) -> None:
        """Close what was opened."""


class FileLeaseStore(LeaseStore):
    """Leases in a state directory."""

    def __init__(self, directory: Path) -> None:
        """`directory` is the state directory."""
        self._layout = Layout(directory)
        self._layout.create()
        self._hosts = 0
        self._opened: list[Leases] = []

    def open(self) -> Leases:
        """What a process of the host takes that began last."""
        return self._open(take_over=False)

    def take_over(self) -> Leases:
        """What a process of another host takes."""
        self._hosts += 1
        # Another kernel knows nothing of what this one has locked.
        for lock in range(SHARDS):
            self._layout.lock(lock).unlink(missing_ok=True)
        return self._open(take_over=True)

    def _open(self, *, take_over: bool) -> Leases:
        host = Host(f"host-{self._hosts}", f"boot-{self._hosts}")
        leases = open_leases(self._layout, host, SHARDS, take_over=take_over)
        self._opened.append(leases)
        return leases

    def close(self) -> None:
        """Close what was opened."""
        while self._opened:
            self._opened.pop().close()


class MemoryBook(LeaseStore):
    """Leases in memory."""

    def __init__(self, _directory: Path) -> None:
        """Nobody has any."""
        self._book = memory_lease.Book()

    def open(self) -> Leases:
        """What a process of the host takes that began last."""
        return memory_lease.MemoryLeases(self._book)

    def take_over(self) -> Leases:
        """What a process of another host takes."""
        self._book.begin()
        return self.open()

    def close(self) -> None:
        """Close what was opened."""


#: Of so many shards leases are kept.
SHARDS = 3
#: What keeps queues, bytes and leases.
QUEUES: dict[str, Callable[[Path], QueueStore]] = {"sqlite": SqliteStore, "memory": MemoryStore}
SPOOLS: dict[str, Callable[[Path], SpoolStore]] = {"files": FileStore, "memory": MemoryShelf}
LEASES: dict[str, Callable[[Path], LeaseStore]] = {"files": FileLeaseStore, "memory": MemoryBook}


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


@pytest.fixture(params=LEASES)
def lease_store(request: pytest.FixtureRequest, quick_path: Path) -> Iterator[LeaseStore]:
    """What keeps the leases."""
    store = LEASES[request.param](quick_path / "state")
    yield store
    store.close()
