"""What is counted for good: sums that only grow, by their names and labels. One table for all who write and read them.

A counter of a name has one value for each text of labels, `key=value,key=value` with the keys in order, '' where there
are none. A histogram is kept as counters, too: one for each bucket, which holds what fell into that bucket alone, and
one for the sum.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Final

from daemon.model.task import State

#: The label that has a bucket's upper bound.
BOUND: Final = "le"
_NO_BOUND: Final = "+Inf"
_LABELS: Final = re.compile(r"(?:[a-z_]+=[A-Za-z0-9_.+-]*(?:,(?!$)|$))*")


class Kind(Enum):
    """How a family of counters is read."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, kw_only=True)
class Family:
    """All counters of one name."""

    name: str
    kind: Kind
    meaning: str
    #: The keys of its labels, in order.
    labels: tuple[str, ...] = ()
    #: The upper bounds of a histogram's buckets, in its unit; the last bucket has none.
    bounds: tuple[float, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which it is kept."""
        return (self.name,) if self.kind is Kind.COUNTER else (f"{self.name}_bucket", f"{self.name}_sum")


#: What one counter is known by: its name and its labels.
Key = tuple[str, str]

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
_SUBSECOND: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)
UPLOADS: Final[Key] = ("uploads_total", "")
UPLOAD_BYTES: Final[Key] = ("upload_bytes_total", "")
DELIVERED_BYTES: Final[Key] = ("delivered_bytes_total", "")
EVENTS: Final[Key] = ("events_total", "")
RECEIVED_BYTES: Final[Key] = ("received_bytes_total", "")
#: Uploads that became tasks, and those that stand for an earlier one with the same idempotency key.
NEW: Final[Key] = ("accepted_total", "result=new")
REPLAYED: Final[Key] = ("accepted_total", "result=replayed")

PUSH_SECONDS: Final = Family(
    name="push_seconds", kind=Kind.HISTOGRAM, meaning="How long pushes took that were tried and counted, in seconds.",
    bounds=(*_SUBSECOND, 1.0, 2.5, 5.0, 10.0, 30.0, _MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR))
END_TO_END_SECONDS: Final = Family(
    name="end_to_end_seconds", kind=Kind.HISTOGRAM,
    meaning="From the acceptance of an upload until it was known to be in its instance, in seconds.",
    bounds=(*_SUBSECOND, 1.0, 2.5, 5.0, 10.0, 30.0, _MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR, 4 * _HOUR, 12 * _HOUR,
            _DAY, 3 * _DAY, 7 * _DAY, 30 * _DAY))
ACCEPT_SECONDS: Final = Family(
    name="accept_seconds", kind=Kind.HISTOGRAM,
    meaning="From the head of an upload, or the last byte of a resumable one, until it was accepted, in seconds.",
    bounds=(0.001, 0.0025, *_SUBSECOND, 1.0, 2.5, 5.0, 10.0, 30.0, _MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR))
#: Every family that the queue keeps.
FAMILIES: Final[Mapping[str, Family]] = {family.name: family for family in (
    Family(name=UPLOADS[0], kind=Kind.COUNTER, meaning="Uploads that were accepted."),
    Family(name=UPLOAD_BYTES[0], kind=Kind.COUNTER, meaning="Bytes of the uploads that were accepted."),
    Family(name="attempts_total", kind=Kind.COUNTER, labels=("code", "outcome"),
           meaning="Pushes that were tried and counted, by the state that they led to and the code of their error."),
    Family(name=DELIVERED_BYTES[0], kind=Kind.COUNTER, meaning="Bytes of the uploads that were delivered."),
    Family(name="tasks_finished_total", kind=Kind.COUNTER, labels=("state",),
           meaning="Tasks that were delivered, superseded, cancelled, or became dead letters."),
    PUSH_SECONDS,
    END_TO_END_SECONDS,
    Family(name=EVENTS[0], kind=Kind.COUNTER, meaning="Changes of the states of tasks."),
    Family(name="webhook_attempts_total", kind=Kind.COUNTER, labels=("outcome",),
           meaning="Tries to send a message to a webhook: delivered, deferred until the next one, or given up."),
)}
#: Every family that API processes keep by themselves (`api.counting`).
API_FAMILIES: Final[Mapping[str, Family]] = {family.name: family for family in (
    Family(name=NEW[0], kind=Kind.COUNTER, labels=("result",),
           meaning="Uploads that the API accepted: `new`, or `replayed` where an earlier one stands for them."),
    Family(name=RECEIVED_BYTES[0], kind=Kind.COUNTER, meaning="Bytes of uploads that came in, accepted or not."),
    Family(name="refusals_total", kind=Kind.COUNTER, labels=("code",),
           meaning="Uploads that were refused, and requests for want of rights or places, by the code of the error."),
    ACCEPT_SECONDS,
)}
#: The names under which the queue keeps its own.
KEPT_NAMES: Final = frozenset(name for family in FAMILIES.values() for name in family.names)


@cache
def attempts(outcome: str, code: str) -> Key:
    """The counter of attempts that ended so; the code is '' where there was no error."""
    return "attempts_total", f"code={code},outcome={outcome}"


@cache
def finished(state: State) -> Key:
    """The counter of tasks that came into that state."""
    return "tasks_finished_total", f"state={state.label}"


@cache
def refusals(code: str) -> Key:
    """The counter of refusals with that code."""
    return "refusals_total", f"code={code}"


def webhook_attempts(outcome: str) -> Key:
    """The counter of tries to send a message that ended so."""
    return "webhook_attempts_total", f"outcome={outcome}"


def added(parts: Iterable[Mapping[Key, float]]) -> dict[Key, float]:
    """The sums of counters of several places."""
    sums: dict[Key, float] = {}
    for part in parts:
        for key, value in part.items():
            sums[key] = sums.get(key, 0) + value
    return sums


def observed(family: Family, values: Iterable[float]) -> dict[Key, float]:
    """What a histogram's counters grow by when these values are observed."""
    keys, bounds = _BUCKETS[family.name], family.bounds
    grown: dict[Key, float] = {}
    total = 0.0
    for value in values:
        key = keys[bisect_left(bounds, value)]
        grown[key] = grown.get(key, 0) + 1
        total += value
    if grown:
        grown[_SUMS[family.name]] = total
    return grown


def in_buckets(family: Family, numbers: Sequence[int], total: float) -> dict[Key, float]:
    """What a histogram's counters grow by when so many values fell into each bucket, of that sum."""
    found = {key: float(number) for key, number in zip(_BUCKETS[family.name], numbers, strict=True) if number}
    return {**found, _SUMS[family.name]: total} if found else {}


def _bucket_keys(family: Family) -> list[Key]:
    return [(f"{family.name}_bucket", f"{BOUND}={bound}") for bound in (*map(_plain, family.bounds), _NO_BOUND)]


def _plain(bound: float) -> str:
    return f"{bound:.15g}"


_BUCKETS: Final = {family.name: _bucket_keys(family) for family in (*FAMILIES.values(), *API_FAMILIES.values())
                   if family.kind is Kind.HISTOGRAM}

_SUMS: Final = {name: (f"{name}_sum", "") for name in _BUCKETS}


def buckets(family: Family, values: Mapping[Key, float]) -> list[tuple[str, float]]:
    """A histogram's buckets as Prometheus has them, each upper bound with all that is at most that; '+Inf' has all."""
    found, total = [], 0.0
    for key in _BUCKETS[family.name]:
        total += values.get(key, 0.0)
        found.append((key[1].partition("=")[2], total))
    return found


def labels_in(text: str) -> dict[str, str]:
    """The labels that a text has. Raises ValueError when it is no such text."""
    if _LABELS.fullmatch(text) is None:
        raise ValueError("no text of labels")
    return dict(part.split("=", 1) for part in text.split(",")) if text else {}
