"""What became of each file, and the exit code that follows from all of them: pure values."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from client.push.plan import LeftOut, PlannedFile
from client.push.unsent import Unsent
from daemon.model.task import OUTCOMES, State
from daemon.process.exit_status import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, EXIT_UNDECIDED

_DECIDED: Final = frozenset(state.label for state in OUTCOMES)


class PushEnd(Enum):
    """What became of one file."""

    #: It would be sent.
    PLANNED = "planned"
    #: It is safe with the service, which delivers it.
    ACCEPTED = "accepted"
    #: It is in the instance.
    DELIVERED = "delivered"
    #: There is nothing to send.
    SKIPPED = "skipped"
    #: It was accepted, and what became of it is not known.
    UNDECIDED = "undecided"
    #: It was not sent, or not delivered.
    FAILED = "failed"
    #: It was not sent, because the command was ended.
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, kw_only=True)
class PushedFile:
    """One file, and what became of it."""

    source: str
    #: The path in the instance; None where it has none.
    to: str | None
    end: PushEnd
    size: int | None = None
    task_id: str | None = None
    #: The state of its task, as far as it is known.
    state: str | None = None
    code: str | None = None
    message: str | None = None
    hint: str | None = None
    #: True when the same command may go on with it.
    resumable: bool = False

    def as_json(self, instance: str) -> dict[str, Any]:
        """The line of JSON that tells of it."""
        error = None if self.code is None else {"code": self.code, "message": self.message, "hint": self.hint}
        return {"source": self.source, "instance": instance, "path": self.to, "size_bytes": self.size,
                "outcome": self.end.value, "task_id": self.task_id, "state": self.state, "error": error}


def left_out(what: LeftOut) -> PushedFile:
    """What is not sent."""
    end = PushEnd.SKIPPED if what.is_skipped else PushEnd.FAILED
    reason = Unsent(what.code, what.message)
    return PushedFile(source=what.source, to=None, end=end, code=what.code, message=reason.detail, hint=reason.hint)


def unsent(file: PlannedFile, reason: Unsent, *, task_id: str | None = None) -> PushedFile:
    """A file that was not sent, or, with its task, one whose outcome cannot be learned."""
    interrupted = PushEnd.INTERRUPTED if reason.code == "interrupted" else PushEnd.FAILED
    return PushedFile(
        source=file.source, to=file.to, size=file.size, task_id=task_id, resumable=reason.resumable, code=reason.code,
        end=interrupted if task_id is None else PushEnd.UNDECIDED, message=reason.detail, hint=reason.hint)


def accepted(file: PlannedFile, task_id: str) -> PushedFile:
    """A file that is safe with the service."""
    return PushedFile(source=file.source, to=file.to, size=file.size, end=PushEnd.ACCEPTED, task_id=task_id)


def decided(file: PlannedFile, task: dict[str, Any]) -> PushedFile | None:
    """A file whose task is so, as the service tells it; None while nobody knows what becomes of it."""
    state = task.get("state")
    if state not in _DECIDED:
        return None
    task_id = task.get("id")
    delivered = state == State.DELIVERED.label
    error = task.get("error")
    told = error if isinstance(error, dict) else {}
    code = None if delivered else _text(told.get("code")) or str(state)
    reason = None if code is None else Unsent(code, _text(told.get("message")) or f"The task is {state}.")
    return PushedFile(
        source=file.source, to=file.to, size=file.size, end=PushEnd.DELIVERED if delivered else PushEnd.FAILED,
        task_id=_text(task_id), state=str(state), code=code, message=reason.detail if reason else None,
        hint=reason.hint if reason else None)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def exit_code(files: Iterable[PushedFile], *, interrupted: bool = False) -> int:
    """What the command ends with: 0 only when every file came as far as was asked for."""
    ends = {file.end for file in files}
    if interrupted or PushEnd.INTERRUPTED in ends:
        return EXIT_INTERRUPTED
    if PushEnd.FAILED in ends:
        some = ends & {PushEnd.ACCEPTED, PushEnd.DELIVERED, PushEnd.UNDECIDED, PushEnd.PLANNED}
        return EXIT_SOME_FAILED if some else EXIT_FAILED
    return EXIT_UNDECIDED if PushEnd.UNDECIDED in ends else EXIT_OK


def is_finished(files: Iterable[PushedFile]) -> bool:
    """True when there is nothing that the same command could go on with."""
    return not any(file.resumable or file.end in {PushEnd.UNDECIDED, PushEnd.INTERRUPTED} for file in files)
