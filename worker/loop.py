"""The worker's main loop: one thin turn after the other, each completed one pings the watchdog.

All decisions are elsewhere; here is only the order in which things are looked at. Nothing that the queue could
not take is forgotten: it is written down in a later turn.
"""

import itertools
import select
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from daemon.config import Config, reloaded
from daemon.errors import Action, QueueFault
from daemon.lease import Lease
from daemon.log import gather, log
from daemon.model.task import State
from daemon.process import sd_notify
from daemon.process.signals import Signals
from daemon.state.activity import Publisher
from daemon.state.doorbell import Doorbell
from daemon.state.reserve import Reserve
from daemon.state.room import NO_ROOM
from daemon.task_queue import TaskQueue
from worker.dispatch.commands import Commands
from worker.dispatch.crew import RunnerEnded
from worker.dispatch.lifecycle_feed import InstanceChanged, RemoteConnected, RemoteUnheard
from worker.dispatch.outages import Outages
from worker.dispatch.outcomes import Settling
from worker.dispatch.part_cleanup import Sweeping
from worker.dispatch.remotes import Probed, Remotes
from worker.dispatch.runner import Pushed, PushOutcome, Swept
from worker.dispatch.scheduler import Lanes
from worker.dispatch.telling import describe
from worker.mailbox import Inbox
from worker.recovery.background import ReadThrough, Recovery
from worker.upkeep.retention import Upkeep
from worker.upkeep.sync_barrier import Unspooled
from worker.webhooks.hooks import Webhooks
from worker.webhooks.link import SenderLost, SenderUp, Tried

#: Longest wait between two turns: what no doorbell announced is found then, and the watchdog is pinged.
_IDLE_S: Final = 1.0
#: After a turn that gave tasks to runners new uploads wait for so many times as long as it took, so that several share
#: the next one: the busier the machine, the more. And for so long at most; and after a turn in which all that was new
#: was for those who are away.
_REST_TURNS: Final = 4.0
_REST_S: Final = 0.02
#: Between two tries when the queue cannot be written.
_TROUBLE_S: Final = 0.5
#: Instances and remotes whose deliveries are compared again in one turn.
_RECHECKS: Final = 8
#: Deferred tasks queued again in one turn.
_PROMOTE: Final = 500
#: Messages read in one turn.
_MESSAGES: Final = 512
#: The states that the status line counts the tasks of.
_TOLD: Final = (State.QUEUED, State.PUSHING, State.DEFERRED, State.FAILED)
#: Between two times at which it tells what it is doing; an idle turn takes as long.
_TELL_EVERY_S: Final = 0.9
#: Between two status lines.
_STATUS_EVERY_S: Final = 2.0


class _Source(Protocol):
    """What can wake the main loop."""

    def fileno(self) -> int:
        """The descriptor that can be read then."""


def _poll(*sources: _Source) -> select.poll:
    poll = select.poll()
    for source in sources:
        poll.register(source.fileno(), select.POLLIN)
    return poll


@dataclass(kw_only=True)
class Parts:
    """What a worker is made of."""

    queue: TaskQueue
    bell: Doorbell
    inbox: Inbox
    signals: Signals
    lanes: Lanes
    remotes: Remotes
    outages: Outages
    settling: Settling
    sweeping: Sweeping
    commands: Commands
    upkeep: Upkeep
    webhooks: Webhooks
    recovery: Recovery
    reserve: Reserve
    publisher: Publisher
    lease: Lease


