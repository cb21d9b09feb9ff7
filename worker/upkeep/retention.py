"""Upkeep between the pushes: spooled bytes go, finished rows are cleared, old tasks are given up, in small steps."""

import itertools
import time
from collections.abc import Iterator
from typing import Final

from daemon.config import Config
from daemon.errors import ERRORS, Action, QueueFault
from daemon.log import log
from daemon.model.task import State
from daemon.model.upload import Destination
from daemon.recovery.downtime import note_alive
from daemon.spool import Mark, SetMark
from daemon.state.reserve import Reserve
from daemon.task_queue import Change, Maintain
from worker.dispatch.lane import Lane
from worker.dispatch.marks import mark
from worker.dispatch.outages import Outages
from worker.dispatch.remotes import Remotes
from worker.dispatch.scheduler import Lanes
from worker.upkeep.sync_barrier import Barrier, Unspooled, ready_to_go

#: Deliveries that share one sync, at most.
_BARRIER_BATCH: Final = 4000
#: Between two syncs.
_BARRIER_EVERY_S: Final = 0.5
#: Between two looks at bytes that are kept for deliveries to another machine.
_KEPT_EVERY_S: Final = 5.0
#: Rows cleared, or given up, in one turn of the main loop.
_SLICE: Final = 500
#: Events forgotten in one turn: they cost less than a row.
_EVENTS: Final = 2000
#: A task that is due in more than so many times the longest delay was put off before the clock was set back.
_LATEST: Final = 2
#: Instances that are down whose tasks may have to be given up, looked at at once.
_LANES_AT_ONCE: Final = 200
#: For how long it can be asked what became of a command.
_ANSWERS_S: Final = 3600.0
#: Actions in the audit list of a shard, and those that are forgotten in one turn.
_ACTIONS_KEPT: Final = 100_000
_ACTIONS: Final = 2000
#: Between two looks at what has grown old.
_CLEAR_EVERY_S: Final = 5.0
#: Between two checkpoints that shrink the write-ahead log.
_CHECKPOINT_EVERY_S: Final = 60.0


