"""What an explanation says, as JSON values."""

from dataclasses import dataclass, replace
from typing import Any, Final

from daemon.model.schema import TIME, YES_OR_NO, Schema, answer, many, or_null, saying, text, whole_number
from daemon.model.upload import TASK_ID
from daemon.model.view import when_or_none
from daemon.state.activity import Pushing

#: What `Explanation.as_json` makes.
EXPLANATION: Final[Schema] = answer("Explanation", {
    "stuck": saying(YES_OR_NO, "whether something else than its turn keeps it back, and no person wished that"),
    "summary": text("how it stands, in one or a few sentences"),
    "task_id": or_null(text("of an instance: the task that says so, where it is one", pattern=TASK_ID)),
    "since": or_null(saying(TIME, "since when it stands so, where that is known")),
    "error": or_null(answer("ExplainedError", {
        "code": text("stable, for programs"), "message": or_null(text("what it said, for people")),
        "hint": or_null(text("what to do about it"))})),
    "unblocks": text("what has to happen for it to go on; empty when nothing is to come"),
    "next_try_at": or_null(saying(TIME, "when it is tried next, where that is known")),
    "pushing": saying(many(answer("Pushing", {
        "task_id": text("the task", pattern=TASK_ID), "path": text("where to in the instance"),
        "size_bytes": whole_number(0), "sent_bytes": whole_number(
            0, None, "so much was handed on so far; of small files this may stay 0 until they are there"),
        "since": TIME})), "what is being pushed into the instance now"),
    "waiting": whole_number(0, None, "of a task: how many of its instance come before it, as far as they were counted;"
                                     " of an instance: how many tasks are not finished"),
})


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why a task, or what waits for an instance, is not delivered yet. Times are in seconds since the epoch."""

    #: True when something else than its turn keeps it back, and no person wished that.
    stuck: bool
    #: One or two sentences: how it stands.
    summary: str
    #: Of an instance: the task that says so, where it is one.
    task_id: str | None = None
    #: Since when it stands so, where that is known.
    since: float | None = None
    #: The last error: its code, what it said, and what to do about it.
    code: str | None = None
    message: str | None = None
    hint: str | None = None
    #: True when the error is of the service itself, or of a remote: what it said is for who may see the whole.
    of_service: bool = False
    #: What has to happen for it to go on; '' when nothing is to come.
    unblocks: str = ""
    next_try_at: float | None = None
    #: What is being pushed into the instance now.
    pushing: tuple[Pushing, ...] = ()
    #: Of a task: how many tasks of its instance come before it, as far as they were counted. Of an instance: how many
    #: tasks are not finished.
    waiting: int = 0

    def for_outsiders(self) -> "Explanation":
        """The same for who may not see the whole: without what the service's own error said: it may name its files."""
        return replace(self, message=None) if self.of_service else self

    def as_json(self) -> dict[str, Any]:
        """The explanation as JSON values. Times are RFC 3339, in UTC."""
        error = {"code": self.code, "message": self.message, "hint": self.hint} if self.code else None
        return {
            "stuck": self.stuck, "summary": self.summary, "task_id": self.task_id, "since": when_or_none(self.since),
            "error": error, "unblocks": self.unblocks, "next_try_at": when_or_none(self.next_try_at),
            "pushing": [{"task_id": file.task_id, "path": file.path, "size_bytes": file.size_bytes,
                         "sent_bytes": file.sent_bytes, "since": when_or_none(file.since)} for file in self.pushing],
            "waiting": self.waiting,
        }
