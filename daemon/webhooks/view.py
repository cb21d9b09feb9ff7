"""Webhooks and their messages as people and programs see them. No secret is in here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from daemon.config import Webhook
from daemon.model.view import when
from daemon.task_queue import Notice, NoticeState, WebhookStanding


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
