"""Every metric, by its name. One table for all who make, describe and use them."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from daemon.model import counters

PREFIX: Final = "incus_courier_"
#: The instances that have numbers of their own: those for which most waits. What is behind them is one more.
INSTANCES: Final = 20
OTHER: Final = "other"


class Type(Enum):
    """How the values of a metric are read."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """All values of one name."""

    #: As it is shown, with the prefix.
    name: str
    type: Type
    help: str
    labels: tuple[str, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The names of its values, as rules and boards have them."""
        if self.type is Type.HISTOGRAM:
            return f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count"
        return (self.name,)


def _gauge(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(name=PREFIX + name, type=Type.GAUGE, help=meaning, labels=labels)


BUILD_INFO: Final = _gauge("build_info", "Always 1; the version of the service.", "version")
TASKS: Final = _gauge("tasks", "Tasks in each state.", "state")
TASK_BYTES: Final = _gauge("task_bytes", "Bytes of the tasks in each state.", "state")
INSTANCE_TASKS: Final = _gauge(
    "instance_tasks", f"Tasks that wait for an instance, for the {INSTANCES} with most; `{OTHER}` has the rest.",
    "instance")
OLDEST_AGE: Final = _gauge(
    "oldest_task_age_seconds", "Age of the oldest task that is not finished; 0 when there is none.")
SHARD_READABLE: Final = _gauge(
    "shard_readable", "1 for a shard whose database can be read, 0 for one of which nothing is counted here.", "shard")
SPOOL_BYTES: Final = _gauge("spool_bytes", "Bytes of uploads that wait, and of dead letters.")
DISK_FREE: Final = _gauge("disk_free_bytes", "Bytes free on the disk of the spool.")
DISK_SIZE: Final = _gauge("disk_size_bytes", "Bytes that this disk has.")
DISK_RESERVE: Final = _gauge("disk_reserve_bytes", "Below so many free bytes no upload is taken in.")
PARTIALS: Final = _gauge("partial_uploads", "Resumable uploads that are not finished.")
PARTIAL_BYTES: Final = _gauge("partial_upload_bytes", "Bytes of these that are here.")
WORKER_UP: Final = _gauge("worker_up", "1 where a worker serves the shard, else 0.", "shard")
WORKER_TOLD: Final = _gauge(
    "worker_told_timestamp_seconds", "When the shard's worker last told what it does, in seconds since the epoch.",
    "shard")
LANES: Final = _gauge("lanes", "Instances whose tasks the worker has in hand.", "shard")
SESSIONS: Final = _gauge("sessions", "Sessions of the worker to instances.", "shard")
STALLED: Final = _gauge("stalled", "Threads of the worker in which nothing moves.", "shard")
WAL_BYTES: Final = _gauge("wal_bytes", "Length of the write-ahead log of the shard's database.", "shard")
REMOTE_UP: Final = _gauge("remote_up", "1 for a remote that answers, 0 for one that is away.", "remote")
CONNECTIONS: Final = _gauge("connections", "Open connections of clients, in all API processes.")
STREAMS: Final = _gauge("streams", "Streams of events that are followed, in all API processes.")

#: Those that are looked at when somebody asks.
GAUGES: Final = (
    BUILD_INFO, TASKS, TASK_BYTES, INSTANCE_TASKS, OLDEST_AGE, SHARD_READABLE, SPOOL_BYTES, DISK_FREE, DISK_SIZE,
    DISK_RESERVE, PARTIALS, PARTIAL_BYTES, WORKER_UP, WORKER_TOLD, LANES, SESSIONS, STALLED, WAL_BYTES,
    REMOTE_UP, CONNECTIONS, STREAMS)


def metric_of(family: counters.Family) -> Metric:
    """The metric that shows what is counted."""
    return Metric(
        name=PREFIX + family.name, type=Type(family.kind.value), help=family.meaning, labels=family.labels)


METRICS: Final = (*map(metric_of, (*counters.API_FAMILIES.values(), *counters.FAMILIES.values())), *GAUGES)


def series_names() -> Iterator[str]:
    """The names of all values."""
    for metric in METRICS:
        yield from metric.series
