"""What a worker tells of itself: what its lanes, its threads and its remotes are doing now."""

import heapq
import os
from typing import Final

from daemon.model.names import printable
from daemon.state.activity import Activity, Blocked, Pushing
from worker.dispatch.lane import Lane, Push
from worker.dispatch.remotes import Remotes
from worker.dispatch.scheduler import Lanes

#: So many pushes, and so many instances that are left alone, are told at most.
_PUSHES: Final = 100
_BLOCKED: Final = 150
#: So much of what an instance said is told.
_MESSAGE_LENGTH: Final = 300


def describe(
    lanes: Lanes, remotes: Remotes, now: float, *, started_at: float, waits_for: tuple[str, str] | None,
    wal_bytes: int,
) -> Activity:
    """What the worker is doing; `waits_for` is the code and the detail of its own trouble. Only for the main loop.

    It takes no longer however many instances are down. Of the pushes bulky ones are told first.
    """
    active = lanes.active()
    pushes = [push for lane in active for push in lane.pushing()]
    told = heapq.nsmallest(_PUSHES, pushes, key=lambda push: (not push.bulk, push.begun_at))
    down, more = lanes.health.first_down(_BLOCKED)
    sessions, stalled = lanes.crew.counts()
    code, message = waits_for or (None, None)
    return Activity(
        at=now, pid=os.getpid(), started_at=started_at, lanes=len(active), keeps=sum(lane.busy() for lane in active),
        threads=lanes.runners, sessions=sessions, stalled=stalled, code=code,
        message=None if message is None else printable(message, _MESSAGE_LENGTH), wal_bytes=wal_bytes,
        remotes=tuple(remotes.standings(now)), pushing=tuple(map(_pushing, told)),
        blocked=tuple(map(_blocked, down)), more=more + len(pushes) - len(told),
        more_blocked=more,
    )


def _pushing(push: Push) -> Pushing:
    task = push.task
    return Pushing(task_id=task.task_id, instance_key=task.destination.instance_key, path=task.destination.path,
                   size_bytes=task.upload.size, sent_bytes=min(push.sent_bytes, task.upload.size), since=push.begun_at)


def _blocked(lane: Lane) -> Blocked:
    return Blocked(instance_key=lane.key, since=lane.down_since, code=lane.down_code,
                   message=printable(lane.down_message, _MESSAGE_LENGTH), next_try_at=lane.down_until)
