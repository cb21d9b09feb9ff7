"""Answers of a service on which much is the matter, as its addresses have them: for what a small one never shows."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from playwright.sync_api import BrowserContext, Route

from daemon.model.grant import Permission
from daemon.model.view import when

STATES: Final = ("queued", "pushing", "deferred", "held", "delivered", "superseded", "cancelled", "failed")
BOUNDS_S: Final = (300, 900, 3600, 14400, 43200, 86400, 259200)
EVERYTHING: Final[Mapping[str, Any]] = {
    "name": None, "anonymous": True, "kind": "anonymous", "may": [str(each) for each in Permission], "instances": None, "paths": None,
    "projects": None, "remotes": None, "own": False, "sees_all": True, "expires_at": None}
ADDRESSES: Final = {"me": "**/v1/me", "overview": "**/v1/overview", "instances": "**/v1/instances?*", "instance": "**/v1/instances/*",
                    "explanation": "**/v1/tasks/*/explanation", "actions": "**/v1/actions?*"}
ERROR: Final = {"code": "remote_unreachable", "message": "The remote edge does not answer.", "hint": "Start Incus there."}


def counts(**tasks: int) -> dict[str, Any]:
    """So many tasks in these states."""
    return {state: {"tasks": tasks.get(state, 0), "bytes": 1000 * tasks.get(state, 0)} for state in STATES}


def instance(name: str, ages: tuple[int, ...], *, why: str | None = None, failed: int = 0) -> dict[str, Any]:
    """A row of the instances."""
    return {"name": name, "instance": name, "project": "default", "remote": "local", "counts": counts(queued=sum(ages), failed=failed),
            "waiting": sum(ages), "ages": list(ages), "oldest_age_s": 400000 if sum(ages) else None, "stuck": why is not None, "why": why}


def instances(*rows: dict[str, Any]) -> dict[str, Any]:
    """What `GET /v1/instances` answers."""
    return {"now": when(time.time()), "bounds_s": list(BOUNDS_S), "most": 1000, "instances": list(rows), "more": 0, "next": None}


def overview(**changed: object) -> dict[str, Any]:
    """What `GET /v1/overview` answers."""
    now = time.time()
    return {
        "now": when(now), "version": "1", "rates": {"uploads_s": 1.5, "deliveries_s": 0.5, "upload_bytes_s": 1e6, "delivery_bytes_s": 5e5},
        "counts": counts(queued=3, delivered=1_000_000), "oldest_age_s": 12.5,
        "disk": {"free_bytes": 4e10, "total_bytes": 1e11, "min_free_bytes": 1e9, "spool_bytes": 2e9}, "partials": {"number": 1, "bytes": 1e6},
        "shards": [{"shard": 0, "worker": 4242, "at": when(now), "lanes": 2, "sessions": 1, "pushing": 1, "fault": None}],
        "remotes": [{"remote": "local", "up": True, "since": when(now - 90), "error": None, "next_try_at": None}], "problems": [],
        "history": {"step_s": 10, "until": when(now), "uploads": [1.0] * 360, "deliveries": [0.5] * 100, "waiting": [3] * 10, "failed": []},
        **changed}


def one_instance(row: dict[str, Any]) -> dict[str, Any]:
    """What `GET /v1/instances/{name}` answers."""
    return {**row, "now": when(time.time()), "bounds_s": list(BOUNDS_S), "most": 1000, "explanation": explanation()}


def explanation(**changed: object) -> dict[str, Any]:
    """Why something is stuck."""
    now = time.time()
    return {"stuck": True, "summary": "The instance is stopped.", "since": when(now - 4000), "error": dict(ERROR), "waiting": 2,
            "task_id": None, "unblocks": "Starting the instance.", "next_try_at": when(now + 30), "pushing": [
                {"task_id": "01a22a24-6c4c-7406-a456-8627b482bd11", "path": "/srv/big", "size_bytes": 1000, "sent_bytes": 250, "since": when(now)}],
            **changed}


def answering(value: object, status: int = 200) -> Callable[[Route], None]:
    """Answer with that, in JSON."""
    return lambda route: route.fulfill(status=status, content_type="application/json", body=json.dumps(value))


def stand_in(context: BrowserContext, **answers: object) -> None:
    """Have the browser be answered so, where the names are those of functions here; all else is the service's own."""
    for name, value in answers.items():
        context.route(ADDRESSES[name], value if callable(value) else answering(value))
