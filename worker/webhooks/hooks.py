"""The webhooks of one shard: what happened becomes messages, those that are due go to the sender, results are kept.

Only the main loop uses it. Without webhooks in the configuration it does nothing at all.
"""

import random
import time
from dataclasses import dataclass, field
from typing import Final, Protocol

from daemon.config import Config, Webhook
from daemon.log import log
from daemon.task_queue import Follow, Notice, NoticeResult, NoticeState, Outbox
from daemon.webhooks.schedule import GONE, TryAnswer, result_of
from daemon.webhooks.telling import first_message_id, tell_more
from worker.webhooks.link import SenderLink, SenderLost, SenderUp, Tried

#: Messages to one webhook that are under way at once: after a failure one, and more again as they arrive.
_MOST_UNDER_WAY: Final = 8
#: So many wait for each webhook in a shard; of more the oldest are given up.
_MOST_PENDING: Final = 50_000
#: So many that were given up, or delivered, are kept of each webhook, and for so long.
_KEPT: Final = {NoticeState.FAILED: (10_000, 30 * 86400.0), NoticeState.DELIVERED: (1000, 86400.0)}
#: Between two looks at what has grown old, and at how many at once.
_TIDY_EVERY_S: Final = 5.0
_TIDY_AT_ONCE: Final = 500
#: Between two transactions that put messages: several share one, where uploads come without a pause.
_REST_S: Final = 0.05
#: The queue is looked at so often whatever its beat says.
_LOOK_EVERY_S: Final = 1.0
#: Beyond the time of one try, before the sender counts as lost.
_MARGIN_S: Final = 60.0
#: How long the end of the worker waits for what is under way.
_DRAIN_S: Final = 5.0


class OutboxQueue(Outbox, Follow, Protocol):
    """What is asked of a shard's queue."""


@dataclass
class _Traffic:
    """What goes on with one webhook."""

    #: Ids of the messages that the sender has.
    under_way: set[str] = field(default_factory=set)
    #: How many may be.
    window: int = _MOST_UNDER_WAY
    #: True while the last try failed.
    down: bool = False


