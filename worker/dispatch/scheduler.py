"""All lanes of a worker: which instance is given tasks and threads, in turn.

Only the main loop uses it. An instance that has not answered since the start, or is down, gets one task at a time and
a thread of those that are kept for that (`worker.dispatch.crew`); its other tasks stay in the queue. In one turn only
so many instances are looked at, however many wait.
"""

import itertools
import random
import time
from collections.abc import Callable
from typing import Final

from daemon.config import Config
from daemon.model.task import Task
from daemon.model.upload import Destination
from daemon.task_queue import Claim
from worker.dispatch.crew import Crew, FreeThreads, RunnerEnded
from worker.dispatch.health import Health
from worker.dispatch.lane import Lane
from worker.dispatch.line import Line
from worker.dispatch.outages import Outages
from worker.targets.base import Patience

#: How many small tasks are claimed ahead for one lane: enough that runners never wait for the main loop.
CLAIM_AHEAD: Final = 128
#: Bulky files that are pushed into one instance at the same time, at most: each has a session of its own.
_MOST_BULK: Final = 3
#: One thread of so many, at least one, never pushes bulky files; nor does an instance that is down get one as its probe
#: more often, as long as there are small ones.
_SMALL_SHARE: Final = 4
#: So many lanes for each thread may hold claimed tasks.
_LANES_PER_THREAD: Final = 4
#: An instance that is down is probed at least so often, or as often as `retry.max_delay_s` says.
_PROBE_S: Final = 60.0
#: An instance's key is `remote/project/instance`.
_SLASHES: Final = 2
#: Instances looked at in one turn, and how long it takes at least before the next ones are looked at.
_LOOK_AT: Final = 128
_LOOK_ON_S: Final = 0.01
#: Between two looks whether what moved stands still, while others wait.
_GROW_S: Final = 0.03


