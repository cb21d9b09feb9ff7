"""The threads of all runners: how many there are, for whom, and how long each may stand still.

`delivery.per_worker` limits what moves. A thread that waits for an answer costs next to nothing, so one that has waited
for a while counts no longer, and others go on in its place. The number of all threads has a limit of its own: where
many stand still and others wait, the patience with each is short. Only the main loop uses this.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from daemon.config import Config
from daemon.process.thread_pools import begin_pool
from worker.dispatch.lane import Lane
from worker.targets.base import Patience

#: Threads besides `delivery.per_worker`, for instances that have not answered yet and for what stands still. A thread
#: that waits takes some 50 KiB. With these, 500 instances of one worker that hang are tried within two seconds.
SPARE_THREADS: Final = 240
#: So many of them try instances that have not answered, at most: the rest is for pushes that came to a standstill.
_MOST_TRIES: Final = 180
#: So many of these try instances that failed when they were last tried: those that were not tried yet find a thread.
_MOST_AGAIN: Final = 80
#: Tries that move, at most: each takes the interpreter from the pushes.
_TRIES_AT_ONCE: Final = 8
#: A push that has waited for so long stands still; and a try, or when it has waited for so many times as long as others
#: take that get an answer: on a busy machine all take longer, and more of them at once would not help.
_PUSH_STANDS_S: Final = 0.5
_TRY_STANDS_S: Final = 0.03
_TIMES_LONGER: Final = 4.0
#: How much of what is usual the last answer makes, and after how many seconds without one half of that is forgotten.
_WEIGHT: Final = 0.2
_HALF_LIFE_S: Final = 1.0
#: From so many threads on that stand still, patience is short.
_CROWD: Final = 120
#: The short patience with an instance that has not answered yet, and with one that has; twice as long after each
#: failure, so that one that is slow comes through in the end.
_FIRST_ANSWER_S: Final = 0.5
_ANSWER_S: Final = 2.0


@dataclass(frozen=True)
class RunnerEnded:
    """A message: a runner's thread is done, well or not."""

    future: "Future[None]"


@dataclass(eq=False)
class _Runner:
    lane: Lane
    patience: Patience
    #: Monotonic time.
    began: float


@dataclass(frozen=True)
class FreeThreads:
    """How many runners may be started now."""

    #: For instances that have answered.
    pushes: int
    #: For others, and how many of these for instances that failed when they were last tried.
    tries: int
    again: int
    #: More runners could be started, if those that move now stood still: it is worth to look again soon.
    may_grow: bool


class Crew:
    """All runners of a worker."""

    def __init__(
        self, config: Config, has_answered: Callable[[str], bool],
        run: Callable[[Lane, Callable[[], Config], Patience], None], report: Callable[[RunnerEnded], None],
    ) -> None:
        """`run` is the work of one thread; `report` is called from it when it is done."""
        self._config = config
        self._has_answered = has_answered
        self._run = run
        self._report = report
        self._pushes = config.delivery.per_worker
        self._pool = begin_pool(self._pushes + SPARE_THREADS, "runner")
        self._runners: dict[Future[None], _Runner] = {}
        self._crowded = False
        #: How long a try takes that gets an answer, and when the last one got its.
        self._usual_s = 0.0
        self._answered_at = 0.0

    def __len__(self) -> int:
        return len(self._runners)

    def counts(self) -> tuple[int, int]:
        """How many runners hold a session, and how many stand still."""
        now = time.monotonic()
        patience = [runner.patience for runner in self._runners.values()]
        return sum(one.in_session for one in patience), sum(one.stands(now, _PUSH_STANDS_S) for one in patience)

    def configure(self, config: Config) -> None:
        """Use another configuration from now on (the number of threads stays)."""
        self._config = config

    def room(self) -> FreeThreads:
        """How many runners may be started now."""
        now = time.monotonic()
        stands_s = self._try_stands_s(now)
        pushes = tries = again = 0
        for runner in self._runners.values():
            if self._has_answered(runner.lane.key):
                pushes += not runner.patience.stands(now, _PUSH_STANDS_S)
            else:
                tries += not runner.patience.stands(now, stands_s)
                again += runner.lane.failures > 0
        spare = len(self._runners) - pushes
        threads = self._pushes + SPARE_THREADS - len(self._runners)
        left = _MOST_TRIES - spare
        return FreeThreads(pushes=min(self._pushes - pushes, threads), tries=min(_TRIES_AT_ONCE - tries, left, threads),
                    again=_MOST_AGAIN - again, may_grow=left > 0)

    def have_patience(self) -> None:
        """Give each runner the patience that there is room for now."""
        now = time.monotonic()
        stands_s = self._try_stands_s(now)
        crowded = sum(runner.patience.stands(now, stands_s) for runner in self._runners.values()) >= _CROWD
        if crowded or self._crowded:
            self._crowded = crowded
            for runner in self._runners.values():
                runner.patience.limit_s = self._limit_s(runner.lane)

    def _limit_s(self, lane: Lane) -> float:
        if not self._crowded:
            return math.inf
        remote = self._config.remote(lane.destination.remote)
        limit_s = (_ANSWER_S if self._has_answered(lane.key) else _FIRST_ANSWER_S) * 2.0 ** min(lane.failures, 60)
        return math.inf if remote is None or limit_s >= remote.timeout_s else limit_s

    def start(self, lane: Lane) -> None:
        """Start a runner for a lane."""
        lane.runners += 1
        runner = _Runner(lane, Patience(self._limit_s(lane)), time.monotonic())
        future = self._pool.submit(self._run, lane, lambda: self._config, runner.patience)
        self._runners[future] = runner
        future.add_done_callback(lambda ended: self._report(RunnerEnded(ended)))

    def reap(self, ended: RunnerEnded) -> Lane:
        """Take note of a runner's end; return its lane."""
        runner = self._runners.pop(ended.future)
        runner.lane.runners -= 1
        if not (runner.patience.silent or self._has_answered(runner.lane.key)):
            self._answered_at = time.monotonic()
            self._usual_s += _WEIGHT * (self._answered_at - runner.began - self._usual_s)
        return runner.lane

    def _try_stands_s(self, now: float) -> float:
        usual_s: float = self._usual_s * 0.5 ** ((now - self._answered_at) / _HALF_LIFE_S)
        return max(_TRY_STANDS_S, _TIMES_LONGER * usual_s)

    def close(self) -> None:
        """Start no more."""
        self._pool.shutdown(wait=False)