class Upkeep:
    """What a worker tidies up. Only the main loop uses it."""

    def __init__(
        self, queue: Maintain, spool: SetMark, barrier: Barrier, lanes: Lanes, remotes: Remotes, outages: Outages,
        reserve: Reserve, config: Config,
    ) -> None:
        self._queue = queue
        self._spool = spool
        self._barrier = barrier
        self._lanes = lanes
        self._remotes = remotes
        self._outages = outages
        self._reserve = reserve
        self._config = config
        #: Instances that are down, and were not looked at yet.
        self._ageing: Iterator[Lane] = iter(())
        self._barrier_at = 0.0
        self._clear_at = 0.0
        self._checkpoint_at = time.monotonic() + _CHECKPOINT_EVERY_S
        #: Of the finished tasks with bytes those up to here were looked at, and of these paths they are kept.
        self._looked_until = 0
        self._kept: set[Destination] = set()
        #: True while finished tasks may still have bytes in the spool.
        self.unspooling = True

    def configure(self, config: Config) -> None:
        """Use another configuration from now on."""
        self._config = config
        self._reserve.resize(config.limits.reserve_bytes)
        self._clear_at = 0.0

    def turn(self) -> bool:
        """Do a little of what is due; return True if there is more of it now. Raises QueueFault."""
        now = time.monotonic()
        if not self._reserve.whole:
            # Room is short, and the write-ahead log would take it all before SQLite looks after it.
            self._reuse_room()
        if self.unspooling and not self._barrier.busy and now >= self._barrier_at:
            self._barrier_at = now + _BARRIER_EVERY_S
            self._begin_barrier()
        more = False
        if now >= self._clear_at:
            more = self._clear()
            self._clear_at = now + (0 if more else _CLEAR_EVERY_S)
            self._reserve.restore()
        if now >= self._checkpoint_at:
            self._checkpoint_at = now + _CHECKPOINT_EVERY_S
            # Where room is short, others take what the write-ahead log gives free, and no outcome can be written then.
            if self._reserve.whole:
                self._queue.compact()
            note_alive(self._queue)
        return more

    def next_in_s(self) -> float | None:
        """In how many seconds the next barrier may begin, if one is wanted."""
        return max(0.0, self._barrier_at - time.monotonic()) if self.unspooling and not self._barrier.busy else None

    def make_room(self) -> None:
        """The disk is full: let go of what needs no writing, finished bytes and used pages of the write-ahead log."""
        try:
            if not self._barrier.busy:
                self._begin_barrier()
        except QueueFault as error:
            log("worker.waiting", code=error.code, detail=error.detail)
        self._reuse_room()

    def _reuse_room(self) -> None:
        try:
            self._queue.reuse_room()
        except QueueFault as error:
            log("worker.waiting", code=error.code, detail=error.detail)

    def _begin_barrier(self) -> None:
        found = self._queue.unspoolable(_BARRIER_BATCH, self._looked_until)
        keep_s = self._config.delivery.keep_s
        tasks = ready_to_go(found, self._kept, now=time.time(), keep_s=keep_s, is_away=self._is_away)
        if len(found) == _BARRIER_BATCH and self._kept:
            # However many are kept, those behind them go. Else it begins anew, so that nothing is passed over for long.
            self._looked_until = found[-1].order
        else:
            self.unspooling = bool(self._kept or tasks)
            self._looked_until, self._kept = 0, set()
        if tasks:
            self._barrier.pass_through(tasks)
        elif self.unspooling and not self._looked_until:
            self._barrier_at += _KEPT_EVERY_S

    def _is_away(self, destination: Destination) -> bool:
        return (not self._remotes.answers(destination.remote)
                or self._lanes.health.find(destination.instance_key) is not None)

    def unspooled(self, message: Unspooled) -> None:
        """Write down that a batch of bytes is gone. Raises QueueFault."""
        self._barrier.done()
        if message.reason is not None:
            log("worker.waiting", reason=f"spooled bytes could not be removed: {message.reason}")
            # Newer ones of their paths may be behind them.
            self._looked_until, self._kept = 0, set()
            self._barrier_at += _KEPT_EVERY_S
        self._queue.unspool(message.orders)
        log("spool.cleared", tasks=len(message.orders))

    def _clear(self) -> bool:
        keep = self._config.retention
        now = time.time()
        cleared = self._queue.clear_finished(now - keep.delivered_s, keep.delivered_max, _SLICE)
        if cleared:
            log("queue.cleared", tasks=cleared)
        self._queue.forget_answers(now - _ANSWERS_S)
        actions = self._queue.forget_actions(now - keep.delivered_s, _ACTIONS_KEPT, _ACTIONS)
        events = self._config.events
        forgotten = self._queue.forget_events(now - events.keep_s, events.keep_most, _EVENTS)
        dropped = self._drop_dead_letters(now - keep.failed_s) if keep.failed_s else 0
        released = self._queue.release_late(now + _LATEST * self._config.retry.max_delay_s, _SLICE)
        return max(cleared, dropped, released, self._give_up(now)) == _SLICE or (
            forgotten == _EVENTS or actions == _ACTIONS)

    def _drop_dead_letters(self, before: float) -> int:
        tasks = self._queue.old_dead_letters(before, _SLICE)
        if tasks:
            self._queue.change([Change(task=task, state=State.CANCELLED) for task in tasks])
            self.unspooling = True
        for task in tasks:
            log("task.expired", task_id=task.task_id, instance=task.destination.instance, path=task.destination.path,
                size=task.upload.size, code=task.error_code, client=task.upload.client,
                traceparent=task.upload.traceparent)
        return len(tasks)

    def _give_up(self, now: float) -> int:
        """Give up what has waited too long for an instance that is down: it is never tried one by one."""
        limit = self._config.retry.give_up_after_s
        if not limit:
            return 0
        given_up = 0
        for lane in self._next_down():
            if lane.down_until is None or ERRORS[lane.down_code].action is Action.WAIT:
                continue
            before = now - self._outages.seconds(lane.destination) - limit
            tasks = self._queue.aged(lane.key, before, _SLICE)
            for task in tasks:
                mark(self._spool, task, Mark.FAILED)
            self._queue.give_up(tasks, f"{lane.down_code}: it was down for too long")
            for task in tasks:
                log("push.failed", task_id=task.task_id, instance=task.destination.instance, code="gave_up",
                    path=task.destination.path, attempt=task.attempts, detail=lane.down_code,
                    client=task.upload.client,
                traceparent=task.upload.traceparent)
            given_up = max(given_up, min(_SLICE, len(tasks)))
        return given_up

    def _next_down(self) -> list[Lane]:
        """Some instances that are down, in turn."""
        lanes = list(itertools.islice(self._ageing, _LANES_AT_ONCE))
        if not lanes:
            self._ageing = iter(self._lanes.health.down())
            lanes = list(itertools.islice(self._ageing, _LANES_AT_ONCE))
        return lanes