class Lanes:
    """The lanes of one shard, and the threads that empty them."""

    def __init__(
        self, queue: Claim, outages: Outages, config: Config,
        run: Callable[[Lane, Callable[[], Config], Patience], None], report: Callable[[RunnerEnded], None],
    ) -> None:
        self._queue = queue
        self._config = config
        #: What is known of the instances.
        self.health = Health(outages)
        #: Lanes that hold claimed tasks or runners; the longest without a new runner first.
        self._active: dict[str, Lane] = {}
        self._line = Line()
        self._threads = config.delivery.per_worker
        #: Bulky tasks that may be claimed at once: some threads are always left for small ones.
        self._most_bulk = max(1, self._threads - max(1, self._threads // _SMALL_SHARE))
        self._bulk_room = self._most_bulk
        #: Small tasks of a lane that are claimed ahead, and at most so many at once.
        self._ahead = CLAIM_AHEAD
        #: So many more lanes may hold tasks, besides those that are being tried.
        self._places = self._threads * _LANES_PER_THREAD
        self._crew = Crew(config, self.health.has_answered, run, report)
        #: The order of the newest task that was seen, and the instances of those that were new in this turn.
        self._seen, _ = queue.arrivals(0, 1)
        self._arrived: frozenset[str] = frozenset()
        #: True when something was new in the last `dispatch`, and nothing could be done about any of it.
        self.news_waits = False
        #: The instance that was looked at last, and when to look on, on the monotonic clock.
        self._cursor = ""
        self._look_on_at = 0.0
        #: True while others wait for the place of what moves.
        self._waited_for = False
        self._rng = random.Random()

    def configure(self, config: Config) -> None:
        """Use another configuration from now on (the number of threads stays)."""
        self._config = config
        self._crew.configure(config)

    def find(self, destination: Destination) -> Lane | None:
        """The lane to an instance that holds something, or that is known to be down."""
        key = destination.instance_key
        return self._active.get(key) or self.health.find(key)

    def _lane(self, destination: Destination) -> Lane:
        most_bulk = max(1, min(self._config.delivery.per_instance - 1, _MOST_BULK))
        return self.find(destination) or Lane(destination, most_bulk=most_bulk)

    def active(self) -> list[Lane]:
        """Lanes that hold claimed tasks or runners."""
        return list(self._active.values())

    def note_down(self, destination: Destination, code: str, until: float, message: str = "") -> list[Task]:
        """Remember that the instance is down; return the claimed tasks that were not begun."""
        lane = self._lane(destination)
        self.health.note_down(lane, code, until, message)
        return lane.hand_back()

    def next_look_in_s(self, now: float) -> float | None:
        """In how many seconds `dispatch` has something to do again, if nothing happens."""
        looks = [_GROW_S] if self._waited_for else []
        if self._look_on_at:
            looks.append(max(0.0, self._look_on_at - time.monotonic()))
        probe_at = self.health.next_at()
        if probe_at is not None:
            looks.append(max(0.0, probe_at - now))
        return min(looks, default=None)

    def claim_one_by_one(self) -> None:
        """The disk has no room for what many claims write: make small ones until `claim_more`."""
        self._ahead = 1

    def claim_more(self) -> None:
        """A turn went well: claim twice as many at once, up to the usual number."""
        self._ahead = min(2 * self._ahead, CLAIM_AHEAD)

    # --- giving out tasks and threads --------------------------------------------------------------------

    def dispatch(self, now: float, may_use: Callable[[str], bool]) -> int:
        """Claim tasks and start runners where that is possible now; return how many tasks were claimed.

        `may_use` tells whether a remote answers.
        """
        claimed = 0
        self._let_go_of_idle()
        self.health.heed_clock(now + max(_PROBE_S, self._config.retry.max_delay_s))
        self._bulk_room = self._most_bulk - sum(lane.bulky() for lane in self._answering())
        ready = self._ready(now)
        self.news_waits = bool(self._arrived)
        for key in ready:
            if key.count("/") != _SLASHES:
                # No upload goes there: claiming such rows makes dead letters of them.
                self._queue.claim(key, self._ahead)
            elif self._may_try(key, now, may_use):
                fresh = key in self._arrived
                self.news_waits &= not fresh
                claimed += self._offer(key, fresh=fresh)
        room = self._crew.room()
        self._crew.have_patience()
        self._start_pushes(room)
        return claimed + self._start_tries(room, now, may_use)

    def _let_go_of_idle(self) -> None:
        self._active = {key: lane for key, lane in self._active.items() if lane.runners or lane.busy()}
        tried = sum(lane.runners > 0 and not self.health.has_answered(key) for key, lane in self._active.items())
        self._places = self._threads * _LANES_PER_THREAD - len(self._active) + tried

    def _answering(self) -> list[Lane]:
        return [lane for key, lane in self._active.items() if self.health.has_answered(key)]

    def _may_try(self, key: str, now: float, may_use: Callable[[str], bool]) -> bool:
        """True when an instance is up, as far as is known, or may be probed."""
        return may_use(key.split("/")[0]) and self.health.is_due(key, now)

    def _ready(self, now: float) -> list[str]:
        """Instances with queued tasks: the next ones of all in turn, and those that something happened to."""
        self._seen, arrived = self._queue.arrivals(self._seen, _LOOK_AT)
        self._arrived = frozenset(arrived)
        happened = [*(lane.key for lane in self._answering()), *self.health.take_due(now, _LOOK_AT), *reversed(arrived)]
        recent = self._queue.ready_among(list(dict.fromkeys(happened)))
        # The newest upload comes last, as Line has it.
        return [*(key for key in self._look_on() if key not in set(recent)), *recent]

    def _look_on(self) -> list[str]:
        """The next instances with queued tasks, in the order of their keys; from the last one on with the first."""
        if time.monotonic() < self._look_on_at:
            return []
        page = self._queue.ready_instances(self._cursor, _LOOK_AT)
        self._look_on_at = time.monotonic() + _LOOK_ON_S if len(page) == _LOOK_AT else 0.0
        if self._cursor and len(page) < _LOOK_AT:
            page += [key for key in self._queue.ready_instances("", _LOOK_AT - len(page)) if key <= self._cursor]
        self._cursor = page[-1] if page else ""
        return page

    def _offer(self, key: str, *, fresh: bool) -> int:
        lane = self._lane(_inside(key))
        if self.health.has_answered(key):
            return self._fill(lane) if self._has_room(key) else 0
        if not lane.busy():
            self._line.add(key, lane.failures, fresh=fresh)
        return 0

    def _has_room(self, key: str) -> bool:
        """True when a lane may hold something: it does already, or not too many others do."""
        return key in self._active or self._places > 0

    def sweep(self, tasks: list[Task], now: float, may_use: Callable[[str], bool]) -> None:
        """Have part files of one instance removed, if it can be reached now; runners are started by `dispatch`.

        None of the tasks may be claimed; until this is done none can be. An instance that has not answered gets one.
        """
        lane = self._lane(tasks[0].destination)
        answers = self.health.has_answered(lane.key)
        if lane.sweeping() or not (answers or not lane.busy()):
            return
        self._let_go_of_idle()
        if self._has_room(lane.key) and self._may_try(lane.key, now, may_use):
            lane.sweep(tasks if answers else tasks[:1])
            self._hold(lane)

    def _hold(self, lane: Lane) -> None:
        if lane.key not in self._active:
            self._active[lane.key] = lane
            self._places -= 1

    def _fill(self, lane: Lane) -> int:
        if lane.sweeping():
            # A task whose part file is to be removed may be queued again by now.
            return 0
        small = self._ahead - lane.waiting(bulk=False)
        claimed = 0
        # Refill in half-empty steps: fewer, larger transactions.
        if small * 2 >= self._ahead:
            claimed = self._claim(lane, small)
            lane.low_at = self._ahead // 2 if claimed == small else -1
        bulky = self._claim(lane, min(lane.most_bulk - lane.bulky(), self._bulk_room, self._ahead), bulk=True)
        self._bulk_room -= bulky
        return claimed + bulky

    def _claim_one(self, lane: Lane) -> int:
        """Claim one task; after a failure any: where one path hangs, not only those that go there are tried."""
        share = self._rng.random() if lane.failures else 0.0
        bulk_first = bool(lane.failures) and lane.failures % _SMALL_SHARE == 0
        return (self._claim(lane, 1, bulk=bulk_first, share=share)
                or self._claim(lane, 1, bulk=not bulk_first, share=share))

    def _claim(self, lane: Lane, limit: int, *, bulk: bool = False, share: float = 0.0) -> int:
        tasks = self._queue.claim(lane.key, limit, bulk=bulk, share=share) if limit > 0 else []
        if tasks:
            lane.add(tasks)
            self._hold(lane)
        return len(tasks)

    def _start_pushes(self, room: FreeThreads) -> None:
        """Start runners for instances that have answered."""
        lanes = self._answering()
        wanting = [lane for lane in lanes if lane.runners < self._wanted(lane)]
        hungry = [lane for lane in wanting if lane.runners == 0]
        self._waited_for = len(hungry) > room.pushes
        for lane in lanes:
            lane.give_way(self._waited_for)
        for lane in itertools.islice(itertools.chain(hungry, wanting), max(0, room.pushes)):
            if lane.runners < self._wanted(lane):
                self._start(lane)

    def _wanted(self, lane: Lane) -> int:
        return min(self._config.delivery.per_instance, lane.wanted_runners())

    def _start_tries(self, room: FreeThreads, now: float, may_use: Callable[[str], bool]) -> int:
        """Try instances that have not answered, one task each; return how many were claimed for that."""
        claimed = 0
        tries, again = room.tries, room.again
        for lane in [lane for lane in self._active.values() if not lane.runners and lane.busy()]:
            if tries > 0 and not self.health.has_answered(lane.key):
                self._start(lane)
                tries -= 1
        while tries > 0 and (key := self._line.take(failed=again > 0)) is not None:
            lane = self._lane(_inside(key))
            if lane.busy() or self.health.has_answered(key) or not self._may_try(key, now, may_use):
                continue
            if self._claim_one(lane):
                claimed += 1
                tries -= 1
                again -= lane.failures > 0
                if not lane.runners:
                    self._start(lane)
        self._waited_for |= bool(self._line) and tries <= 0 and room.may_grow
        return claimed

    def _start(self, lane: Lane) -> None:
        self._active[lane.key] = self._active.pop(lane.key)
        self._crew.start(lane)

    def reap(self, ended: RunnerEnded) -> tuple[Lane, BaseException | None]:
        """Take note of a runner's end; return its lane, and the mistake that ended it, if any."""
        lane = self._crew.reap(ended)
        if lane.runners == 0 and not lane.busy():
            self._active.pop(lane.key, None)
        return lane, ended.future.exception()

    # --- the end -----------------------------------------------------------------------------------------

    def close(self) -> list[Task]:
        """Start no more pushes; return the claimed tasks that were not begun. Runners end after what they push."""
        tasks = [task for lane in self._active.values() for task in lane.hand_back()]
        for lane in self._active.values():
            lane.close()
        self._crew.close()
        return tasks

    def stop_pushes(self) -> None:
        """Have what is still being pushed end before its rename."""
        for lane in self._active.values():
            lane.stop()

    @property
    def crew(self) -> Crew:
        """The threads that empty the lanes."""
        return self._crew

    @property
    def runners(self) -> int:
        """How many runners there are."""
        return len(self._crew)


def _inside(key: str) -> Destination:
    """A destination in the instance of that key."""
    remote, project, instance = key.split("/")
    return Destination(remote, project, instance, "/")
