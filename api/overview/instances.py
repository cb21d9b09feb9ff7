"""The instances in the order of what waits for them, page by page, and how each of them stands.

Guarantees: an instance for which as much waits as before is on one page exactly, however the others move meanwhile.
What is asked of the queue is bounded, however many instances there are and however few of them somebody may see: then a
page may be empty, and lead on.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from typing import Final

from daemon.errors import Rejected
from daemon.explain import Explanation
from daemon.model.names import INSTANCE, PROJECT, REMOTE
from daemon.model.task import PENDING
from daemon.task_queue import Standing

#: Ages that tell one column from the next: 5 and 15 minutes, 1, 4 and 12 hours, 1 and 3 days.
BOUNDS_S: Final = (300, 900, 3600, 14400, 43200, 86400, 259200)
#: Each cell is counted so far.
MOST: Final = 1000
#: Instances that are looked at for one page.
LOOKED_AT: Final = 5000
#: How long a row holds.
MAX_AGE_S: Final = 1.0
#: What `Rank.cursor` makes: how many wait, and the key of an instance.
CURSOR: Final = f"[0-9]{{1,15}}/{REMOTE}/{PROJECT}/{INSTANCE}"
_CURSOR: Final = re.compile(CURSOR)


@dataclass(frozen=True, order=True)
class Rank:
    """The place of an instance: more waiting first, then by name."""

    #: Tasks that wait for it, negated: lower ones come first.
    order: int
    instance_key: str

    @property
    def waiting(self) -> int:
        """How many tasks wait for it."""
        return -self.order

    @property
    def cursor(self) -> str:
        """What leads to those that come after it."""
        return f"{self.waiting}/{self.instance_key}"

    @classmethod
    def read(cls, cursor: str) -> "Rank":
        """The place that a cursor stands for. Raises Rejected('bad_query')."""
        if not _CURSOR.fullmatch(cursor):
            raise Rejected("bad_query", "`after` is what `next` of a page has.")
        waiting, _, key = cursor.partition("/")
        return cls(-int(waiting), key)


@dataclass(frozen=True)
class Ranking:
    """Instances in their order, from a place on."""

    ranks: tuple[Rank, ...]
    #: How many more there are behind them.
    more: int


@dataclass(frozen=True)
class Page:
    """Those of a ranking that somebody sees."""

    ranks: tuple[Rank, ...]
    #: How many more he sees, as far as that is known.
    more: int
    #: Where to go on; None: there are none.
    after: Rank | None


@dataclass(frozen=True)
class InstanceRow:
    """How one instance stands."""

    standing: Standing
    #: Tasks that wait, by their age; each is counted up to MOST.
    ages: tuple[int, ...]
    explanation: Explanation

    @property
    def known(self) -> bool:
        """True when there are tasks of it, finished or not."""
        return any(total.tasks for total in self.standing.totals.values())

    @property
    def waiting(self) -> int:
        """How many tasks wait for it."""
        return sum(total.tasks for state, total in self.standing.totals.items() if state in PENDING)


def together(rankings: Iterable[Ranking], limit: int) -> Ranking:
    """The first of all shards. Pure."""
    all_of_them = list(rankings)
    ranks = tuple(islice(merge(*(ranking.ranks for ranking in all_of_them)), limit))
    known = sum(len(ranking.ranks) + ranking.more for ranking in all_of_them)
    return Ranking(ranks, known - len(ranks))


def page_of(ranking: Ranking, limit: int, sees: Callable[[str], bool] | None) -> Page:
    """The first of a ranking that somebody sees; without `sees` he sees all of them. Pure."""
    if sees is None:
        ranks = ranking.ranks[:limit]
        more = len(ranking.ranks) - len(ranks) + ranking.more
        return Page(ranks, more, ranks[-1] if more and ranks else None)
    seen = [rank for rank in ranking.ranks if sees(rank.instance_key)]
    if len(seen) > limit:
        return Page(tuple(seen[:limit]), len(seen) - limit, seen[limit - 1])
    # Behind those that were looked at there may be more.
    return Page(tuple(seen), 0, ranking.ranks[-1] if ranking.more and ranking.ranks else None)


class Rows:
    """How instances stand, each found out at most once a second. From any thread; blocks on the disk."""

    def __init__(self, look: Callable[[Sequence[str]], Sequence[InstanceRow]]) -> None:
        """`look` finds out how some instances stand, in the order of their keys."""
        self._look = look
        self._lock = threading.Lock()
        self._rows: dict[str, InstanceRow] = {}
        self._at = float("-inf")

    def of(self, instance_keys: Sequence[str]) -> list[InstanceRow]:
        """How they stand. Raises what looking raises."""
        with self._lock:
            if time.monotonic() - self._at >= MAX_AGE_S:
                self._rows.clear()
                self._at = time.monotonic()
            unknown = [key for key in instance_keys if key not in self._rows]
            if unknown:
                self._rows.update(zip(unknown, self._look(unknown), strict=True))
            return [self._rows[key] for key in instance_keys]
