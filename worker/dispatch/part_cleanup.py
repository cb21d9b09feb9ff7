"""Part files that dead workers and lost connections left are removed, where their tasks are not pushed any more.

The next attempt of a task deals with its part file by itself. For a task without one (superseded, cancelled, held, a
dead letter) it is removed through the lane of its instance: it waits for an instance that is down like any push. Newer
uploads to its path wait for that.
"""

import time
from typing import Final

from daemon.errors import ERRORS, Action, Cause, ErrorKind, Scope
from daemon.log import log
from daemon.task_queue import PartFiles
from worker.dispatch.outcomes import Settling
from worker.dispatch.remotes import Remotes
from worker.dispatch.runner import PushOutcome, Swept
from worker.dispatch.scheduler import Lanes

#: Between two looks.
_LOOK_EVERY_S: Final = 1.0
#: Instances looked at in one look, and part files of each.
_INSTANCES: Final = 64
_AT_ONCE: Final = 16
#: Where a part file cannot be looked for until its instance starts, the next look is so far off.
_PUT_OFF_S: Final = 30.0


class Sweeping:
    """Finds part files that may be left, and takes note of what became of them. Only the main loop uses it."""

    def __init__(self, queue: PartFiles, lanes: Lanes, remotes: Remotes, settling: Settling) -> None:
        self._queue = queue
        self._lanes = lanes
        self._remotes = remotes
        self._settling = settling
        self._look_at = 0.0
        self._cursor = ""
        #: Instances that are not looked at before a monotonic time, the first to be looked at again first.
        self._put_off: dict[str, float] = {}

    def look_again(self, instance_key: str) -> None:
        """The instance has changed: what could not be looked for may be there now."""
        self._put_off.pop(instance_key, None)

    def turn(self, now: float) -> None:
        """Hand some of what is left to the lanes, when it is time for that. Raises QueueFault."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_EVERY_S
        self._forget_expired(time.monotonic())
        for _ in range(_INSTANCES):
            key = self._queue.next_with_parts(self._cursor)
            self._cursor = key or ""
            if key is None:
                return
            if key in self._put_off:
                continue
            self._queue.forget_unreadable_parts(key, _AT_ONCE)
            tasks = self._queue.left_parts(key, _AT_ONCE)
            if tasks:
                self._lanes.sweep(tasks, now, self._remotes.answers)

    def _put_off_for_now(self, instance_key: str) -> None:
        self._put_off.pop(instance_key, None)
        self._put_off[instance_key] = time.monotonic() + _PUT_OFF_S

    def _forget_expired(self, now: float) -> None:
        """No more is remembered than what is put off now."""
        while self._put_off:
            key, until = next(iter(self._put_off.items()))
            if until > now:
                return
            del self._put_off[key]

    def swept(self, message: Swept) -> None:
        """Write down that nothing is left, unless the instance has to be waited for. Raises QueueFault."""
        task, code = message.task, message.code
        kind = ERRORS[code] if code else None
        gone = kind is not None and kind.cause is Cause.GONE
        if not gone:
            self._settling.learn(PushOutcome(task, code, message.detail))
            if kind is not None and (kind.scope is not Scope.TASK or _may_pass(message, kind)):
                if kind.scope is Scope.TASK and kind.action is Action.WAIT:
                    self._put_off_for_now(task.destination.instance_key)
                return
        self._queue.forget_part(task.order)
        lane = self._lanes.find(task.destination)
        if lane is None or not lane.sweeping():
            # What is gone took its part files with it. There may be more, and uploads that wait for them.
            self._look_at = 0.0
        if message.removed or not (code is None or gone):
            log("target.swept" if message.removed else "target.not_swept", task_id=task.task_id,
                instance=task.destination.instance, project=task.destination.project,
                remote=task.destination.remote, path=task.destination.path, code=code, detail=message.detail or None)


def _may_pass(message: Swept, kind: ErrorKind) -> bool:
    """True when nobody could look for it just now: that tells nothing about the part file."""
    return kind.action is Action.WAIT or (message.unopened and kind.action is Action.RETRY)
