"""What an API process counts, in plain numbers: it costs an upload a microsecond or two."""

from bisect import bisect_left
from typing import Final

from daemon.errors import ERRORS
from daemon.model import counters
from daemon.model.counters import ACCEPT_SECONDS, Key


class Counted:
    """What this process has counted since it began. On the event loop only."""

    def __init__(self) -> None:
        self._values: Final[dict[Key, float]] = {}
        self._received_bytes = 0
        #: Uploads by how long they took; the last ones took longer than any bound.
        self._buckets = [0] * (len(ACCEPT_SECONDS.bounds) + 1)
        self._seconds = 0.0

    def accept(self, seconds: float, *, replayed: bool) -> None:
        """Count an upload that was accepted after so many seconds."""
        self._add(counters.REPLAYED if replayed else counters.NEW, 1)
        self._buckets[bisect_left(ACCEPT_SECONDS.bounds, seconds)] += 1
        self._seconds += seconds

    def receive(self, size_bytes: int) -> None:
        """Count bytes of an upload that came in."""
        self._received_bytes += size_bytes

    def refuse(self, code: object) -> None:
        """Count a refusal; what is no code of the table of errors is not counted."""
        if code in ERRORS:
            self._add(counters.refusals(str(code)), 1)

    def values(self) -> dict[Key, float]:
        """All that was counted, by its keys (`daemon.model.counters.API_FAMILIES`)."""
        return {**self._values, counters.RECEIVED_BYTES: self._received_bytes,
                **counters.in_buckets(ACCEPT_SECONDS, self._buckets, self._seconds)}

    def _add(self, key: Key, number: float) -> None:
        self._values[key] = self._values.get(key, 0) + number
