"""The words for what is in the way: pure functions of what is known. Those of errors come from the table of errors."""

import shlex
from typing import Final

from daemon.errors import ERRORS, Action, Cause, ErrorKind, Scope
from daemon.explain.explanation import Explanation
from daemon.explain.facts import ServiceFacts
from daemon.model.task import Task
from daemon.model.upload import Destination
from daemon.state.activity import Blocked, Pushing, RemoteStanding

#: A worker tells what it does once a second; after so long without a word it hangs.
SILENT_S: Final = 15.0
#: A worker that has begun so long ago and has told nothing yet takes longer than it should.
_SLOW_START_S: Final = 60.0


def kind_of(code: str | None) -> ErrorKind | None:
    """The row of the table of errors; None without an error, or for a code of another version."""
    return ERRORS.get(code or "")


def title_of(code: str | None) -> str:
    """What is wrong, as a sentence; '' where nothing is known."""
    kind = kind_of(code)
    return kind.title if kind else f"It said {code}." if code else ""


def hint_of(code: str | None, message: str | None) -> str | None:
    """What to do about it. What was given up has its cause in its message, before a colon: that has its own hint."""
    kind = kind_of(code)
    cause = kind_of((message or "").partition(":")[0]) if code == "gave_up" else None
    hints = [row.hint for row in (cause, kind) if row is not None]
    return " ".join(hints) or None


def service_trouble(service: ServiceFacts, now: float) -> Explanation | None:
    """What keeps all tasks of a shard waiting; None when its worker does its work."""
    if service.code is not None:
        return _broken(service.code, service.message, f"Shard {service.shard}'s queue cannot be used.")
    if service.worker is None:
        kind = ERRORS["no_worker"]
        return Explanation(
            stuck=True, summary=f"Shard {service.shard} has no worker.", since=service.last_at, code=kind.code,
            message=kind.title, hint=kind.hint, of_service=True,
            unblocks="It goes on by itself when the worker runs.")
    told = service.activity
    if told is None:
        began = service.worker_since
        return Explanation(
            stuck=began is not None and now - began > _SLOW_START_S, since=began,
            summary=f"The worker of shard {service.shard} is starting: it may have to set its database in order.",
            unblocks="It goes on by itself when the worker is ready.")
    if now - told.at > SILENT_S:
        kind = ERRORS["worker_silent"]
        return Explanation(
            stuck=True, summary=f"The worker of shard {service.shard}, process {told.pid}, hangs.", since=told.at,
            code=kind.code, message=kind.title, hint=kind.hint, of_service=True,
            unblocks="It goes on by itself when the worker does, or was started again.")
    if told.code is not None:
        return _broken(told.code, told.message, f"The worker of shard {service.shard} cannot go on.")
    return None


def _broken(code: str, message: str | None, summary: str) -> Explanation:
    return Explanation(stuck=True, summary=f"{summary} {title_of(code)}".strip(), code=code, message=message,
                       hint=hint_of(code, message), of_service=True,
                       unblocks="It goes on by itself when that is over.")


def place_trouble(to: Destination, service: ServiceFacts, name: str) -> Explanation | None:
    """What keeps all tasks of a remote or an instance waiting; None when nothing is known of that."""
    remote = remote_of(service, to.remote)
    if remote is not None and not remote.up:
        return Explanation(
            stuck=True, summary=f"The remote {to.remote} is away. {title_of(remote.code)}", since=remote.since,
            code=remote.code, message=remote.message, hint=hint_of(remote.code, None), of_service=True,
            unblocks="It goes on by itself as soon as the remote answers.", next_try_at=remote.next_try_at)
    blocked = blocked_of(service, to.instance_key)
    if blocked is not None:
        return Explanation(
            stuck=True, summary=f"The instance {name} takes nothing now. {title_of(blocked.code)}",
            since=blocked.since, code=blocked.code, message=blocked.message, hint=hint_of(blocked.code, None),
            unblocks=instance_unblocks(blocked.code, name), next_try_at=blocked.next_try_at)
    return None


def remote_of(service: ServiceFacts, remote: str) -> RemoteStanding | None:
    """How a remote stands, as far as the worker has told."""
    told = service.activity
    return next((one for one in told.remotes if one.remote == remote), None) if told else None


def blocked_of(service: ServiceFacts, instance_key: str) -> Blocked | None:
    """Why an instance is left alone, as far as the worker has told."""
    told = service.activity
    return next((one for one in told.blocked if one.instance_key == instance_key), None) if told else None


def pushing_to(service: ServiceFacts, instance_key: str) -> tuple[Pushing, ...]:
    """What is being pushed into an instance."""
    told = service.activity
    return tuple(one for one in told.pushing if one.instance_key == instance_key) if told else ()


def instance_unblocks(code: str, name: str) -> str:
    """What has to happen where all of an instance waits."""
    return _by_itself(code) or (
        f"It is tried again by itself; at once with: incus-courier tasks flush --instance {shlex.quote(name)}")


def task_unblocks(task: Task) -> str:
    """What has to happen after a task's own last error."""
    return _by_itself(task.error_code) or (
        f"It is tried again by itself; at once with: incus-courier tasks retry {task.task_id}")


def _by_itself(code: str | None) -> str | None:
    """What has to happen where waiting is all that can be done; None where trying again may help."""
    kind = kind_of(code)
    if kind is None or kind.action is not Action.WAIT:
        return None
    if kind.cause is Cause.HERE:
        return "It goes on by itself when that is over."
    return {Scope.TASK: "It goes on by itself when the instance starts.",
            Scope.INSTANCE: "It goes on by itself as soon as the instance can be reached.",
            Scope.REMOTE: "It goes on by itself as soon as the remote answers."}[kind.scope]
