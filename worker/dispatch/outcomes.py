"""From the outcome of a push to what is written down about it, and what it tells about the destination."""

import random
import time
from collections.abc import Iterable, Sequence
from typing import Final

from daemon.config import Config
from daemon.errors import ERRORS, Action, Cause, Scope
from daemon.log import log
from daemon.model.names import printable
from daemon.model.task import FINISHED, Attempt, State, Task
from daemon.spool import Mark, SetMark
from daemon.task_queue import Settle, Settled, Settlement
from worker.dispatch.marks import mark
from worker.dispatch.outages import Outages
from worker.dispatch.remotes import Remotes
from worker.dispatch.retry import Decision, decide, delay_s
from worker.dispatch.runner import PushOutcome
from worker.dispatch.scheduler import Lanes

#: So much of a message is kept.
_MESSAGE_LENGTH: Final = 1000
#: Between two probes of an instance that only has to be waited for.
WAIT_PROBE_S: Final = 1.5
#: An instance where something failed is left alone for so long at least.
LEAST_PROBE_S: Final = 0.5


class Settling:
    """Settles outcomes: rows, marks, log, and what is known of destinations. Only the main loop uses it."""

    def __init__(
        self, queue: Settle, spool: SetMark, lanes: Lanes, remotes: Remotes, outages: Outages, config: Config,
    ) -> None:
        self._queue = queue
        self._spool = spool
        self._lanes = lanes
        self._remotes = remotes
        self._outages = outages
        self._config = config
        self._rng = random.Random()
        self._outcomes: list[PushOutcome] = []
        self._handed_back: list[Task] = []

    def configure(self, config: Config) -> None:
        """Use another configuration from now on."""
        self._config = config

    def take(self, outcomes: Sequence[PushOutcome]) -> None:
        """Remember outcomes, and what they tell about their destinations. They are written down by `flush`."""
        for outcome in outcomes:
            self._outcomes.append(outcome)
            self.learn(outcome)

    def learn(self, outcome: PushOutcome) -> None:
        """Remember what an outcome tells about its destination alone."""
        if outcome.code is None or ERRORS[outcome.code].cause is not Cause.HERE:
            self.hand_back(self._learn(outcome, time.time()))

    def hand_back(self, tasks: Sequence[Task]) -> None:
        """Have claimed tasks queued again, as if they had not been claimed, by the next `flush`."""
        self._handed_back += tasks

    def flush(self) -> int:
        """Decide and write down what became of the outcomes, in one durable transaction, then log it.

        Returns how many tasks were finished. Raises QueueFault; everything is kept for the next call then.
        """
        if self.all_written:
            return 0
        now = time.time()
        decided = [(outcome, self._decide(outcome, now)) for outcome in self._outcomes]
        for outcome, decision in decided:
            if decision.state is State.FAILED:
                mark(self._spool, outcome.task, Mark.FAILED)
        settlements = [*(_settlement(outcome, decision) for outcome, decision in decided),
                       *(_unchanged(task) for task in self._handed_back)]
        settled = self._queue.settle(settlements, supersede=self._config.delivery.supersedes)
        tasks = [*(outcome.task for outcome in self._outcomes), *self._handed_back]
        self._outcomes, self._handed_back = [], []
        for outcome, decision in decided:
            _log(outcome, decision)
        _log_otherwise(tasks, settled)
        return sum(task.order in settled.finished for task in tasks) + sum(
            decision.state in FINISHED for _, decision in decided)

    @property
    def all_written(self) -> bool:
        """True when nothing waits for `flush`."""
        return not (self._outcomes or self._handed_back)

    def _decide(self, outcome: PushOutcome, now: float) -> Decision:
        task = outcome.task
        if outcome.code is None:
            return Decision(state=State.DELIVERED, attempts=task.attempts + 1, code="", message="")
        if outcome.code == "cancelled":
            return Decision(state=State.CANCELLED, attempts=task.attempts, code="", message="")
        if outcome.code == "order_unknown":
            state = State.HELD if outcome.held else State.FAILED
            return Decision(state=state, attempts=task.attempts, code=outcome.code, message=outcome.detail)
        if outcome.hurried or outcome.bystander:
            # Had it been given the time, or a connection of its own, it might have come through: that is no attempt.
            return Decision(state=State.QUEUED, attempts=task.attempts, code=outcome.code, message=outcome.detail)
        return decide(task, outcome.code, outcome.detail, retry=self._config.retry, now=now,
                      outage_s=self._outages.seconds(task.destination), rng=self._rng)

    def _learn(self, outcome: PushOutcome, now: float) -> list[Task]:
        """Remember what the outcome tells about its destination; return the tasks that are to wait with it."""
        destination, code = outcome.task.destination, outcome.code or ""
        scope = ERRORS[code].scope if code else Scope.TASK
        if scope is Scope.REMOTE:
            if self._remotes.note_down(destination.remote, code, outcome.detail):
                log("target.down", remote=destination.remote, code=code, detail=outcome.detail)
            return [task for each in self._lanes.active() if each.destination.remote == destination.remote
                    for task in each.hand_back()]
        if scope is Scope.INSTANCE:
            lane = self._lanes.health.find(destination.instance_key)
            if lane is None:
                log("target.down", instance=destination.instance, project=destination.project,
                    remote=destination.remote, code=code, detail=outcome.detail)
            elif lane.down_until is not None and now < lane.down_until:
                # It was under way when the instance went down, and was no probe.
                return []
            return self._lanes.note_down(destination, code, self._probe_at(code, lane.failures + 1 if lane else 1, now),
                                         outcome.detail)
        if self._lanes.health.note_up(destination):
            log("target.up", instance=destination.instance, project=destination.project, remote=destination.remote)
        return []

    def _probe_at(self, code: str, failures: int, now: float) -> float:
        if ERRORS[code].action is Action.WAIT:
            return now + WAIT_PROBE_S
        return now + max(LEAST_PROBE_S, ERRORS[code].retry_after_s, delay_s(failures, self._config.retry, self._rng))