class Worker:
    """One worker at work: `run` returns when it was told to stop and has finished what it was pushing."""

    def __init__(self, parts: Parts, config: Config, reload: Callable[[], Config | None]) -> None:
        self._parts = parts
        self._config = config
        self._reload = reload
        self._stop_at: float | None = None
        self._status_at = 0.0
        #: What was said to be waited for, code and detail, since the last turn that went well.
        self._said: tuple[str, str] | None = None
        self._finished = 0
        self._started_at = time.time()
        self._told_at = 0.0
        #: How many tasks were claimed in the last turn.
        self._claimed = 0
        self._rest_s = 0.0
        self._releasing: set[str] = set()
        #: Instances and remotes whose machine may have lost what it had not written to its disk.
        self._doubtful: set[str] = set()
        #: Signals that came and were not heeded yet: one that fails takes no other with it.
        self._signals: deque[int] = deque()
        #: Messages that were taken from the inbox, and that a failed turn left unread.
        self._mail: deque[Any] = deque()
        self._handlers: dict[type, Callable[[Any], None]] = {
            PushOutcome: lambda message: parts.settling.take([message]),
            # The turn that reads it claims more tasks: runners never wait for a confirmation to be given some.
            Pushed: lambda _: None,
            Swept: parts.sweeping.swept,
            RunnerEnded: self._runner_ended,
            Probed: self._probed,
            Unspooled: parts.upkeep.unspooled,
            ReadThrough: parts.recovery.read_through,
            InstanceChanged: self._instance_changed,
            RemoteConnected: self._remote_connected,
            RemoteUnheard: lambda message: parts.remotes.note_unheard(message.remote),
            Tried: parts.webhooks.tried,
            SenderUp: parts.webhooks.sender_up,
            SenderLost: parts.webhooks.sender_lost,
        }

    def run(self) -> None:
        """Turn until told to stop.

        Raises QueueFault('queue_damaged') when the database must be set aside, CannotStart('state_lost') when the state
        is not this worker's any more.
        """
        parts = self._parts
        anything = _poll(parts.bell, parts.inbox, parts.signals)
        # After trouble the next try has its time, whatever else happens: each would fail like the one before.
        only_signals = _poll(parts.signals)
        no_uploads = _poll(parts.inbox, parts.signals)
        wait_s: float | None = 0.0
        at_turn_end: list[Callable[[], None]] = []
        gather(at_turn_end.append)
        try:
            while not self._ended():
                if wait_s is None:
                    only_signals.poll(_TROUBLE_S * 1000)
                else:
                    no_uploads.poll(self._rest_s * 1000)
                    anything.poll(wait_s * 1000)
                parts.bell.answer()
                began = time.monotonic()
                wait_s = self._guarded_turn()
                self._rest_s = self._rest_after(time.monotonic() - began)
                self._tell_activity()
                while at_turn_end:
                    at_turn_end.pop()()
                sd_notify.watchdog()
        finally:
            gather(None)

    def _rest_after(self, turn_s: float) -> float:
        """For how long new uploads do not begin a turn, after one that took so long."""
        if self._claimed:
            return min(_REST_S, _REST_TURNS * turn_s)
        return _REST_S if self._stop_at is None and self._parts.lanes.news_waits else 0.0

    def _guarded_turn(self) -> float | None:
        """One turn; return how long to wait before the next if nothing happens, or None after trouble."""
        try:
            wait_s = self._turn()
        except QueueFault as error:
            if error.kind.action is Action.STOP:
                raise
            self._bear(error.code, error.detail, no_room=error.kind.room_helps)
        except OSError as error:
            self._bear("io_error", str(error), no_room=error.errno in NO_ROOM)
        else:
            self._said = None
            self._parts.lanes.claim_more()
            return wait_s
        return None

    def _bear(self, code: str, detail: str, *, no_room: bool) -> None:
        """A turn failed: make room if that is what is missing, or say what is waited for."""
        parts = self._parts
        if no_room:
            parts.upkeep.make_room()
            parts.lanes.claim_one_by_one()
        if not (no_room and parts.reserve.release()):
            self._say(code, detail)

    def _say(self, code: str, detail: str) -> None:
        """Log what is waited for, once until a turn went well or something else is the matter."""
        if (code, detail) != self._said:
            self._said = code, detail
            log("worker.waiting", code=code, detail=detail)

    def _turn(self) -> float:
        parts = self._parts
        # First: a worker that has lost its state writes nothing there.
        parts.lease.renew()
        self._signals.extend(parts.signals.taken())
        while self._signals:
            self._signalled(self._signals.popleft())
        self._mail.extend(parts.inbox.drain(_MESSAGES))
        while self._mail:
            self._handlers[type(self._mail[0])](self._mail[0])
            # Only now: a message that the queue failed for is read once more in a later turn.
            self._mail.popleft()
        parts.settling.hand_back(parts.queue.doubtful_claims())
        finished = parts.settling.flush()
        self._finished += finished
        parts.upkeep.unspooling |= finished > 0
        more = parts.commands.work()
        parts.upkeep.unspooling |= more
        more |= self._recheck()
        more |= self._release()
        now = time.time()
        due_at = parts.queue.next_due_at()
        if due_at is not None and due_at <= now:
            more |= parts.queue.promote_due(now, _PROMOTE) == _PROMOTE
        parts.remotes.tend()
        parts.outages.tend()
        if self._stop_at is None:
            parts.sweeping.turn(now)
            self._claimed = parts.lanes.dispatch(now, parts.remotes.answers)
        else:
            self._drain()
        # First: what has grown old is told before it is cleared.
        more |= parts.webhooks.turn()
        more |= parts.upkeep.turn()
        parts.recovery.turn()
        self._tell_status()
        return 0.0 if more else self._wait_s(now, due_at)

    def _wait_s(self, now: float, due_at: float | None) -> float:
        parts = self._parts
        waits = [_IDLE_S, parts.remotes.next_probe_in_s(), parts.upkeep.next_in_s(), parts.recovery.next_in_s()]
        waits += [parts.webhooks.next_in_s(), parts.lanes.next_look_in_s(now), None if due_at is None else due_at - now]
        return max(0.001, min(wait for wait in waits if wait is not None))

    # --- messages ----------------------------------------------------------------------------------------

    def _runner_ended(self, message: RunnerEnded) -> None:
        lane, mistake = self._parts.lanes.reap(message)
        if mistake is None:
            return
        log("worker.error", instance=lane.destination.instance, project=lane.destination.project,
            remote=lane.destination.remote, detail=repr(mistake))
        for push in lane.abandoned():
            ended = Swept if push.sweep else partial(PushOutcome, left_part=True)
            self._parts.inbox.put(ended(push.task, "worker_error", repr(mistake)))

    def _probed(self, message: Probed) -> None:
        if message.code is None:
            self._remote_up(message.remote)
        elif self._parts.remotes.probed(message):
            log("target.down", remote=message.remote, code=message.code, detail=message.detail)

    def _remote_up(self, remote: str) -> None:
        if self._parts.remotes.note_up(remote):
            log("target.up", remote=remote)

    def _instance_changed(self, message: InstanceChanged) -> None:
        """An instance started or appeared: its tasks are tried at once."""
        if message.resumed and not self._parts.lanes.health.may_be_paused(message.instance_key):
            # At the end of a snapshot who comes in at once is in the way of what Incus is asked to do next.
            return
        self._parts.lanes.health.try_again([message.instance_key])
        self._parts.sweeping.look_again(message.instance_key)
        self._releasing.add(message.instance_key)
        if message.started:
            self._doubtful.add(message.instance_key)

    def _remote_connected(self, message: RemoteConnected) -> None:
        """What happened to the remote's instances before is not known: those that were down are looked at again."""
        self._parts.remotes.note_heard(message.remote)
        self._remote_up(message.remote)
        self._parts.lanes.health.try_remote_again(message.remote)
        self._doubtful.add(f"{message.remote}/")

    def _recheck(self) -> bool:
        """Have compared again what was delivered to where there may have been a crash; return True if there is more."""
        for where in list(itertools.islice(self._doubtful, _RECHECKS)):
            tasks = self._parts.queue.recheck_unsynced(where)
            self._doubtful.discard(where)
            if tasks:
                log("queue.rechecked", shard=self._parts.queue.shard, tasks=tasks)
        return bool(self._doubtful)

    def _release(self) -> bool:
        """Queue again a slice of what was deferred for instances that changed; return True if there is more."""
        for key in list(self._releasing):
            if self._parts.queue.release_instance(key, _PROMOTE) < _PROMOTE:
                self._releasing.discard(key)
        return bool(self._releasing)

    # --- signals -----------------------------------------------------------------------------------------

    def _signalled(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._configure()
        elif self._stop_at is None:
            self._begin_drain()

    def _configure(self) -> None:
        sd_notify.reloading()
        try:
            new = self._reload()
            if new is not None:
                self._adopt(new)
        finally:
            sd_notify.ready()

    def _adopt(self, new: Config) -> None:
        """Have every part work with another configuration. None of them touches the disk or the queue for that."""
        self._config, waiting = reloaded(self._config, new)
        parts = self._parts
        for part in (parts.lanes, parts.remotes, parts.settling, parts.upkeep, parts.webhooks, parts.recovery):
            part.configure(self._config)
        log("config.reloaded", restart_for=", ".join(waiting) or None)

    def _begin_drain(self) -> None:
        self._claimed = 0
        sd_notify.stopping(self._config.delivery.drain_s)
        log("worker.draining")
        self._stop_at = time.monotonic() + self._config.delivery.drain_s
        self._parts.webhooks.begin_drain()
        self._parts.settling.hand_back(self._parts.lanes.close())

    def _drain(self) -> None:
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self._parts.lanes.stop_pushes()

    def _ended(self) -> bool:
        if self._stop_at is None:
            return False
        overdue = time.monotonic() >= self._stop_at + 2 * _IDLE_S
        parts = self._parts
        return overdue or (parts.lanes.runners == 0 and parts.settling.all_written and parts.webhooks.ended)

    def _tell_activity(self) -> None:
        now = time.monotonic()
        if now < self._told_at + _TELL_EVERY_S:
            return
        self._told_at = now
        parts = self._parts
        parts.publisher.publish(describe(
            parts.lanes, parts.remotes, time.time(), started_at=self._started_at, waits_for=self._said,
            wal_bytes=parts.publisher.log_bytes()))

    def _tell_status(self) -> None:
        now = time.monotonic()
        if now < self._status_at:
            return
        totals = self._parts.queue.totals(frozenset(_TOLD))
        counts = ", ".join(f"{totals[state].tasks} {state.label}" for state in _TOLD)
        sd_notify.status(f"{counts}, {self._finished / _STATUS_EVERY_S:.0f}/s")
        self._finished = 0
        self._status_at = now + _STATUS_EVERY_S
