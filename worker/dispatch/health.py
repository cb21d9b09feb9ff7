"""What is known of the instances: which ones have answered, which ones are down, and when those are tried again.

Only the main loop uses it. Whatever it is asked in each turn costs the same for one instance that is down as for many.
"""

import heapq
import itertools
import time
from collections.abc import Iterable, Iterator
from typing import Final

from daemon.errors import ERRORS, Action, Cause
from daemon.model.upload import Destination
from worker.dispatch.lane import Lane
from worker.dispatch.outages import Outages

#: An instance that was down, and that nothing was sent to for so long, counts as up again.
_FORGET_S: Final = 600.0
#: Instances that have answered are remembered up to this number; one that is forgotten is only tried first again.
_REMEMBERED: Final = 20_000


class Health:
    """The instances of one shard, by their keys."""

    def __init__(self, outages: Outages) -> None:
        self._outages = outages
        #: The one that answered last comes last.
        self._answered: dict[str, None] = {}
        self._down: dict[str, Lane] = {}
        #: When to look at an instance that is down, in seconds since the epoch. Times that are outdated stay in.
        self._times: list[tuple[float, str]] = []
        #: No instance that is down waits for longer than until then.
        self._latest = 0.0

    def has_answered(self, key: str) -> bool:
        """True when it answered when it was last tried."""
        return key in self._answered

    def down(self) -> list[Lane]:
        """Lanes whose instance is known to be down."""
        return list(self._down.values())

    def first_down(self, limit: int) -> tuple[list[Lane], int]:
        """Up to `limit` of these lanes, those first that are down for longest, and how many more there are."""
        return list(itertools.islice(self._down.values(), limit)), max(0, len(self._down) - limit)

    def find(self, key: str) -> Lane | None:
        """The lane of an instance that is down."""
        return self._down.get(key)

    def is_due(self, key: str, now: float) -> bool:
        """True unless it is down and has to be left alone at the moment."""
        lane = self._down.get(key)
        return lane is None or lane.down_until is None or lane.down_until <= now

    def note_down(self, lane: Lane, code: str, until: float, message: str = "") -> None:
        """Remember that the instance is down. One that has to be waited for keeps its tasks from ageing meanwhile."""
        if lane.key not in self._down:
            lane.down_since = time.time()
        lane.down_code, lane.down_message = code, message
        lane.failures += 1
        self._answered.pop(lane.key, None)
        self._down[lane.key] = lane
        self._look_at(lane, until)
        if ERRORS[code].action is Action.WAIT:
            self._outages.begin(lane.key)
        else:
            self._outages.end(lane.key)

    def note_up(self, destination: Destination) -> bool:
        """Remember that the instance answers; return True if it was down."""
        key = destination.instance_key
        self._answered.pop(key, None)
        self._answered[key] = None
        if len(self._answered) > _REMEMBERED:
            del self._answered[next(iter(self._answered))]
        return self._forget(key)

    def _forget(self, key: str) -> bool:
        lane = self._down.pop(key, None)
        if lane is not None:
            lane.down_until, lane.failures = None, 0
            self._outages.end(key)
        return lane is not None

    def try_again(self, keys: Iterable[str]) -> None:
        """Leave instances alone no longer: something about them has changed."""
        for lane in filter(None, map(self._down.get, keys)):
            self._look_at(lane, 0.0)

    def may_be_paused(self, key: str) -> bool:
        """True when the instance is down for a reason that ends when it is resumed: it, or its agent, says nothing."""
        lane = self._down.get(key)
        kind = ERRORS.get(lane.down_code) if lane is not None else None
        return kind is not None and (kind.cause is Cause.SILENT or kind.action is Action.WAIT)

    def try_remote_again(self, remote: str) -> None:
        """The same for all instances of a remote."""
        self.try_again(lane.key for lane in self.down() if lane.destination.remote == remote)

    def _look_at(self, lane: Lane, until: float) -> None:
        lane.down_until = until
        self._latest = max(self._latest, until)
        heapq.heappush(self._times, (until, lane.key))

    def heed_clock(self, latest: float) -> None:
        """Leave no instance alone for longer than until `latest`: the clock may have been set back."""
        if self._latest > latest:
            self._latest = latest
            for lane in self.down():
                if lane.down_until is not None and lane.down_until > latest:
                    self._look_at(lane, latest)

    def take_due(self, now: float, limit: int) -> list[str]:
        """Up to `limit` instances that may be tried now, each once; those that nothing was sent to are forgotten."""
        return list(itertools.islice(self._due(now), limit))

    def _due(self, now: float) -> Iterator[str]:
        while self._times and self._times[0][0] <= now:
            at, key = heapq.heappop(self._times)
            lane = self._down.get(key)
            if lane is None or lane.down_until is None or lane.down_until > at:
                continue
            if at < lane.down_until + _FORGET_S or lane.busy():
                heapq.heappush(self._times, (max(now, lane.down_until) + _FORGET_S, key))
                yield key
            else:
                self._forget(key)

    def next_at(self) -> float | None:
        """When there may be the next one to take, in seconds since the epoch."""
        return self._times[0][0] if self._times else None
