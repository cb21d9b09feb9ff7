"""Finds out how the whole stands, and how instances do: blocks on the disk, and never fails because a shard does."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from api.live_config import LiveConfig
from api.overview.instances import BOUNDS_S, LOOKED_AT, MOST, InstanceRow, Page, Rank, Ranking, Rows, page_of, together
from api.queries.reader import Reader, ShardCounts
from daemon.config import Config
from daemon.config.naming import name_of_key
from daemon.errors import CourierError, Rejected
from daemon.explain import ServiceFacts, explain_instance, read_service
from daemon.explain.problems import DiskRoom, Problem, in_order
from daemon.explain.standing import remotes_of, sample_of
from daemon.model import counters
from daemon.model.task import PENDING, State, Task
from daemon.partials import Census, Partials
from daemon.state.activity import RemoteStanding
from daemon.state.history import HistoryFile, Rates, Sample, Series, rates_now, series
from daemon.state.layout import Layout
from daemon.task_queue import Standing, Total

#: Instances that are looked at to tell what is stuck: those with most waiting, and those that workers leave alone.
LOOKED_THROUGH: Final = 50
BLOCKED: Final = 50
#: States whose bytes are kept.
_KEPT: Final = PENDING | {State.FAILED}


@dataclass(frozen=True, kw_only=True)
class Stock:
    """What there was at one moment, without a look at single instances."""

    #: In seconds since the epoch.
    at: float
    counts: dict[State, Total]
    oldest_at: float | None
    room: DiskRoom
    partials: Census
    services: tuple[ServiceFacts, ...]
    #: The shards that could not be read: nothing of them is in the counts.
    unreadable: frozenset[int] = frozenset()
    #: The sums that only grow, of all shards; None where one cannot be read, as they would go back without it.
    counted: Mapping[counters.Key, float] | None = None
    remotes: tuple[RemoteStanding, ...]


@dataclass(frozen=True, kw_only=True)
class Whole(Stock):
    """How the whole stood at one moment."""

    problems: tuple[Problem, ...]
    #: None while they are not known.
    rates: Rates | None
    series: Series


class Surveyor:
    """Finds it out. From any thread."""

    def __init__(
        self, live: LiveConfig, layout: Layout, reader: Reader, partials: Partials, history: HistoryFile,
        examine: Callable[[Config], Sequence[CourierError]],
    ) -> None:
        """`examine` tells what stands in the way of uploads."""
        self._live = live
        self._layout = layout
        self._reader = reader
        self._partials = partials
        self._history = history
        self._examine = examine
        self._rows = Rows(self._look_at)

    def look(self) -> Whole:
        """How the whole stands now."""
        stock, counts = self._take_stock()
        now, hour = stock.at, self._history.read()
        problems = in_order(
            now=now, services=stock.services, reasons=self._examine(self._live.config), remotes=stock.remotes,
            room=stock.room, dead=stock.counts[State.FAILED].tasks,
            stuck=[(self._name(row.standing.instance_key), row.explanation) for row in self._suspects(stock.services)])
        return Whole(
            **vars(stock), problems=tuple(problems), series=series(hour, now),
            rates=rates_now(hour, _sample(counts, now)) if not stock.unreadable else None)

    def stock(self) -> Stock:
        """What there is now. Costs less than to look."""
        return self._take_stock()[0]

    def _take_stock(self) -> tuple[Stock, list[ShardCounts]]:
        now = time.time()
        found, services = self._shards()
        counts = [one for one in found if one is not None]
        totals = _sums(counts)
        unreadable = frozenset(shard for shard, one in enumerate(found) if one is None)
        return Stock(
            at=now, counts=totals, oldest_at=min((one.oldest_at for one in counts if one.oldest_at), default=None),
            room=self._room(totals), partials=self._census(), services=services, unreadable=unreadable,
            counted=None if unreadable else counters.added(one.counters for one in counts),
            remotes=remotes_of(services)), counts

    def record(self) -> None:
        """Write down what has been counted, for the history; where that cannot be done there is a gap."""
        with suppress(OSError, Rejected):
            self._history.add(_sample([self._reader.count(shard) for shard in range(self._reader.shards)], time.time()))

    def ranking(self, after: Rank | None = None) -> Ranking:
        """The instances from a place on, of all shards that can be read. Raises Rejected when none can."""
        found: list[Ranking] = []
        trouble: Rejected | None = None
        for shard in range(self._reader.shards):
            try:
                number, ranked = self._reader.ranked(
                    shard, LOOKED_AT, None if after is None else (after.waiting, after.instance_key))
            except Rejected as error:
                trouble = error
            else:
                found.append(Ranking(tuple(Rank(-waiting, key) for key, waiting in ranked), number - len(ranked)))
        if not found and trouble is not None:
            raise trouble
        return together(found, LOOKED_AT)

    def page(
        self, ranking: Ranking | None, after: Rank | None, limit: int, sees: Callable[[str], bool] | None,
    ) -> tuple[Page, list[InstanceRow]]:
        """The instances of a page, of that `ranking` or of one from `after` on; and how they stand. Raises Rejected."""
        page = page_of(ranking or self.ranking(after), limit, sees)
        return page, self.rows([rank.instance_key for rank in page.ranks])

    def rows(self, instance_keys: Sequence[str]) -> list[InstanceRow]:
        """How these instances stand, at most a second ago."""
        return self._rows.of(instance_keys)

    def _shards(self) -> tuple[list[ShardCounts | None], tuple[ServiceFacts, ...]]:
        """What is counted in each, None where it cannot be read; and how each of them is served."""
        counts: list[ShardCounts | None] = []
        services: list[ServiceFacts] = []
        for shard in range(self._reader.shards):
            service = read_service(self._layout, shard)
            try:
                counts.append(self._reader.count(shard))
            except Rejected as error:
                service = _faulty(service, error)
                counts.append(None)
            services.append(service)
        return counts, tuple(services)

    def _suspects(self, services: Iterable[ServiceFacts]) -> list[InstanceRow]:
        """The instances that may hold things up, those with most waiting first."""
        with suppress(Rejected):
            busiest = [rank.instance_key for rank in self.ranking().ranks[:LOOKED_THROUGH]]
            blocked = [one.instance_key for service in services if service.activity is not None
                       for one in service.activity.blocked][:BLOCKED]
            rows = self.rows(list(dict.fromkeys([*busiest, *(key for key in blocked if key.count("/") == 2)])))
            return sorted((row for row in rows if row.waiting or row.explanation.stuck),
                          key=lambda row: row.waiting, reverse=True)
        return []

    def _look_at(self, instance_keys: Sequence[str]) -> list[InstanceRow]:
        homes: dict[int, list[str]] = {}
        for key in instance_keys:
            homes.setdefault(self._reader.shard_of(key), []).append(key)
        rows = {row.standing.instance_key: row for shard, keys in homes.items() for row in self._look_in(shard, keys)}
        return [rows[key] for key in instance_keys]

    def _look_in(self, shard: int, keys: Sequence[str]) -> list[InstanceRow]:
        """How instances of one shard stand; where it cannot be read, that."""
        now, service = time.time(), read_service(self._layout, shard)
        ages: Sequence[tuple[int, ...]] = [(0,) * (len(BOUNDS_S) + 1)] * len(keys)
        standings = [Standing(instance_key=key, totals={}, oldest_at=None) for key in keys]
        oldest: list[list[Task]] = [[] for _ in keys]
        try:
            standings = self._reader.standings(keys)
            ages = self._reader.ages(keys, BOUNDS_S, now, MOST)
            oldest = [self._reader.oldest_of(standing) for standing in standings]
        except Rejected as error:
            service = _faulty(service, error)
        return [InstanceRow(standing, age, explain_instance(
                    standing, some, now, service, name=self._name(standing.instance_key)))
                for standing, age, some in zip(standings, ages, oldest, strict=True)]

    def _name(self, instance_key: str) -> str:
        return name_of_key(instance_key, self._live.config)

    def _room(self, totals: dict[State, Total]) -> DiskRoom:
        room = DiskRoom(min_free_bytes=self._live.config.limits.min_free_bytes,
                        spool_bytes=sum(totals[state].size_bytes for state in _KEPT))
        with suppress(OSError):
            found = os.statvfs(self._layout.spool)
            room = replace(
                room, free_bytes=found.f_bavail * found.f_frsize, total_bytes=found.f_blocks * found.f_frsize)
        return room

    def _census(self) -> Census:
        with suppress(Rejected):
            return self._partials.census()
        return Census()


def _faulty(service: ServiceFacts, error: Rejected) -> ServiceFacts:
    return service if service.code is not None else replace(service, code=error.code, message=error.detail)


def _sums(counts: Iterable[ShardCounts]) -> dict[State, Total]:
    sums = dict.fromkeys(State, Total())
    for one in counts:
        for state, total in one.totals.items():
            sums[state] = Total(sums[state].tasks + total.tasks, sums[state].size_bytes + total.size_bytes)
    return sums


def _sample(counts: Sequence[ShardCounts], now: float) -> Sample:
    return sample_of([one.counters for one in counts], _sums(counts), now)