def _unchanged(task: Task) -> Settlement:
    """The settlement that queues a claimed task again as it was."""
    return Settlement(order=task.order, state=State.QUEUED, attempts=task.attempts,
                      error_code=task.error_code, error_message=task.error_message)


def _settlement(outcome: PushOutcome, decision: Decision) -> Settlement:
    return Settlement(order=outcome.task.order, state=decision.state, attempts=decision.attempts,
                      due_at=decision.due_at, error_code=decision.code or None,
                      error_message=printable(decision.message, _MESSAGE_LENGTH) or None, part=_part(outcome),
                      ageless_s=decision.ageless_s, attempt=_attempt(outcome, decision), upload=outcome.task.upload)


def _attempt(outcome: PushOutcome, decision: Decision) -> Attempt | None:
    """What is kept of a push; None of one that does not count: why a task waits, its error says."""
    if decision.attempts == outcome.task.attempts:
        return None
    if outcome.code is not None:
        return Attempt(at=outcome.at, duration_s=outcome.seconds, code=outcome.code,
                       message=printable(outcome.detail, _MESSAGE_LENGTH) or None)
    receipt = outcome.receipt
    if receipt is None:
        return Attempt(at=outcome.at, duration_s=outcome.seconds)
    return Attempt(at=outcome.at, duration_s=outcome.seconds, way=receipt.way, mode=receipt.mode, uid=receipt.uid,
                   gid=receipt.gid, elsewhere=receipt.elsewhere, identity=receipt.identity)


def _part(outcome: PushOutcome) -> bool | None:
    """Whether a part file may be left; None when a push tells nothing about what earlier ones left."""
    receipt = outcome.receipt
    renamed = receipt is not None and receipt.atomic and not receipt.unchanged
    return True if outcome.left_part else False if renamed else None


def _log_otherwise(tasks: Iterable[Task], settled: Settled) -> None:
    """Say what became of tasks otherwise than their own outcomes told."""
    for task in tasks:
        if task.order in settled.superseded:
            log("upload.superseded", task_id=task.task_id, instance=task.destination.instance,
                path=task.destination.path, client=task.upload.client, traceparent=task.upload.traceparent)
        elif task.order in settled.cancelled:
            log("push.cancelled", task_id=task.task_id, instance=task.destination.instance,
                path=task.destination.path, client=task.upload.client, traceparent=task.upload.traceparent)


_EVENTS = {State.DELIVERED: "push.delivered", State.CANCELLED: "push.cancelled", State.FAILED: "push.failed",
           State.DEFERRED: "push.deferred", State.QUEUED: "push.waiting", State.HELD: "push.waiting"}


def _log(outcome: PushOutcome, decision: Decision) -> None:
    task, receipt = outcome.task, outcome.receipt
    log(
        _EVENTS[decision.state], task_id=task.task_id, instance=task.destination.instance,
        project=task.destination.project, remote=task.destination.remote, path=task.destination.path,
        size=task.upload.size, attempt=decision.attempts, duration_ms=round(outcome.seconds * 1000, 1),
        code=decision.code or None, detail=decision.message or None, due_at=decision.due_at,
        way=receipt.way if receipt else None, unchanged=True if receipt and receipt.unchanged else None,
        client=task.upload.client, traceparent=task.upload.traceparent,
    )
    if receipt and not receipt.atomic:
        log("push.not_atomic", task_id=task.task_id, instance=task.destination.instance, path=task.destination.path,
            client=task.upload.client, traceparent=task.upload.traceparent)
