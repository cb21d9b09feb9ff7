"""A task as people and programs see it."""

from datetime import UTC, datetime
from typing import Any, Final

from daemon.config import LOCAL, Config
from daemon.model.task import Task
from daemon.model.upload import Destination

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86400


def describe(task: Task) -> dict[str, Any]:
    """A task as JSON values. Times are RFC 3339, in UTC."""
    upload, to = task.upload, task.destination
    error = {"code": task.error_code, "message": task.error_message} if task.error_code else None
    return {
        "id": task.task_id, "state": task.state.label,
        "remote": to.remote, "project": to.project, "instance": to.instance, "path": to.path,
        "name": upload.display_name, "size": upload.size, "sha256": upload.sha256,
        "mode": None if upload.mode is None else f"{upload.mode:04o}",
        "uid": upload.uid, "gid": upload.gid, "mkdirs": upload.mkdirs,
        "attempts": task.attempts, "created_at": when(upload.created_at), "updated_at": when(task.updated_at),
        "next_attempt_at": None if task.due_at is None else when(task.due_at), "error": error,
    }


def when(seconds: float) -> str:
    """A time in seconds since the epoch, as RFC 3339 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def age(seconds: float) -> str:
    """A length of time in one unit, as `tasks --older-than` takes it."""
    whole = max(0, round(seconds))
    for unit_s, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "m")):
        if whole >= 2 * unit_s:
            return f"{whole // unit_s}{unit}"
    return f"{whole}s"


def instance_name(to: Destination, config: Config) -> str:
    """An instance as `tasks --instance` takes it: `[remote:][project/]instance`."""
    described = config.remote(to.remote)
    remote = "" if to.remote == LOCAL else f"{to.remote}:"
    project = "" if described and to.project == described.project else f"{to.project}/"
    return f"{remote}{project}{to.instance}"
