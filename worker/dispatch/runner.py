"""Runners: threads that hold one session to one instance each and push one task after the other."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from daemon import failpoints
from daemon.config import Config
from daemon.errors import CourierError, Undelivered
from daemon.log import log
from daemon.model.task import Task
from daemon.spool import Mark, Open, Stopped
from worker.dispatch.lane import Lane, Push
from worker.targets.base import Delivery, Receipt, Session, Target

#: An idle session is kept for so long: an open one can block other operations on its instance.
LINGER_S: Final = 1.0
#: A busy one is let go of every so many seconds, for the same reason.
HOLD_S: Final = 2.0
#: After so many seconds a runner makes room for another lane, if one waits.
TURN_S: Final = 0.5


class Cancelled(CourierError):
    """Raised before the rename of a task that a person cancelled."""

    def __init__(self) -> None:
        super().__init__("cancelled")


@dataclass(frozen=True)
class Outcome:
    """How one push ended. `code` is None when the file is in the instance."""

    task: Task
    code: str | None
    detail: str = ""
    receipt: Receipt | None = None
    seconds: float = 0.0
    #: Its part file may still be in the instance.
    left_part: bool = False
    #: Its file's name says that it is held.
    held: bool = False


@dataclass(frozen=True)
class Swept:
    """A message: how looking for the part file of a task ended. `code` is None when there is none any more."""

    task: Task
    code: str | None
    detail: str = ""
    #: There was one.
    removed: bool = False
    #: There was no session to look through.
    unopened: bool = False


def delivery_of(task: Task, config: Config) -> Delivery:
    """What a target needs to know to deliver the task under this configuration."""
    upload, rules = task.upload, config.delivery
    return Delivery(
        task_id=upload.task_id, destination=upload.destination, size=upload.size, sha256=upload.sha256,
        mode=upload.mode, uid=upload.uid, gid=upload.gid, default_mode=rules.mode_bits, default_uid=rules.uid,
        default_gid=rules.gid, mkdirs=upload.mkdirs, dir_mode=rules.dir_mode_bits, symlinks=rules.symlinks,
        verify=rules.verify, stopped=rules.stopped, recheck=task.recheck,
        left_part=task.left_part,
    )


def run(
    lane: Lane, target_of: Callable[[str], Target], spool: Open, config: Callable[[], Config],
    report: Callable[[Outcome | Swept], None],
) -> None:
    """Push the lane's tasks, or sweep up after them, until none comes for a while, and report each. One thread's work.

    `config` is asked for each task.
    """
    held: list[Session] = []
    turn_ends = time.monotonic() + TURN_S
    let_go_at = time.monotonic() + HOLD_S
    try:
        while (push := lane.take(LINGER_S, turn_over=time.monotonic() > turn_ends)) is not None:
            ended: Outcome | Swept | None = None
            try:
                if push.sweep:
                    ended = _sweep(push.task, held, target_of, config())
                else:
                    ended = _push(push, held, target_of, spool, config())
            finally:
                lane.done(push, abandoned=ended is None)
            report(ended)
            if time.monotonic() > let_go_at:
                _drop(held)
                let_go_at = time.monotonic() + HOLD_S
    finally:
        _drop(held)


def _push(
    push: Push, held: list[Session], target_of: Callable[[str], Target], spool: Open, config: Config,
) -> Outcome:
    """Push one task, opening a session if none is held. Whatever goes wrong is in the outcome."""
    started = time.monotonic()
    task = push.task
    begun = False
    log("push.started", task_id=task.task_id, instance=task.destination.instance, path=task.destination.path,
        size=task.upload.size, attempt=task.attempts + 1)
    try:
        with (spool.open if task.recheck else spool.open_pending)(task.upload) as source:
            if not held:
                failpoints.reach("push.open")
                held.append(target_of(task.destination.remote).open(task.destination, config.delivery.stopped))
            failpoints.reach("push.write")
            begun = True
            receipt = held[0].deliver(delivery_of(task, config), source, lambda: _last_moment(push))
        failpoints.reach("push.renamed")
    except Stopped as stopped:
        return Outcome(task, stopped.code, stopped.detail, held=stopped.mark is Mark.HELD)
    except CourierError as error:
        left = begun and held[0].left_part
        _drop_if_broken(held)
        if task.recheck and error.code == "bytes_missing":
            # Bytes go only after the barrier: what was delivered before the boot is on the disk.
            return Outcome(task, None, seconds=time.monotonic() - started)
        failure = _whose(error, partial(target_of, task.destination.remote))
        return Outcome(task, failure.code, failure.detail, seconds=time.monotonic() - started, left_part=left)
    except OSError as error:
        left = begun and held[0].left_part
        _drop(held)
        return Outcome(task, "io_error", f"{error.strerror or error}", seconds=time.monotonic() - started,
                       left_part=left)
    left = held[0].left_part
    _drop_if_broken(held)
    return Outcome(task, None, receipt=receipt, seconds=time.monotonic() - started, left_part=left)


def _sweep(task: Task, held: list[Session], target_of: Callable[[str], Target], config: Config) -> Swept:
    """Remove the part file of a task that is not pushed, opening a session if none is held."""
    opened = False
    try:
        if not held:
            held.append(target_of(task.destination.remote).open(task.destination, config.delivery.stopped))
        opened = True
        removed = held[0].sweep(delivery_of(task, config))
    except CourierError as error:
        _drop_if_broken(held)
        failure = _whose(error, partial(target_of, task.destination.remote))
        return Swept(task, failure.code, failure.detail, unopened=not opened)
    _drop_if_broken(held)
    return Swept(task, None, removed=removed)


def _whose(error: CourierError, target: Callable[[], Target]) -> CourierError:
    """The error itself; or, when a connection ended because the whole remote is away, that."""
    if error.kind.ask_remote:
        try:
            target().probe()
        except CourierError as away:
            return away
    return error


def _last_moment(push: Push) -> None:
    if push.cancelled:
        raise Cancelled
    if push.stopped:
        raise Undelivered("shutdown")
    failpoints.reach("push.rename")


def _drop_if_broken(held: list[Session]) -> None:
    if held and held[0].broken:
        _drop(held)


def _drop(held: list[Session]) -> None:
    while held:
        held.pop().close()
