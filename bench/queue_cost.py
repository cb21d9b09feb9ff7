"""What one task costs in a queue: to put, to claim, to settle; and whether that changes over a queue's life."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from bench import fill
from bench.figures import median
from daemon.config import LOCAL
from daemon.model.task import State, Task
from daemon.model.upload import Destination
from daemon.state.layout import Layout
from daemon.task_queue import Settlement
from daemon.task_queue.sqlite.queue import SqliteQueue
from tests.support.depot import sealed

#: Tasks in one transaction: what sixteen uploads at once, and a busy worker's turn, come to.
_PUT: Final = 16
_CLAIM: Final = 64
_SETTLE: Final = 16
#: Tasks in one measurement.
_TASKS: Final = 640
#: Finished rows that are kept, tasks between two looks at what is finished, rows cleared at once.
_KEEP: Final = 10_000
_UPKEEP_EVERY: Final = 6400
_CLEAR: Final = 500
#: As in the worker.
_CHECKPOINT_EVERY_S: Final = 60.0

Item = TypeVar("Item")


@dataclass(frozen=True)
class Cost:
    """Microseconds for one task."""

    put: float
    claim: float
    settle: float


class Probe:
    """Puts tasks of an instance of its own into a queue, claims them and settles them."""

    def __init__(self, layout: Layout, shard: int) -> None:
        self.queue = SqliteQueue(layout, shard)
        self._name = next(name for name in (f"measured-{number}" for number in range(1000))
                          if Destination(LOCAL, "default", name, "/").shard(2) == shard)
        self._key = Destination(LOCAL, "default", self._name, "/").instance_key

    def measure(self, tasks: int = _TASKS) -> Cost:
        """Take so many tasks from put to settled."""
        uploads = list(fill.uploads(self._name, tasks))
        put = sum(_timed(partial(self.queue.put_many, sealed(*some), supersede=True))
                  for some in _batches(uploads, _PUT))
        claimed: list[Task] = []
        claim = 0.0
        while len(claimed) < tasks:
            claim += _timed(lambda: claimed.extend(self.queue.claim(self._key, _CLAIM)))
        settle = sum(_timed(partial(self._settle, some)) for some in _batches(claimed, _SETTLE))
        return Cost(*(1e6 * seconds / tasks for seconds in (put, claim, settle)))

    def _settle(self, tasks: Sequence[Task]) -> None:
        self.queue.settle([Settlement(order=task.order, state=State.DELIVERED, attempts=1) for task in tasks])

    def close(self) -> None:
        """Let go of the queue."""
        self.queue.close()


@dataclass(frozen=True)
class Lifetime:
    """How a queue aged."""

    #: Microseconds for one task, from put to cleared: in the first and in the last tenth of its life.
    first_us: float
    last_us: float
    wal_peak_bytes: int
    database_bytes: int


def lifetime(state: Path, tasks: int) -> Lifetime:
    """Take so many tasks through one queue: put, claimed, settled, unspooled, cleared."""
    layout = Layout(state)
    layout.create()
    probe = Probe(layout, 0)
    wal = layout.database(0).with_name("data.db-wal")
    costs: list[float] = []
    wal_peak = 0
    checkpoint_at = time.monotonic() + _CHECKPOINT_EVERY_S
    for _ in range(0, tasks, _UPKEEP_EVERY):
        began = time.perf_counter()
        for _ in range(_UPKEEP_EVERY // _TASKS):
            probe.measure()
        _tidy(probe.queue)
        if time.monotonic() >= checkpoint_at:
            checkpoint_at += _CHECKPOINT_EVERY_S
            probe.queue.compact()
        costs.append(1e6 * (time.perf_counter() - began) / _UPKEEP_EVERY)
        wal_peak = max(wal_peak, wal.stat().st_size)
    tenth = max(1, len(costs) // 10)
    found = Lifetime(median(costs[:tenth]), median(costs[-tenth:]), wal_peak, layout.database(0).stat().st_size)
    probe.close()
    return found


def _tidy(queue: SqliteQueue) -> None:
    queue.unspool(task.order for task in queue.unspoolable(_UPKEEP_EVERY))
    while queue.clear_finished(0.0, _KEEP, _CLEAR) == _CLEAR:
        pass


def _batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[start:start + size] for start in range(0, len(items), size)]


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
