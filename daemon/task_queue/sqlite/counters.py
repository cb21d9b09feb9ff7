"""What is counted for good: added to in the transactions that do what is counted, one statement for each of them."""

import sqlite3
from collections.abc import Iterator, Mapping
from functools import cache
from math import isfinite
from typing import Final

from daemon.model.counters import EVENTS, KEPT_NAMES, Key, labels_in
from daemon.task_queue.sqlite.base import QueueBase
from daemon.task_queue.sqlite.batches import values
from daemon.task_queue.values import Counter

#: More than there are names and labels.
_MOST: Final = 10_000


def count(connection: sqlite3.Connection, grown: Mapping[Key, float]) -> None:
    """Add to counters, as part of a transaction."""
    if grown:
        connection.execute(_add(len(grown)), [value for key, number in grown.items() for value in (*key, number)])


@cache
def _add(number: int) -> str:
    return f"INSERT INTO counters {values(number, 3)} ON CONFLICT DO UPDATE SET value = value + excluded.value"


class QueueCounters(QueueBase):
    """Reading what is counted."""

    def counters(self) -> list[Counter]:
        """All of them, as they are at the same moment. Damaged rows are left out."""
        rows = self.read("SELECT * FROM (SELECT name, labels, value FROM counters LIMIT ?) UNION ALL"
                         " SELECT ?, ?, seq FROM sqlite_sequence WHERE name = 'events'", (_MOST, *EVENTS))
        sums: dict[Key, float] = {}
        for name, labels, value in rows:
            if _is_sound(name, labels, value):
                sums[name, labels] = sums.get((name, labels), 0.0) + value
        return [Counter(name=name, labels=labels, value=max(0.0, value)) for name, labels, value in _with_counts(sums)]


def _is_sound(name: object, labels: object, value: object) -> bool:
    if name not in KEPT_NAMES or not isinstance(labels, str) or not isinstance(value, int | float):
        return False
    try:
        labels_in(labels)
    except ValueError:
        return False
    return isfinite(value)


def _with_counts(sums: Mapping[Key, float]) -> Iterator[tuple[str, str, float]]:
    """The sums and, of each histogram, how many values there were."""
    counts: dict[str, float] = {}
    for (name, labels), value in sums.items():
        yield name, labels, value
        family, bucket, _ = name.rpartition("_bucket")
        if bucket:
            counts[family] = counts.get(family, 0.0) + value
    for family, number in counts.items():
        yield f"{family}_count", "", number
