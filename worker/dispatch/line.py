"""The instances that wait to be tried, never tried since the start or down and due: who comes first."""

import heapq
import itertools
from collections import OrderedDict


class Line:
    """Keys of instances, each once.

    Those that failed least often come first: a healthy one never waits for those that were found out already. Of those
    that have not failed yet, every other one is the one that got an upload last, so that it is found soon also behind
    many that hang; in between comes the one that has waited longest.
    """

    def __init__(self) -> None:
        self._new: OrderedDict[str, None] = OrderedDict()
        #: Those of them that got an upload since the start; the last one last.
        self._fresh: OrderedDict[str, None] = OrderedDict()
        self._failed: list[tuple[int, int, str]] = []
        self._has_failed: set[str] = set()
        self._numbers = itertools.count()
        self._fresh_next = True

    def __len__(self) -> int:
        return len(self._new) + len(self._fresh) + len(self._failed)

    def add(self, key: str, failures: int, *, fresh: bool = False) -> None:
        """Let an instance wait, if it does not already; `fresh` is for one that has just got an upload."""
        if failures:
            self._add_failed(key, failures)
        elif fresh:
            self._new.pop(key, None)
            self._fresh[key] = None
            self._fresh.move_to_end(key)
        elif key not in self._fresh:
            self._new[key] = None

    def _add_failed(self, key: str, failures: int) -> None:
        if key not in self._has_failed:
            self._has_failed.add(key)
            heapq.heappush(self._failed, (failures, next(self._numbers), key))

    def take(self, *, failed: bool) -> str | None:
        """The next one, or None. Without `failed` only one that has not failed yet."""
        if self._new or self._fresh:
            return self._take_new()
        if failed and self._failed:
            _, _, key = heapq.heappop(self._failed)
            self._has_failed.remove(key)
            return key
        return None

    def _take_new(self) -> str:
        fresh, self._fresh_next = self._fresh_next, not self._fresh_next
        if fresh and self._fresh:
            return self._fresh.popitem()[0]
        return (self._new or self._fresh).popitem(last=False)[0]
