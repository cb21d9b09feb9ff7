"""All lanes of a worker: which instance is given tasks and threads, in turn, and which ones are down.

Only the main loop uses it. An instance that is down costs one probe at a time; its other tasks stay in the queue.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from daemon.config import Config
from daemon.errors import ERRORS, Action
from daemon.model.task import Task
from daemon.model.upload import Destination
from daemon.process.thread_pools import begin_pool
from daemon.task_queue import Claim
from worker.dispatch.lane import Lane
from worker.dispatch.outages import Outages

#: How many small tasks are claimed ahead for one lane: enough that runners never wait for the main loop.
CLAIM_AHEAD: Final = 64
#: One more runner is worth its connection for so many waiting small files.
_FILES_PER_RUNNER: Final = 8
#: One thread of so many, at least one, never pushes bulky files; nor does an instance that is down get one as its probe
#: more often, as long as there are small ones.
_SMALL_SHARE: Final = 4
#: So many lanes for each thread may hold claimed tasks.
_LANES_PER_THREAD: Final = 4
#: An instance that was down, and that nothing was sent to for so long, counts as up again.
_FORGET_S: Final = 600.0
#: An instance that is down is probed at least so often, or as often as `retry.max_delay_s` says.
_PROBE_S: Final = 60.0
#: An instance's key is `remote/project/instance`.
_SLASHES: Final = 2
#: Instances asked for at once.
_PAGE: Final = 64


@dataclass(frozen=True)
class RunnerEnded:
    """A message: a runner's thread is done, well or not."""

    future: "Future[None]"


