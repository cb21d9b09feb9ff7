"""Webhooks and their messages as people and programs see them. No secret is in here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from daemon.config import Webhook
from daemon.model.schema import TIME, Schema, answer, many, one_of, or_null, saying, text, whole_number
from daemon.model.upload import TASK_ID
from daemon.model.view import when
from daemon.task_queue import Notice, NoticeState, WebhookStanding

#: What `describe_webhook` makes.
WEBHOOK: Final[Schema] = answer("Webhook", {
    "name": text("its name"),
    "url": or_null(text("where to; null for one that is not configured any more")),
    "events": or_null(many(text("a state that is told"))),
    "instances": or_null(many(text("a glob: whose tasks are told"))),
    "pending": whole_number(0, None, "messages that wait to be sent"),
    "failed": whole_number(0, None, "messages that were given up"),
    "delivered": whole_number(0, None, "messages that were taken, of those that are kept"),
    "disabled": or_null(answer("WebhookDisabled", {"at": TIME, "reason": or_null(text("why"))})),
    "last": or_null(answer("WebhookTry", {
        "at": TIME, "status": or_null(whole_number(0, None, "the HTTP status")), "detail": or_null(text("in words"))})),
})
#: What `describe_notice` makes.
NOTICE: Final[Schema] = answer("WebhookMessage", {
    "id": text("the `webhook-id`, the same at each try"),
    "webhook": text("the name of the webhook"),
    "type": text("what it tells"),
    "task_id": or_null(text("the task that it tells of", pattern=TASK_ID)),
    "state": one_of([state.label for state in NoticeState], "how it stands"),
    "attempts": whole_number(0, None, "tries that were made"),
    "created_at": saying(TIME, "when it was put"),
    "last_at": or_null(saying(TIME, "when it was tried last")),
    "next_attempt_at": or_null(saying(TIME, "when it is tried next")),
    "status": or_null(whole_number(0, None, "the HTTP status of the last try")),
    "detail": or_null(text("what became of the last try, in words")),
})


@dataclass(frozen=True, kw_only=True)
class Overall:
    """How a webhook stands in all shards together. Times are in seconds since the epoch."""

    name: str
    #: None for one that is not configured any more.
    webhook: Webhook | None
    pending: int
    delivered: int
    failed: int
    disabled_at: float | None
    disabled_why: str | None
    last_at: float | None
    last_status: int | None
    last_detail: str | None


def overall(webhooks: Sequence[Webhook], shards: Iterable[Sequence[WebhookStanding]]) -> list[Overall]:
    """Those of the configuration, in its order, and those that only have messages left."""
    parts: dict[str, list[WebhookStanding]] = {webhook.name: [] for webhook in webhooks}
    for standings in shards:
        for standing in standings:
            parts.setdefault(standing.name, []).append(standing)
    known = {webhook.name: webhook for webhook in webhooks}
    found = [_together(name, known.get(name), some) for name, some in parts.items()]
    return [each for each in found if each.webhook is not None or each.pending or each.failed or each.delivered]


def _together(name: str, webhook: Webhook | None, some: Sequence[WebhookStanding]) -> Overall:
    nothing = WebhookStanding(name=name)
    disabled = min((each for each in some if each.disabled_at is not None), key=lambda each: each.disabled_at or 0.0,
                   default=nothing)
    last = max((each for each in some if each.last_at is not None), key=lambda each: each.last_at or 0.0,
               default=nothing)
    return Overall(
        name=name, webhook=webhook, pending=sum(each.pending for each in some),
        delivered=sum(each.delivered for each in some), failed=sum(each.failed for each in some),
        disabled_at=disabled.disabled_at, disabled_why=disabled.disabled_why,
        last_at=last.last_at, last_status=last.last_status, last_detail=last.last_detail)


def describe_webhook(found: Overall) -> dict[str, Any]:
    """A webhook as JSON values. Times are RFC 3339, in UTC."""
    hook = found.webhook
    last = None if found.last_at is None else {
        "at": when(found.last_at), "status": found.last_status, "detail": found.last_detail}
    disabled = None if found.disabled_at is None else {"at": when(found.disabled_at), "reason": found.disabled_why}
    return {
        "name": found.name, "url": hook and hook.shown_url, "events": hook and list(hook.events),
        "instances": hook and list(hook.instances), "pending": found.pending, "failed": found.failed,
        "delivered": found.delivered, "disabled": disabled, "last": last,
    }


def describe_notice(notice: Notice) -> dict[str, Any]:
    """A message as JSON values, without its body. Times are RFC 3339, in UTC."""
    tried = notice.attempts > 0 or notice.state is not NoticeState.PENDING
    pending = notice.state is NoticeState.PENDING
    return {
        "id": notice.message_id, "webhook": notice.webhook, "type": notice.type, "task_id": notice.task_id,
        "state": notice.state.label, "attempts": notice.attempts, "created_at": when(notice.created_at),
        "last_at": when(notice.updated_at) if tried else None,
        "next_attempt_at": when(notice.due_at) if pending else None, "status": notice.status, "detail": notice.detail,
    }
