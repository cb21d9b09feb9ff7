"""The values of all metrics at one moment, out of what is known then. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from api.metrics import table
from api.metrics.table import Metric, metric_of
from api.overview.surveyor import Stock
from daemon import __version__
from daemon.errors import ERRORS
from daemon.explain import ServiceFacts
from daemon.model import counters
from daemon.model.counters import API_FAMILIES, FAMILIES, Family, Kind
from daemon.model.task import OUTCOMES, PENDING

#: The values of a metric's labels, in their order, and the value.
Value = tuple[tuple[str, ...], float]
#: Statuses from here on are no fault of who asks.
_OURS: Final = 500
#: They are 0 before they are counted first: a counter that comes out of nowhere has no increase.
_FROM_THE_BEGINNING: Final = dict.fromkeys((
    *(counters.finished(state) for state in sorted(OUTCOMES)),
    *map(counters.webhook_attempts, ("deferred", "delivered", "failed")), counters.NEW, counters.REPLAYED,
    *(counters.refusals(code) for code, kind in ERRORS.items() if kind.status >= _OURS)), 0.0)


@dataclass(frozen=True)
class Distribution:
    """What a histogram has: each upper bound with all that is at most that, and the sum."""

    buckets: Sequence[tuple[str, float]]
    sum: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was found out for one answer."""

    stock: Stock
    #: What API processes counted.
    counted: Mapping[counters.Key, float]
    #: What waits for the instances with most, by their names; there may be more of them.
    waiting: Sequence[tuple[str, int]]
    connections: int
    streams: int


def sums_of(figures: Figures) -> Iterator[tuple[Metric, Sequence[Value] | Distribution]]:
    """Each metric that is counted, with its values; none of the queue's where not all of that can be read.

    One without labels is there from the beginning.
    """
    for families, counted in ((API_FAMILIES, figures.counted), (FAMILIES, figures.stock.counted)):
        if counted is None:
            continue
        for family in families.values():
            is_counter = family.kind is Kind.COUNTER
            yield metric_of(family), _counter(family, counted) if is_counter else _histogram(family, counted)


def _counter(family: Family, counted: Mapping[counters.Key, float]) -> list[Value]:
    if not family.labels:
        return [((), counted.get((family.name, ""), 0.0))]
    found = ((counters.labels_in(labels), value) for (name, labels), value in {**_FROM_THE_BEGINNING, **counted}.items()
             if name == family.name)
    return sorted((tuple(labels.get(key, "") for key in family.labels), value) for labels, value in found)


def _histogram(family: Family, counted: Mapping[counters.Key, float]) -> Distribution:
    return Distribution(counters.buckets(family, counted), counted.get((f"{family.name}_sum", ""), 0.0))


def gauges_of(figures: Figures) -> Iterator[tuple[Metric, Sequence[Value]]]:
    """Each metric that is looked at, with its values; none where it is not known."""
    stock = figures.stock
    yield table.BUILD_INFO, [((__version__,), 1)]
    yield table.TASKS, [((state.label,), total.tasks) for state, total in stock.counts.items()]
    yield table.TASK_BYTES, [((state.label,), total.size_bytes) for state, total in stock.counts.items()]
    pending = sum(stock.counts[state].tasks for state in PENDING)
    yield table.INSTANCE_TASKS, instance_values(figures.waiting, pending)
    yield table.OLDEST_AGE, _one(0 if stock.oldest_at is None else max(0.0, stock.at - stock.oldest_at))
    yield table.SHARD_READABLE, [
        ((str(one.shard),), int(one.shard not in stock.unreadable)) for one in stock.services]
    yield table.SPOOL_BYTES, _one(stock.room.spool_bytes)
    yield table.DISK_FREE, _one(stock.room.free_bytes)
    yield table.DISK_SIZE, _one(stock.room.total_bytes)
    yield table.DISK_RESERVE, _one(stock.room.min_free_bytes)
    yield table.PARTIALS, _one(stock.partials.number)
    yield table.PARTIAL_BYTES, _one(stock.partials.present_bytes)
    yield from _workers(stock.services)
    yield table.REMOTE_UP, [((remote.remote,), int(remote.up)) for remote in stock.remotes]
    yield table.CONNECTIONS, _one(figures.connections)
    yield table.STREAMS, _one(figures.streams)


def instance_values(waiting: Sequence[tuple[str, int]], pending: int) -> list[Value]:
    """What waits for the instances with most, and for all others together, out of so many tasks in all."""
    first = [(name, tasks) for name, tasks in waiting if tasks][:table.INSTANCES]
    # The two were counted one after the other.
    rest = max(0, pending - sum(tasks for _, tasks in first))
    return [*(((name,), tasks) for name, tasks in first if name != table.OTHER),
            ((table.OTHER,), rest + sum(tasks for name, tasks in first if name == table.OTHER))]


def _workers(services: Sequence[ServiceFacts]) -> Iterator[tuple[Metric, Sequence[Value]]]:
    yield table.WORKER_UP, [((str(one.shard),), int(one.worker is not None)) for one in services]
    told = [((str(one.shard),), one.activity) for one in services if one.activity is not None]
    yield table.WORKER_TOLD, [(shard, activity.at) for shard, activity in told]
    yield table.LANES, [(shard, activity.lanes) for shard, activity in told]
    yield table.SESSIONS, [(shard, activity.sessions) for shard, activity in told]
    yield table.STALLED, [(shard, activity.stalled) for shard, activity in told]
    yield table.WAL_BYTES, [(shard, activity.wal_bytes) for shard, activity in told]


def _one(value: float | None) -> list[Value]:
    return [] if value is None else [((), value)]