class Lanes:
    """The lanes of one shard, and the threads that empty them."""

    def __init__(
        self, queue: Claim, outages: Outages, config: Config,
        run: Callable[[Lane, Callable[[], Config]], None], report: Callable[[RunnerEnded], None],
    ) -> None:
        self._queue = queue
        self._outages = outages
        self._config = config
        self._run = run
        self._report = report
        self._down: dict[str, Lane] = {}
        #: Lanes that hold claimed tasks or runners; the longest without a new runner first.
        self._active: dict[str, Lane] = {}
        self._threads = config.delivery.per_worker
        #: Bulky tasks that may be claimed at once: some threads are always left for small ones.
        self._most_bulk = max(1, self._threads - max(1, self._threads // _SMALL_SHARE))
        self._bulk_room = self._most_bulk
        self._pool = begin_pool(self._threads, "runner")
        self._running: dict[Future[None], Lane] = {}
        self._cursor = ""
        self._rng = random.Random()

    def configure(self, config: Config) -> None:
        """Use another configuration from now on (the number of threads stays)."""
        self._config = config

    def lane(self, destination: Destination) -> Lane:
        """The lane to an instance."""
        key = destination.instance_key
        known = self._active.get(key) or self._down.get(key)
        return known or Lane(destination, most_bulk=max(1, self._config.delivery.per_instance - 1))

    def active(self) -> list[Lane]:
        """Lanes that hold claimed tasks or runners."""
        return list(self._active.values())

    def down(self) -> list[Lane]:
        """Lanes whose instance is known to be down."""
        return list(self._down.values())

    # --- what is known of the instances ------------------------------------------------------------------

    def note_down(self, lane: Lane, code: str, until: float) -> list[Task]:
        """Remember that the instance is down; return the claimed tasks that were not begun.

        An instance that has to be waited for keeps its tasks from ageing meanwhile.
        """
        lane.down_until, lane.down_code = until, code
        lane.failures += 1
        self._down[lane.key] = lane
        if ERRORS[code].action is Action.WAIT:
            self._outages.begin(lane.key)
        else:
            self._outages.end(lane.key)
        return lane.hand_back()

    def note_up(self, lane: Lane) -> bool:
        """Remember that the instance answers; return True if it was down."""
        lane.down_until, lane.failures = None, 0
        self._outages.end(lane.key)
        return self._down.pop(lane.key, None) is not None

    def try_again(self, matches: Callable[[Lane], bool]) -> None:
        """Probe instances that are down at once: something about them has changed."""
        for lane in self._down.values():
            if matches(lane):
                lane.down_until = 0.0

    def next_probe_at(self, now: float) -> float | None:
        """When the next instance that is down may be probed, in seconds since the epoch, after `now`.

        One that may be probed already, but has no task to probe it with, is forgotten after a while.
        """
        for lane in [lane for lane in self._down.values() if (lane.down_until or 0.0) < now - _FORGET_S]:
            if not lane.busy():
                self.note_up(lane)
        times = [lane.down_until for lane in self._down.values() if lane.down_until is not None]
        return min((at for at in times if at > now), default=None)

    # --- giving out tasks and threads --------------------------------------------------------------------

    def dispatch(self, now: float, may_use: Callable[[str], bool]) -> int:
        """Claim tasks and start runners where that is possible now; return how many tasks were claimed.

        `may_use` tells whether a remote answers.
        """
        claimed = 0
        self._let_go_of_idle()
        self._heed_clock(now)
        self._bulk_room = self._most_bulk - sum(lane.bulky() for lane in self._active.values())
        for key in self._ready():
            if not self._has_room(key):
                break
            if key.count("/") != _SLASHES:
                # No upload goes there: claiming such rows makes dead letters of them.
                self._queue.claim(key, CLAIM_AHEAD)
                continue
            remote, project, instance = key.split("/")
            lane = self.lane(Destination(remote, project, instance, "/"))
            if self._may_try(lane, now, may_use):
                claimed += self._fill(lane)
        self._start_runners()
        return claimed

    def _heed_clock(self, now: float) -> None:
        """Have no instance wait longer than any is to, also when the clock was set back."""
        latest = now + max(_PROBE_S, self._config.retry.max_delay_s)
        for lane in self._down.values():
            if lane.down_until is not None:
                lane.down_until = min(lane.down_until, latest)

    def _let_go_of_idle(self) -> None:
        self._active = {key: lane for key, lane in self._active.items() if lane.runners or lane.busy()}

    def _has_room(self, key: str) -> bool:
        """True when a lane may hold something: it does already, or not too many others do."""
        return key in self._active or len(self._active) < self._threads * _LANES_PER_THREAD

    @staticmethod
    def _may_try(lane: Lane, now: float, may_use: Callable[[str], bool]) -> bool:
        """True when an instance is up, as far as is known, or may be probed."""
        return may_use(lane.destination.remote) and (lane.down_until is None or lane.down_until <= now)

    def _ready(self) -> Iterator[str]:
        """Every instance with queued tasks, once, beginning after the one that came last before."""
        start = self._cursor
        for wrapped in (False, True):
            self._cursor = "" if wrapped else start
            while keys := self._queue.ready_instances(self._cursor, _PAGE):
                for key in keys:
                    if wrapped and key > start:
                        return
                    self._cursor = key
                    yield key

    def sweep(self, tasks: list[Task], now: float, may_use: Callable[[str], bool]) -> None:
        """Have part files of one instance removed, if it can be reached now; runners are started by `dispatch`.

        None of the tasks may be claimed; until this is done none can be. An instance that is down gets one, as a probe.
        """
        lane = self.lane(tasks[0].destination)
        down = lane.down_until is not None
        if lane.sweeping() or (down and lane.busy()):
            return
        self._let_go_of_idle()
        if self._has_room(lane.key) and self._may_try(lane, now, may_use):
            lane.sweep(tasks[:1] if down else tasks)
            self._active.setdefault(lane.key, lane)

    def _fill(self, lane: Lane) -> int:
        if lane.sweeping():
            # A task whose part file is to be removed may be queued again by now.
            return 0
        if lane.down_until is not None:
            return 0 if lane.busy() else self._claim_probe(lane)
        small = CLAIM_AHEAD - lane.waiting(bulk=False)
        bulk = min(lane.most_bulk - lane.bulky(), self._bulk_room)
        # Refill in half-empty steps: fewer, larger transactions.
        return self._claim(lane, small if small * 2 >= CLAIM_AHEAD else 0, bulk)

    def _claim_probe(self, lane: Lane) -> int:
        """Claim one task, any: where one path hangs, those that go there must not be every probe."""
        share = self._rng.random()
        kinds = [(1, 0), (0, 1)]
        if lane.failures % _SMALL_SHARE == 0:
            kinds.reverse()
        return next(filter(None, (self._claim(lane, *kind, share) for kind in kinds)), 0)

    def _claim(self, lane: Lane, small: int, bulk: int, share: float = 0.0) -> int:
        claimed = 0
        for limit, bulky in ((small, False), (bulk, True)):
            tasks = self._queue.claim(lane.key, limit, bulk=bulky, share=share) if limit > 0 else []
            if tasks:
                lane.add(tasks)
                self._active.setdefault(lane.key, lane)
            claimed += len(tasks)
            self._bulk_room -= len(tasks) if bulky else 0
        return claimed

    def _start_runners(self) -> None:
        free = self._threads - len(self._running)
        wanting = [lane for lane in self._active.values() if lane.runners < self._wanted(lane)]
        hungry = [lane for lane in wanting if lane.runners == 0]
        for lane in self._active.values():
            lane.give_way(len(hungry) > free)
        for lane in itertools.islice(itertools.chain(hungry, wanting), free):
            if lane.runners < self._wanted(lane):
                self._start(lane)

    def _wanted(self, lane: Lane) -> int:
        small, bulk = lane.waiting(bulk=False), lane.waiting(bulk=True)
        pushing = lane.busy() - small - bulk
        return min(self._config.delivery.per_instance, pushing + -(-small // _FILES_PER_RUNNER) + bulk)

    def _start(self, lane: Lane) -> None:
        lane.runners += 1
        self._active[lane.key] = self._active.pop(lane.key)
        future = self._pool.submit(self._run, lane, lambda: self._config)
        self._running[future] = lane
        future.add_done_callback(lambda ended: self._report(RunnerEnded(ended)))

    def reap(self, ended: RunnerEnded) -> tuple[Lane, BaseException | None]:
        """Take note of a runner's end; return its lane, and the mistake that ended it, if any."""
        lane = self._running.pop(ended.future)
        lane.runners -= 1
        if lane.runners == 0 and not lane.busy():
            self._active.pop(lane.key, None)
        return lane, ended.future.exception()

    # --- the end -----------------------------------------------------------------------------------------

    def close(self) -> list[Task]:
        """Start no more pushes; return the claimed tasks that were not begun. Runners end after what they push."""
        tasks = [task for lane in self._active.values() for task in lane.hand_back()]
        for lane in self._active.values():
            lane.close()
        self._pool.shutdown(wait=False)
        return tasks

    def stop_pushes(self) -> None:
        """Have what is still being pushed end before its rename."""
        for lane in self._active.values():
            lane.stop()

    @property
    def runners(self) -> int:
        """How many runners there are."""
        return len(self._running)
