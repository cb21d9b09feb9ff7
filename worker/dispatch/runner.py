"""Runners: threads that hold one session to one instance each and push one task after the other."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from daemon import failpoints
from daemon.config import Config
from daemon.errors import ERRORS, Cause, CourierError, Undelivered
from daemon.log import log
from daemon.model.task import Task
from daemon.spool import Mark, Open, Stopped
from worker.dispatch.lane import Lane, Push
from worker.targets.base import Delivery, Patience, Receipt, Session, Target

#: An idle session is kept for so long: an open one can block other operations on its instance.
LINGER_S: Final = 1.0
#: A busy one is let go of every so many seconds, for the same reason.
HOLD_S: Final = 2.0
#: After so many seconds a runner makes room for another lane, if one waits.
TURN_S: Final = 0.5
#: A busy runner has what it delivered confirmed so often: one question for many files, and no outcome waits long.
CONFIRM_S: Final = 0.2


class Cancelled(CourierError):
    """Raised before the rename of a task that a person cancelled."""

    def __init__(self) -> None:
        super().__init__("cancelled")


@dataclass(frozen=True)
class PushOutcome:
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
    #: It was ended because nothing moved while others waited for its thread: sooner than by the limit of its remote.
    hurried: bool = False


@dataclass(frozen=True)
class Pushed:
    """A message: a task was pushed, so its lane has room for another; how it ended is told once that is confirmed."""


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
        replace_group=rules.replace_group,
        verify=rules.verify, stopped=rules.stopped, recheck=task.recheck,
        left_part=task.left_part,
    )


class _Hold:
    """The session that a runner holds to its instance, opened when it is first needed, and what it is to vouch for."""

    def __init__(
        self, lane: Lane, target_of: Callable[[str], Target], report: Callable[[PushOutcome | Pushed | Swept], None],
        patience: Patience,
    ) -> None:
        self._lane = lane
        self._patience = patience
        self._target_of = target_of
        self._report = report
        self._session: Session | None = None
        self._let_go_at = 0.0
        self._confirm_at = 0.0
        self._delivered: list[tuple[Push, PushOutcome]] = []

    @property
    def linger_s(self) -> float:
        """How long to wait for another task: only a session is worth waiting with, and not with what it owes."""
        return 0.0 if self._session is None or self._delivered else LINGER_S

    @property
    def owes(self) -> bool:
        """True while something that was delivered is not confirmed."""
        return bool(self._delivered)

    def session(self, stopped: str) -> Session:
        """The session. Raises Undelivered when it cannot be opened."""
        if self._session is None:
            failpoints.reach("push.open")
            destination = self._lane.destination
            self._session = self._target_of(destination.remote).open(destination, stopped, self._patience)
            self._let_go_at = time.monotonic() + HOLD_S
        return self._session

    def whose(self, error: CourierError) -> CourierError:
        """The error itself; or, when it may be due to the whole remote being away, that."""
        with self._patience.waiting():
            return _whose(error, partial(self._target_of, self._lane.destination.remote))

    def ended(self, push: Push, ended: PushOutcome | Swept) -> None:
        """Report how a push ended; a delivery by the session, once that vouches for it."""
        if isinstance(ended, PushOutcome) and ended.receipt is not None:
            self._confirm_at = self._confirm_at if self._delivered else time.monotonic() + CONFIRM_S
            self._delivered.append((push, ended))
            self._report(Pushed())
        else:
            self._report(ended)
        now = time.monotonic()
        if self._session is not None and (self._session.broken or now > self._let_go_at):
            self.let_go()
        elif now > self._confirm_at:
            self.confirm()

    def confirm(self) -> None:
        """Have the session vouch for what was delivered, and report it, or else what came in between."""
        if self._session is None or not self._delivered:
            return
        failure = None
        try:
            self._session.confirm()
        except CourierError as error:
            failure = self.whose(error)
        while self._delivered:
            _, outcome = self._delivered.pop(0)
            self._report(outcome if failure is None else replace(
                outcome, code=failure.code, detail=failure.detail, receipt=None))

    def let_go(self) -> None:
        """Have confirmed what was delivered, and close the session."""
        try:
            self.confirm()
        finally:
            if self._session is not None:
                self._session.close()
                self._session = None
            while self._delivered:
                push, _ = self._delivered.pop()
                self._lane.done(push, abandoned=True)


def run(
    lane: Lane, target_of: Callable[[str], Target], spool: Open, config: Callable[[], Config],
    report: Callable[[PushOutcome | Pushed | Swept], None], patience: Patience,
) -> None:
    """Push the lane's tasks, or sweep up after them, until none comes for a while, and report each. One thread's work.

    `config` is asked for each task. `patience` is for all that is waited for.
    """

    def tell(message: PushOutcome | Pushed | Swept) -> None:
        if not isinstance(message, Pushed):
            patience.silent = message.code is not None and ERRORS[message.code].cause is Cause.SILENT
        if isinstance(message, PushOutcome) and patience.silent and patience.hurried:
            message = replace(message, hurried=True)
        report(message)

    hold = _Hold(lane, target_of, tell, patience)
    turn_ends = time.monotonic() + TURN_S
    try:
        while True:
            push = lane.take(hold.linger_s, turn_over=time.monotonic() > turn_ends)
            if push is not None:
                hold.ended(push, _do(push, lane, hold, spool, config()))
            elif hold.owes:
                hold.confirm()
            else:
                return
    finally:
        hold.let_go()


def _do(push: Push, lane: Lane, hold: _Hold, spool: Open, config: Config) -> PushOutcome | Swept:
    ended: PushOutcome | Swept | None = None
    try:
        if push.bulk:
            # What is known is told before anything that may take long.
            hold.confirm()
        ended = _sweep(push.task, hold, config) if push.sweep else _push(push, hold, spool, config)
        return ended
    finally:
        lane.done(push, abandoned=ended is None)


def _push(push: Push, hold: _Hold, spool: Open, config: Config) -> PushOutcome:
    """Push one task. Whatever goes wrong is in the outcome."""
    started = time.monotonic()
    task = push.task
    session: Session | None = None
    log("push.started", task_id=task.task_id, instance=task.destination.instance, path=task.destination.path,
        size=task.upload.size, attempt=task.attempts + 1)

    def outcome(code: str | None, detail: str = "", receipt: Receipt | None = None) -> PushOutcome:
        return PushOutcome(task, code, detail, receipt, seconds=time.monotonic() - started,
                       left_part=session is not None and session.left_part)

    try:
        with (spool.open if task.recheck else spool.open_pending)(task.upload) as source:
            opened = hold.session(config.delivery.stopped)
            failpoints.reach("push.write")
            session = opened
            receipt = session.deliver(delivery_of(task, config), source, lambda: _last_moment(push))
        failpoints.reach("push.renamed")
        return outcome(None, receipt=receipt)
    except Stopped as stopped:
        return PushOutcome(task, stopped.code, stopped.detail, held=stopped.mark is Mark.HELD)
    except CourierError as error:
        if task.recheck and error.code == "bytes_missing":
            # Bytes go only after the barrier: what was delivered before the boot is on the disk.
            return outcome(None)
        failure = hold.whose(error)
        return outcome(failure.code, failure.detail)
    except OSError as error:
        ended = outcome("io_error", f"{error.strerror or error}")
        hold.let_go()
        return ended


def _sweep(task: Task, hold: _Hold, config: Config) -> Swept:
    """Remove the part file of a task that is not pushed."""
    opened = False
    try:
        session = hold.session(config.delivery.stopped)
        opened = True
        return Swept(task, None, removed=session.sweep(delivery_of(task, config)))
    except CourierError as error:
        failure = hold.whose(error)
        return Swept(task, failure.code, failure.detail, unopened=not opened)


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
