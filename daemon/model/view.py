"""A task as people and programs see it."""

from datetime import UTC, datetime
from typing import Any

from daemon.model.task import Task


def describe(task: Task) -> dict[str, Any]:
    """A task as JSON values. Times are RFC 3339, in UTC."""
    upload, to = task.upload, task.destination
    error = {"code": task.error_code, "message": task.error_message} if task.error_code else None
    return {
        "id": task.task_id, "state": task.state.label,
        "remote": to.remote, "project": to.project, "instance": to.instance, "path": to.path,
        "name": upload.display_name, "size": upload.size, "sha256": upload.sha256,
        "mode": None if upload.mode is None else f"{upload.mode:04o}",
        "uid": upload.uid, "gid": upload.gid, "mkdirs": upload.mkdirs, "client": upload.client,
        "attempts": task.attempts, "created_at": when(upload.created_at), "updated_at": when(task.updated_at),
        "next_attempt_at": None if task.due_at is None else when(task.due_at), "error": error,
    }


def when(seconds: float) -> str:
    """A time in seconds since the epoch, as RFC 3339 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