class Webhooks:
    """Tells the webhooks of the configuration."""

    def __init__(self, shard: int, queue: OutboxQueue, link: SenderLink, config: Config) -> None:
        self._shard = shard
        self._queue = queue
        self._link = link
        self._config = config
        self._traffic: dict[str, _Traffic] = {}
        self._results: list[NoticeResult] = []
        self._gone: list[str] = []
        #: True while the sender takes messages; None until that was asked for.
        self._up: bool | None = None
        self._said_away = False
        #: The queue's beat before nothing more was to be told, and when that is looked at again.
        self._seen = -1
        self._look_at = 0.0
        self._rest_until = 0.0
        self._tidy_at = 0.0
        self._due_at: float | None = None
        #: True until the queue knows whether there are webhooks, and while those that are no more have messages.
        self._unsettled = True
        self._abandoned = True
        self._stop_at: float | None = None

    def configure(self, config: Config) -> None:
        """Use another configuration from now on."""
        self._config = config
        self._unsettled = self._abandoned = True
        self._look_at = 0.0

    def turn(self) -> bool:
        """Do a little of what is due; return True if there is more of it now. Raises QueueFault."""
        hooks = self._config.webhooks
        if self._unsettled:
            self._queue.follow_for_webhooks(bool(hooks))
            self._unsettled = False
        if not hooks:
            self._abandoned = self._abandoned and self._tidy(hooks)
            return self._abandoned
        self._settle()
        now, beat = time.monotonic(), self._queue.beat()
        if beat == self._seen and now < self._look_at and self.next_in_s() != 0.0:
            return False
        resting = now < self._rest_until
        more = not resting and tell_more(self._queue, hooks, time.time())
        self._hand_over(hooks)
        if now >= self._tidy_at:
            untidy = self._tidy(hooks)
            self._tidy_at = now + (0 if untidy else _TIDY_EVERY_S)
            more |= untidy
        if resting:
            return more
        self._rest_until = now + _REST_S
        if not more:
            # As it was before that: what has happened meanwhile is looked at in the next turn.
            self._seen, self._look_at = beat, now + _LOOK_EVERY_S
        return more

    def next_in_s(self) -> float | None:
        """In how many seconds a message is to be put or sent, if that is known."""
        waits = []
        if self._due_at is not None and self._up:
            waits.append(max(0.0, self._due_at - time.time()))
        if self._config.webhooks and self._queue.beat() != self._seen:
            waits.append(max(0.0, self._rest_until - time.monotonic()))
        return min(waits, default=None)

    def tried(self, message: Tried) -> None:
        """Take how a try ended; it is written in the next turn."""
        notice, answer = message.notice, message.answer
        traffic = self._traffic.setdefault(notice.webhook, _Traffic())
        traffic.under_way.discard(notice.message_id)
        result = result_of(notice, answer, time.time(), random.SystemRandom())
        self._results.append(result)
        self._look_at = 0.0
        if answer.status == GONE:
            self._gone.append(notice.webhook)
        self._tell_of(result, answer, traffic)

    def _tell_of(self, result: NoticeResult, answer: TryAnswer, traffic: _Traffic) -> None:
        notice = result.notice
        event = {NoticeState.DELIVERED: "webhook.delivered", NoticeState.PENDING: "webhook.deferred",
                 NoticeState.FAILED: "webhook.given_up"}[result.state]
        log(event, webhook=notice.webhook, message_id=notice.message_id, task_id=notice.task_id, detail=answer.detail,
            attempt=notice.attempts + 1)
        traffic.window = min(2 * traffic.window, _MOST_UNDER_WAY) if answer.taken else 1
        if traffic.down == answer.taken:
            traffic.down = not answer.taken
            log("webhook.down" if traffic.down else "webhook.up", webhook=notice.webhook, shard=self._shard,
                detail=answer.detail)

    def sender_up(self, _message: SenderUp) -> None:
        """The sender takes messages."""
        self._up = True
        self._look_at = 0.0
        if self._said_away:
            self._said_away = False
            log("sender.back", shard=self._shard)

    def sender_lost(self, message: SenderLost) -> None:
        """What the sender had is handed over again, when it is back: nobody knows whether it was sent."""
        self._up = False
        for traffic in self._traffic.values():
            traffic.under_way.clear()
        if not self._said_away:
            self._said_away = True
            log("sender.away", shard=self._shard, detail=message.reason)

    def begin_drain(self) -> None:
        """Hand nothing over any more."""
        self._stop_at = time.monotonic() + _DRAIN_S

    @property
    def ended(self) -> bool:
        """True when nothing more is waited for after `begin_drain`."""
        if self._stop_at is None or time.monotonic() >= self._stop_at:
            return True
        return not self._results and not any(traffic.under_way for traffic in self._traffic.values())

    # --- what is written ---------------------------------------------------------------------------------

    def _settle(self) -> None:
        if self._results:
            self._queue.settle_notices(self._results, time.time())
            self._results = []
        while self._gone:
            self._queue.disable(self._gone[-1], f"it answered {GONE}")
            log("webhook.disabled", webhook=self._gone.pop(), shard=self._shard, reason=f"it answered {GONE}")

    def _hand_over(self, hooks: list[Webhook]) -> None:
        """Give the sender what is due, and see when more will be."""
        standings = {standing.name: standing for standing in self._queue.webhook_standings()}
        now, dues = time.time(), []
        for hook in hooks:
            standing = standings.get(hook.name)
            if standing is None or not standing.pending or standing.disabled_at is not None:
                continue
            if self._up is None:
                # Only now: where nothing is ever to be told, nobody is asked to listen.
                self._up = False
                self._link.open(self._config.sender_socket, self._config.sender.try_timeout_s + _MARGIN_S)
            traffic = self._traffic.setdefault(hook.name, _Traffic())
            if self._up and self._stop_at is None and len(traffic.under_way) < traffic.window:
                self._link.hand_over(self._take_due(hook.name, traffic, now))
            # While something is under way its answer begins the next turn.
            at = None if traffic.under_way else self._queue.next_notice_at(hook.name)
            dues += [] if at is None else [at]
        self._due_at = None if self._stop_at is not None else min(dues, default=None)

    def _take_due(self, name: str, traffic: _Traffic, now: float) -> list[Notice]:
        due = self._queue.due_notices(name, now, traffic.window + len(traffic.under_way))
        free = traffic.window - len(traffic.under_way)
        taken = [notice for notice in due if notice.message_id not in traffic.under_way][:free]
        traffic.under_way |= {notice.message_id for notice in taken}
        return taken

    def _tidy(self, hooks: list[Webhook]) -> bool:
        """Bound what is kept, and say what is given up or forgotten for that; True when there may be more of it."""
        known, more = {hook.name for hook in hooks}, False
        for standing in self._queue.webhook_standings():
            name, configured = standing.name, standing.name in known
            why = "too many wait" if configured else "no such webhook is configured any more"
            if standing.pending:
                given_up = self._queue.give_up_notices(name, _MOST_PENDING if configured else 0, _TIDY_AT_ONCE, why)
                more |= given_up == _TIDY_AT_ONCE
                if given_up:
                    log("webhook.outbox_full", webhook=name, shard=self._shard, messages=given_up, reason=why)
            for state, (most, kept_s) in _KEPT.items():
                if getattr(standing, state.label):
                    before = first_message_id(time.time() - kept_s)
                    gone = self._queue.forget_notices(name, state, before, most, _TIDY_AT_ONCE)
                    more |= gone == _TIDY_AT_ONCE
                    if gone and state is NoticeState.FAILED:
                        log("webhook.forgotten", webhook=name, shard=self._shard, messages=gone)
        return more
