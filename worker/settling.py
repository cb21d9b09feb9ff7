"""From the outcome of a push to what is written down about it, and what it tells about the destination."""

import random
import time
from collections.abc import Sequence

from daemon.config import Config
from daemon.errors import ERRORS, Action
from daemon.logs import log
from daemon.spool import Mark, Spool
from daemon.task import FINISHED, State, Task
from daemon.task_queue import Settlement, TaskQueue
from worker.lanes import Lanes
from worker.remotes import Remotes
from worker.retry import Decision, decide, delay_s
from worker.runner import Outcome
from worker.verdict import SCOPE, Scope

#: Between two probes of an instance that only has to be waited for.
WAIT_PROBE_S = 1.5


class Settling:
    """Settles outcomes: rows, marks, log, and what is known of destinations. Only the main loop uses it."""

    def __init__(self, queue: TaskQueue, spool: Spool, lanes: Lanes, remotes: Remotes, config: Config) -> None:
        self._queue = queue
        self._spool = spool
        self._lanes = lanes
        self._remotes = remotes
        self._config = config
        self._rng = random.Random()
        self._decided: list[tuple[Outcome, Decision]] = []
        self._handed_back: list[Settlement] = []

    def configure(self, config: Config) -> None:
        """Use another configuration from now on."""
        self._config = config

    def take(self, outcomes: Sequence[Outcome]) -> None:
        """Decide about outcomes, and remember what they tell. They are written down by `flush`."""
        now = time.time()
        for outcome in outcomes:
            decision = self._decide(outcome, now)
            self._decided.append((outcome, decision))
            self.hand_back(self._learn(outcome, decision, now))

    def hand_back(self, tasks: Sequence[Task]) -> None:
        """Have claimed tasks queued again, as if they had not been claimed, by the next `flush`."""
        self._handed_back += [_unchanged(task) for task in tasks]

    def flush(self) -> int:
        """Write down what was decided, in one durable transaction, then log it; return how many were finished.

        Raises QueueFault; everything is kept for the next call then.
        """
        settlements = [_settlement(outcome.task, decision) for outcome, decision in self._decided] + self._handed_back
        if not settlements:
            return 0
        for outcome, decision in self._decided:
            if decision.state is State.FAILED:
                self._mark_failed(outcome.task)
        replaced = self._queue.settle(settlements, supersede=self._config.delivery.on_newer == "supersede")
        decided, self._decided, self._handed_back = self._decided, [], []
        for outcome, decision in decided:
            _log(outcome, decision)
        for task_id in replaced:
            log("upload.superseded", task_id=task_id)
        return len(replaced) + sum(decision.state in FINISHED for _, decision in decided)

    def _mark_failed(self, task: Task) -> None:
        try:
            self._spool.mark(task.upload, Mark.FAILED)
        except OSError as error:
            # The row says it too; only a rebuild of the queue would try this task once more.
            log("worker.waiting", task_id=task.task_id, reason=f"a dead letter could not be marked: {error.strerror}")

    @property
    def all_written(self) -> bool:
        """True when nothing waits for `flush`."""
        return not (self._decided or self._handed_back)

    def _decide(self, outcome: Outcome, now: float) -> Decision:
        task = outcome.task
        if outcome.code is None:
            return Decision(state=State.DELIVERED, attempts=task.attempts + 1, code="", message="")
        if outcome.code == "cancelled":
            return Decision(state=State.CANCELLED, attempts=task.attempts, code="", message="")
        return decide(task, outcome.code, outcome.detail, retry=self._config.retry, now=now,
                      outage_s=self._remotes.outage_s(task.destination.remote), rng=self._rng)

    def _learn(self, outcome: Outcome, decision: Decision, now: float) -> list[Task]:
        """Remember what the outcome tells about its destination; return the tasks that are to wait with it."""
        destination = outcome.task.destination
        lane = self._lanes.lane(destination)
        scope = SCOPE.get(outcome.code or "", Scope.TASK)
        if outcome.code == "shutdown":
            return []
        if scope is Scope.REMOTE:
            if self._remotes.note_down(destination.remote, decision.code):
                log("target.down", target=destination.remote, code=outcome.code, detail=outcome.detail)
            return [task for each in self._lanes.active() if each.destination.remote == destination.remote
                    for task in each.hand_back()]
        if scope is Scope.INSTANCE:
            if lane.down_until is None:
                log("target.down", instance=lane.key, code=outcome.code, detail=outcome.detail)
            until = self._probe_at(outcome, decision, lane.failures, now)
            return self._lanes.note_down(lane, outcome.code or "", until)
        if self._lanes.note_up(lane):
            log("target.up", instance=lane.key)
        return []

    def _probe_at(self, outcome: Outcome, decision: Decision, failures: int, now: float) -> float:
        if ERRORS[outcome.code or ""].action is Action.WAIT:
            return now + WAIT_PROBE_S
        return decision.due_at or now + delay_s(failures + 1, self._config.retry, self._rng)


def _unchanged(task: Task) -> Settlement:
    """The settlement that queues a claimed task again as it was."""
    return Settlement(order=task.order, state=State.QUEUED, attempts=task.attempts,
                      error_code=task.error_code, error_message=task.error_message)


def _settlement(task: Task, decision: Decision) -> Settlement:
    return Settlement(order=task.order, state=decision.state, attempts=decision.attempts, due_at=decision.due_at,
                      error_code=decision.code or None, error_message=decision.message or None)


_EVENTS = {State.DELIVERED: "push.delivered", State.CANCELLED: "push.cancelled", State.FAILED: "push.failed",
           State.DEFERRED: "push.deferred", State.QUEUED: "push.waiting"}


def _log(outcome: Outcome, decision: Decision) -> None:
    task, receipt = outcome.task, outcome.receipt
    log(
        _EVENTS[decision.state], task_id=task.task_id, instance=task.destination.instance,
        project=task.destination.project, remote=task.destination.remote, path=task.destination.path,
        size=task.upload.size, attempt=decision.attempts, duration_ms=round(outcome.seconds * 1000, 1),
        code=decision.code or None, detail=decision.message or None, due_at=decision.due_at,
        way=receipt.way if receipt else None, unchanged=True if receipt and receipt.unchanged else None,
    )
    if receipt and not receipt.atomic:
        log("push.not_atomic", task_id=task.task_id, instance=task.destination.instance, path=task.destination.path)
