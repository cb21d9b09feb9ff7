import json
from pathlib import Path
from typing import Any

import pytest

from daemon.config import Webhook
from daemon.model.task import State
from daemon.task_queue import Change, Notice
from daemon.webhooks.telling import LONGEST_BODY, first_message_id, new_message_id, tell_more
from tests.support.depot import Depot, an_upload
from tests.support.receiver import SECRET

LATER_S = 4e9


@pytest.fixture
def depot(quick_path: Path) -> Any:
    """One shard whose webhooks are told what happens."""
    with Depot(quick_path / "state") as opened:
        opened.queue.follow_for_webhooks(True)
        yield opened


def hook(name: str = "ci", **values: Any) -> Webhook:
    """A webhook."""
    return Webhook(name=name, url="https://hooks.example/", secret=SECRET, **values)


def told(depot: Depot, *hooks: Webhook) -> list[tuple[str, str, str | None]]:
    """Tell all there is, and return who is told what of which task."""
    while tell_more(depot.queue, hooks, 9.0):
        pass
    notices: list[Notice] = [notice for each in hooks for notice in depot.queue.due_notices(each.name, LATER_S, 99)]
    return [(notice.webhook, notice.type, notice.task_id) for notice in notices]


def test_each_webhook_is_told_what_it_asked_for(depot: Depot) -> None:
    """By state and by instance, once."""
    first, second = depot.accept("/a"), depot.accept("/b", instance="web-1")
    depot.settle(first, State.DELIVERED)
    depot.settle(second, State.FAILED, error_code="parent_not_found", error_message="no such directory")
    hooks = [hook(), hook("web", instances=["web-*"]), hook("all", events=["queued", "pushing"])]
    expected = [("ci", "task.delivered", first.task_id), ("ci", "task.failed", second.task_id),
                ("web", "task.failed", second.task_id),
                *(("all", f"task.{state}", upload.task_id) for upload, state in (
                    (first, "queued"), (second, "queued"), (first, "pushing"), (second, "pushing")))]
    assert told(depot, *hooks) == expected
    assert told(depot, *hooks) == expected


def test_message_says_how_the_task_was(depot: Depot) -> None:
    """Also where it has moved on since, or is forgotten."""
    upload = depot.failed("/a")
    depot.queue.change([Change(task=depot.task(upload), state=State.CANCELLED)])
    gone = depot.failed("/b")
    depot.queue.delete_rows([depot.task(gone).order])
    told(depot, hook(events=["failed", "cancelled"]))
    moved, cancelled, forgotten = (
        json.loads(notice.body) for notice in depot.queue.due_notices("ci", LATER_S, 9))
    assert moved["type"] == "task.failed"
    assert moved["timestamp"] == moved["data"]["updated_at"]
    assert moved["data"].items() >= {"task_id": upload.task_id, "state": "failed", "path": "/a", "instance": "c1",
                                     "error": {"code": "parent_not_found", "message": "no such directory"}}.items()
    assert cancelled["data"]["state"] == "cancelled"
    assert forgotten["data"] == {"task_id": gone.task_id, "state": "failed",
                                 "error": {"code": "parent_not_found", "message": None}}


def test_body_is_bounded(depot: Depot) -> None:
    """Whatever the path and the words of an error are."""
    upload = an_upload("/" + "/".join(["ü" * 120] * 16))
    depot.put(upload)
    depot.settle(upload, State.FAILED, error_code="timeout", error_message="한" * 9000)
    told(depot, hook())
    [notice] = depot.queue.due_notices("ci", LATER_S, 9)
    assert len(notice.body) <= LONGEST_BODY
    assert json.loads(notice.body)["data"]["task_id"] == upload.task_id


def test_ids_of_messages_are_in_order_of_time() -> None:
    """And no two are the same."""
    ids = [new_message_id(at) for at in (1.0, 1.0, 1.002, 1e9)]
    assert len(set(ids)) == 4
    assert ids[0] < ids[2] < first_message_id(2.0) < ids[3]
