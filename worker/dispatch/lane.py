"""One instance's lane: the tasks that were claimed for it, and what is known of the instance itself.

The main loop fills a lane; runner threads (`worker.dispatch.runner`) empty it. A lane that is down keeps its tasks in
the queue, and lets one at a time through as a probe.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass, field

from daemon.model.task import Task
from daemon.model.upload import Destination
from daemon.task_queue import BULK_BYTES


@dataclass
class Push:
    """A claimed task on its way through a lane; or one that is not pushed, but swept up after."""

    task: Task
    #: Only the part file that an earlier attempt may have left is removed.
    sweep: bool = False
    #: Set when a person cancelled it, or the worker must stop: it ends before its rename.
    cancelled: bool = False
    stopped: bool = False
    #: When a runner took it, in seconds since the epoch, and how much of a bulky file was read for the instance so far.
    begun_at: float = 0.0
    sent_bytes: int = 0

    @property
    def bulk(self) -> bool:
        """True for a file that is pushed apart, so that it never stands in the way of small ones."""
        return not self.sweep and self.task.upload.size >= BULK_BYTES


@dataclass
class Lane:
    """The claimed tasks of one instance. Its methods may be called from any thread."""

    #: Where it leads: any destination in the instance.
    destination: Destination
    #: How many bulky pushes may run at once.
    most_bulk: int
    #: While down: when the next probe may go, in seconds since the epoch. Main loop only.
    down_until: float | None = None
    down_code: str = ""
    #: What it said when it was last tried, and when it failed first, in seconds since the epoch.
    down_message: str = ""
    down_since: float = 0.0
    #: Failures in a row, for the growing delay between probes. Main loop only.
    failures: int = 0
    #: Main loop only.
    runners: int = 0
    #: So few small tasks that more are to be claimed; below 0 when the queue has no more. The main loop sets it.
    low_at: int = -1
    _give_way: bool = False
    _small: deque[Push] = field(default_factory=deque)
    _bulk: deque[Push] = field(default_factory=deque)
    _pushing: dict[str, Push] = field(default_factory=dict)
    _abandoned: list[Push] = field(default_factory=list)
    _sweeps: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _closed: bool = False

    @property
    def key(self) -> str:
        """The instance's key."""
        return self.destination.instance_key

    def add(self, tasks: list[Task]) -> None:
        """Give tasks to the runners, in order."""
        with self._changed:
            for task in tasks:
                push = Push(task)
                (self._bulk if push.bulk else self._small).append(push)
            self._changed.notify_all()

    def sweep(self, tasks: list[Task]) -> None:
        """Have the runners remove the part files of tasks that are not pushed."""
        with self._changed:
            self._small.extend(Push(task, sweep=True) for task in tasks)
            self._sweeps += len(tasks)
            self._changed.notify_all()

    def take(self, linger_s: float, *, most: int, turn_over: bool) -> list[Push]:
        """The next tasks for a runner, waiting up to `linger_s` for one; none when the runner is to end.

        They are small ones, to be pushed side by side, or one that is bulky; no more than `most` are pushed at once by
        all runners. `turn_over`: the runner has had its share and ends if other lanes wait for one.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._has_next(most), timeout=linger_s)
            ended = self._closed or (turn_over and self._give_way)
            pushes = [] if ended else self._next(most)
            begun_at = time.time()
            for push in pushes:
                push.begun_at = begun_at
            self._pushing.update((push.task.task_id, push) for push in pushes)
            return pushes

    def is_low(self) -> bool:
        """True when the runners have little left to take, and the queue may have more."""
        return len(self._small) <= self.low_at

    def _has_next(self, most: int) -> bool:
        return self._closed or self._give_way or self._small_room(most) > 0 or self._may_take_bulk(most)

    def give_way(self, wanted: bool) -> None:
        """While other lanes wait for a runner: idle runners end at once, busy ones after their turn."""
        with self._changed:
            if wanted and not self._give_way:
                self._changed.notify_all()
            self._give_way = wanted

    def _may_take_bulk(self, most: int) -> bool:
        return bool(self._bulk) and self._running_bulk() < self._bulk_room() and len(self._pushing) < most

    def _bulk_room(self) -> int:
        """How many bulky tasks may be pushed at once: one beside small ones that wait."""
        return 1 if self._small else self.most_bulk

    def _small_room(self, most: int) -> int:
        """How many small tasks may be taken now: one place is left for a bulky one that waits, if there are several."""
        kept = int(bool(self._bulk) and not self._running_bulk() and most > 1)
        return min(len(self._small), most - len(self._pushing) - kept)

    def _running_bulk(self) -> int:
        return sum(push.bulk for push in self._pushing.values())

    def _next(self, most: int) -> list[Push]:
        if self._may_take_bulk(most):
            return [self._bulk.popleft()]
        room = self._small_room(most)
        pushes: list[Push] = []
        # What is swept up after goes alone: where nothing answers, the others are handed back.
        while len(pushes) < room and not (pushes and (pushes[0].sweep or self._small[0].sweep)):
            pushes.append(self._small.popleft())
        return pushes

    def done(self, push: Push, *, abandoned: bool) -> None:
        """A runner has finished with a task; or it has `abandoned` it, because it made a mistake and ends."""
        with self._changed:
            self._pushing.pop(push.task.task_id, None)
            self._sweeps -= push.sweep
            if abandoned:
                self._abandoned.append(push)
            self._changed.notify_all()

    def abandoned(self) -> list[Push]:
        """Take what runners abandoned."""
        with self._changed:
            pushes, self._abandoned = self._abandoned, []
            return pushes

    def waiting(self, *, bulk: bool) -> int:
        """How many tasks wait for a runner."""
        with self._changed:
            return len(self._bulk if bulk else self._small)

    def bulky(self) -> int:
        """How many bulky tasks wait or are being pushed."""
        with self._changed:
            return len(self._bulk) + self._running_bulk()

    def wanted_runners(self) -> int:
        """How many runners have something to do: one for all small tasks, one for each bulky one."""
        with self._changed:
            running = self._running_bulk()
            bulk = max(running, min(running + len(self._bulk), self._bulk_room()))
            return bulk + (len(self._small) + len(self._pushing) > running)

    def busy(self) -> int:
        """How many tasks wait or are being pushed."""
        with self._changed:
            return len(self._small) + len(self._bulk) + len(self._pushing)

    def pushing(self) -> list[Push]:
        """What runners have taken, in the order in which they did."""
        with self._changed:
            return [push for push in self._pushing.values() if not push.sweep]

    def sweeping(self) -> bool:
        """True while there are part files to remove: a task must not be pushed meanwhile."""
        with self._changed:
            return self._sweeps > 0

    def hand_back(self) -> list[Task]:
        """Take back the tasks that no runner has begun; part files are looked for again later."""
        with self._changed:
            waiting = [*self._small, *self._bulk]
            tasks = [push.task for push in waiting if not push.sweep]
            self._sweeps -= len(waiting) - len(tasks)
            self._small.clear()
            self._bulk.clear()
            return tasks

    def take_back(self, task_id: str) -> bool:
        """Take one task back if no runner has begun it; return whether that worked."""
        with self._changed:
            for line in (self._small, self._bulk):
                for push in line:
                    if push.task.task_id == task_id:
                        line.remove(push)
                        return True
            return False

    def interrupt(self, task_id: str, *, cancelled: bool) -> None:
        """Have the runner that pushes a task end it before its rename, if it is not too late."""
        with self._changed:
            push = self._pushing.get(task_id)
            if push is not None:
                push.cancelled |= cancelled
                push.stopped = True

    def stop(self) -> None:
        """Have the runners end what they push before its rename."""
        with self._changed:
            for push in self._pushing.values():
                push.stopped = True

    def close(self) -> None:
        """Have idle runners end, and busy ones after what they push."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
