"""A task as people and programs see it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from daemon.model.schema import (
    TIME,
    YES_OR_NO,
    Schema,
    answer,
    many,
    number,
    one_of,
    or_null,
    saying,
    text,
    whole_number,
)
from daemon.model.task import OUTCOMES, Attempt, State, Task
from daemon.model.upload import MAX_ID, TASK_ID, TRACEPARENT

_TASK: Final[Mapping[str, Schema]] = {
    "id": text("stable; later ones sort after earlier ones", pattern=TASK_ID),
    "state": one_of([state.label for state in State], "how it stands"),
    "remote": text("the Incus that it goes to"),
    "project": text("the instance's project"),
    "instance": text("the instance"),
    "path": text("where to in the instance: absolute"),
    "name": text("the file's name at its sender, for people"),
    "size": whole_number(0, None, "in bytes"),
    "sha256": text("of the bytes, in hexadecimal", pattern="[0-9a-f]{64}"),
    "mode": or_null(text("the permission bits that were asked for, octal", pattern="[0-7]{4}")),
    "uid": or_null(whole_number(0, MAX_ID, "the owner that was asked for")),
    "gid": or_null(whole_number(0, MAX_ID, "the group that was asked for")),
    "mkdirs": saying(YES_OR_NO, "whether missing directories are made"),
    "client": or_null(text("the identity that sent it")),
    "traceparent": or_null(text("the trace that its sender told (W3C Trace Context)", pattern=TRACEPARENT)),
    "attempts": whole_number(0, None, "pushes that were tried and counted"),
    "created_at": saying(TIME, "when it was accepted"),
    "updated_at": saying(TIME, "when its state changed last"),
    "next_attempt_at": or_null(saying(TIME, "when a deferred one is tried again")),
    "error": or_null(answer("TaskError", {
        "code": text("stable, for programs"), "message": or_null(text("what it said, for people"))})),
}
#: What `describe` makes.
TASK: Final[Schema] = answer("Task", _TASK)
_ATTEMPT: Final = answer("Attempt", {
    "at": saying(TIME, "when it ended"),
    "duration_s": number(0, "how long it took, in seconds"),
    "code": or_null(text("what was the matter, for programs; null when the file is in place")),
    "message": or_null(text("what it said, for people")),
})
_RECEIPT: Final = answer("Receipt", {
    "sha256": text("of the bytes that were accepted, in hexadecimal", pattern="[0-9a-f]{64}"),
    "size": whole_number(0, None, "in bytes"),
    "mode": or_null(text("the permission bits that the file has, octal, where they are known", pattern="[0-7]{4}")),
    "uid": or_null(whole_number(0, MAX_ID, "its owner, likewise")),
    "gid": or_null(whole_number(0, MAX_ID, "its group, likewise")),
    "way": or_null(text("how it was delivered")),
    "client": or_null(text("the identity that sent it")),
    "attempts": whole_number(0, None, "pushes that were tried and counted"),
    "accepted_at": TIME,
    "last_attempt_at": or_null(saying(TIME, "when the last push began")),
    "delivered_at": or_null(saying(TIME, "when the file was in place")),
})
#: What `describe_whole` makes.
WHOLE_TASK: Final[Schema] = answer("WholeTask", {
    **_TASK,
    "history": saying(many(_ATTEMPT), "its last attempts, oldest first"),
    "receipt": {**or_null(_RECEIPT), "description": "null until it is known what became of the task"},
})


def describe(task: Task) -> dict[str, Any]:
    """A task as JSON values, as lists have it. Times are RFC 3339, in UTC."""
    upload, to = task.upload, task.destination
    error = {"code": task.error_code, "message": task.error_message} if task.error_code else None
    return {
        "id": task.task_id, "state": task.state.label,
        "remote": to.remote, "project": to.project, "instance": to.instance, "path": to.path,
        "name": upload.display_name, "size": upload.size, "sha256": upload.sha256,
        "mode": _octal(upload.mode),
        "uid": upload.uid, "gid": upload.gid, "mkdirs": upload.mkdirs, "client": upload.client,
        "traceparent": upload.traceparent, "attempts": task.attempts,
        "created_at": when(upload.created_at), "updated_at": when(task.updated_at),
        "next_attempt_at": when_or_none(task.due_at), "error": error,
    }


def describe_whole(task: Task) -> dict[str, Any]:
    """A task by itself: as `describe`, with `history`, its last attempts, oldest first, and `receipt`.

    The receipt is None until it is known what became of the task. It has what the file was and has become, as far as
    that is known, and when.
    """
    return {**describe(task), "history": [_attempt(attempt) for attempt in task.history],
            "receipt": _receipt(task) if task.state in OUTCOMES else None}


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {"at": when(attempt.at), "duration_s": attempt.duration_s, "code": attempt.code, "message": attempt.message}


def _receipt(task: Task) -> dict[str, Any]:
    upload = task.upload
    last = task.history[-1] if task.history else None
    done = last if last is not None and last.code is None else None
    # Tasks of an older version have no history.
    delivered_at = done.at if done else task.updated_at
    return {
        "sha256": upload.sha256, "size": upload.size, "mode": _octal(done.mode) if done else None,
        "uid": done.uid if done else None, "gid": done.gid if done else None, "way": done.way if done else None,
        "client": upload.client, "attempts": task.attempts, "accepted_at": when(upload.created_at),
        "last_attempt_at": when(last.at - last.duration_s) if last else None,
        "delivered_at": when(delivered_at) if task.state is State.DELIVERED else None,
    }


def describe_step(task: Task, state: State, at: float, code: str | None) -> dict[str, Any]:
    """That a task came into a state, at a time in seconds since the epoch, as JSON values."""
    to = task.destination
    return {
        "task_id": task.task_id, "state": state.label, "at": when(at), "error_code": code,
        "remote": to.remote, "project": to.project, "instance": to.instance, "path": to.path,
        "client": task.upload.client,
    }


def _octal(mode: int | None) -> str | None:
    return None if mode is None else f"{mode:04o}"


def when(seconds: float) -> str:
    """A time in seconds since the epoch, as RFC 3339 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def when_or_none(seconds: float | None) -> str | None:
    """The same, where there may be none."""
    return None if seconds is None else when(seconds)


def seconds_of(text: str) -> float:
    """The seconds since the epoch of what `when` makes. Raises ValueError and OverflowError."""
    return datetime.fromisoformat(text).timestamp()
