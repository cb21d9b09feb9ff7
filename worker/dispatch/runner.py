"""Runners: threads that hold one session to one instance each and push tasks, the small ones side by side."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from daemon import failpoints
from daemon.config import Config
from daemon.errors import ERRORS, Action, CannotStart, Cause, CourierError, Undelivered
from daemon.log import log
from daemon.model.task import Attempt, Task
from daemon.spool import Mark, Open, Source, Stopped
from worker.dispatch.ceiling import Ceiling, ceiling_of
from worker.dispatch.lane import Lane, Push
from worker.targets.base import Delivery, Ended, Parcel, Patience, Receipt, Session, Target

#: An idle session is kept for so long: an open one can block other operations on its instance.
LINGER_S: Final = 1.0
#: A busy one is let go of every so many seconds, for the same reason.
HOLD_S: Final = 2.0
#: After so many seconds a runner makes room for another lane, if one waits.
TURN_S: Final = 0.5
#: What was delivered is confirmed when there is nothing more to push, but no more often than so; and while there is, so
#: often: one question for many files, and no outcome waits for long.
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
    #: When it ended, in seconds since the epoch.
    at: float = field(default_factory=time.time)
    #: Its part file may still be in the instance.
    left_part: bool = False
    #: Its file's name says that it is held.
    held: bool = False
    #: It was ended because nothing moved while others waited for its thread: sooner than by the limit of its remote.
    hurried: bool = False
    #: It was under way when the connection ended over another one.
    bystander: bool = False


@dataclass(frozen=True)
class Pushed:
    """A message: a lane has room for more tasks; how those before ended is told once that is confirmed."""


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


_Message = PushOutcome | Pushed | Swept


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What has to be asked before something is done. It may raise CourierError or OSError: then nothing is."""

    #: Called before anything changes in the instance; it raises when nothing may.
    fence: Callable[[], None]
    #: Whether the cell has let go of an instance, by its key.
    is_released: Callable[[str], bool]

    def heed(self) -> None:
        """Ask the fence. A worker that has lost its state is about to end, and decides nothing about its tasks."""
        try:
            self.fence()
        except CannotStart as lost:
            raise Undelivered("shutdown", lost.detail) from lost


def delivery_of(task: Task, config: Config, ceiling: Ceiling | None = None) -> Delivery:
    """What a target needs to know to deliver the task under this configuration and, unless it only sweeps, ceiling."""
    upload, rules = task.upload, config.delivery
    before = _delivery_before(task) if task.recheck else None
    return Delivery(
        task_id=upload.task_id, destination=upload.destination, size=upload.size, sha256=upload.sha256,
        mode=upload.mode, uid=upload.uid, gid=upload.gid, default_mode=rules.mode_bits, default_uid=rules.uid,
        default_gid=rules.gid, mkdirs=upload.mkdirs, dir_mode=rules.dir_mode_bits, symlinks=rules.symlinks,
        replace_group=rules.replace_group,
        verify=rules.verify, stopped=rules.stopped, recheck=task.recheck,
        delivered_to=before.identity if before else None, delivered_at=before.at if before else 0.0,
        left_part=task.left_part,
        path_rule=ceiling.path_rule(upload) if ceiling else None,
        set_id_rule=ceiling.set_id_rule() if ceiling else None,
    )


def _delivery_before(task: Task) -> Attempt | None:
    return next((attempt for attempt in reversed(task.history) if attempt.code is None), None)


class _Hold:
    """The session that a runner holds to its instance, opened when it is first needed, and what it is to vouch for."""

    def __init__(
        self, lane: Lane, target_of: Callable[[str], Target], report: Callable[..., None], patience: Patience,
    ) -> None:
        self._lane = lane
        self._patience = patience
        self._target_of = target_of
        self._report = report
        self._session: Session | None = None
        self._let_go_at = 0.0
        self._confirm_at = 0.0
        self._owes_since = 0.0
        #: What is delivered, or is to be a dead letter: that counts only if it was the very instance.
        self._decided: list[tuple[Push, PushOutcome]] = []
        #: Why the remote is away, if it was when it was asked; and that it was asked since the session broke.
        self._away: CourierError | None = None
        self._asked = False

    @property
    def linger_s(self) -> float:
        """How long to wait for another task: only a session is worth waiting with, and what it owes not for long."""
        if self._session is None:
            return 0.0
        return max(0.0, self._confirm_at - time.monotonic()) if self._decided else LINGER_S

    @property
    def owes(self) -> bool:
        """True while something that was decided is not confirmed."""
        return bool(self._decided)

    def session(self, stopped: str) -> Session:
        """The session. Raises Undelivered when it cannot be opened."""
        if self._session is None:
            failpoints.reach("push.open")
            destination = self._lane.destination
            self._session = self._target_of(destination.remote).open(destination, stopped, self._patience)
            self._patience.in_session = True
            self._let_go_at = time.monotonic() + HOLD_S
            self._confirm_at = 0.0
            self._asked = False
        return self._session

    def whose(self, error: CourierError) -> CourierError:
        """The error itself; or, when it may be due to the whole remote being away, that: asked once for a session."""
        if not error.kind.ask_remote:
            return error
        if not self._asked:
            with self._patience.waiting():
                self._away = _why_away(partial(self._target_of, self._lane.destination.remote))
        self._asked = self._session is not None and self._session.broken
        return self._away or error

    def let_go_soon(self) -> None:
        """Something went wrong that nobody expects: let go of the session when the pushes that run have ended."""
        self._let_go_at = 0.0

    def ended(self, push: Push, ended: PushOutcome | Swept) -> None:
        """Report how a push ended; what the session decided, once that vouches for it."""
        if isinstance(ended, PushOutcome) and self._session is not None and _is_decided(ended):
            self._owes_since = self._owes_since if self._decided else time.monotonic()
            self._decided.append((push, ended))
        else:
            self._report(ended)
        if self._decided and time.monotonic() > self._owes_since + CONFIRM_S:
            self.confirm()

    def tend(self) -> None:
        """No push is under way: let go of the session when it broke, or was held for long enough."""
        if self._session is not None and (self._session.broken or time.monotonic() > self._let_go_at):
            self.let_go()

    def confirm(self) -> None:
        """Have the session vouch for what was decided, and report it, or else what came in between."""
        if self._session is None or not self._decided:
            return
        failure = None
        try:
            self._session.confirm()
        except CourierError as error:
            failure = self.whose(error)
            self.let_go_soon()
        self._confirm_at = time.monotonic() + CONFIRM_S
        outcomes = [outcome for _, outcome in self._decided]
        self._decided = []
        self._report(*(outcomes if failure is None else (
            replace(outcome, code=failure.code, detail=failure.detail, receipt=None) for outcome in outcomes)))

    def let_go(self) -> None:
        """Have confirmed what was decided, and close the session."""
        try:
            self.confirm()
        finally:
            if self._session is not None:
                self._session.close()
                self._session = None
                self._patience.in_session = False
            while self._decided:
                push, _ = self._decided.pop()
                self._lane.done(push, abandoned=True)


def _is_decided(outcome: PushOutcome) -> bool:
    """True when the task is done with, one way or the other."""
    return outcome.receipt is not None or (
        outcome.code is not None and ERRORS[outcome.code].action is Action.DEAD_LETTER)


def run(
    lane: Lane, target_of: Callable[[str], Target], spool: Open, config: Callable[[], Config],
    report: Callable[..., None], patience: Patience, guard: Guard,
) -> None:
    """Push the lane's tasks, or sweep up after them, until none comes for a while. One thread's work.

    `report` is called with messages: PushOutcome, Swept and Pushed. `config` is asked for each of them anew. `patience`
    is for all that is waited for.
    """

    def tell(*messages: _Message) -> None:
        report(*map(heed, messages))

    def heed(message: _Message) -> _Message:
        if not isinstance(message, Pushed):
            patience.silent = message.code is not None and ERRORS[message.code].cause is Cause.SILENT
        if isinstance(message, PushOutcome) and patience.silent and patience.hurried:
            return replace(message, hurried=True)
        return message

    hold = _Hold(lane, target_of, tell, patience)
    turn_ends = time.monotonic() + TURN_S
    try:
        while True:
            turn_over = time.monotonic() > turn_ends
            pushes = lane.take(hold.linger_s, most=config().delivery.per_instance, turn_over=turn_over)
            if pushes:
                if lane.is_low():
                    tell(Pushed())
                _do(pushes, lane, hold, spool, config(), guard)
                if any(push.bulk for push in pushes):
                    tell(Pushed())
                hold.tend()
            elif hold.owes:
                hold.confirm()
            else:
                return
    finally:
        hold.let_go()


def _do(
    pushes: Sequence[Push], lane: Lane, hold: _Hold, spool: Open, config: Config, guard: Guard,
) -> None:
    """Push tasks side by side, or sweep up after them, and report each."""
    left = {push.task.task_id: push for push in pushes}
    try:
        if any(push.bulk for push in pushes):
            # What is known is told before anything that may take long.
            hold.confirm()
        for push, ended in _ends(pushes, hold, spool, config, guard):
            del left[push.task.task_id]
            lane.done(push, abandoned=False)
            hold.ended(push, ended)
    finally:
        for push in left.values():
            lane.done(push, abandoned=True)


def _ends(
    pushes: Sequence[Push], hold: _Hold, spool: Open, config: Config, guard: Guard,
) -> Iterator[tuple[Push, PushOutcome | Swept]]:
    for push in pushes:
        if push.sweep:
            yield push, _sweep(push.task, hold, config, guard)
    yield from _push([push for push in pushes if not push.sweep], hold, spool, config, guard)


@dataclass(frozen=True)
class _Begun:
    """A push that has begun."""

    push: Push
    #: Monotonic time.
    at: float

    def outcome(self, code: str | None, detail: str = "", ended: Ended | None = None, **more: bool) -> PushOutcome:
        """How it ended."""
        return PushOutcome(self.push.task, code, detail, ended.receipt if ended else None,
                           seconds=time.monotonic() - self.at, left_part=ended is not None and ended.left_part, **more)


def _push(
    pushes: Sequence[Push], hold: _Hold, spool: Open, config: Config, guard: Guard,
) -> Iterator[tuple[Push, PushOutcome]]:
    """Push tasks side by side. Whatever goes wrong is in the outcomes."""
    ceiling = ceiling_of(config.delivery)
    with contextlib.ExitStack() as opened:
        parcels: dict[str, tuple[_Begun, Parcel]] = {}
        for push in pushes:
            begun = _Begun(push, time.monotonic())
            task = push.task
            log("push.started", task_id=task.task_id, instance=task.destination.instance, path=task.destination.path,
                size=task.upload.size, attempt=task.attempts + 1, client=task.upload.client,
                traceparent=task.upload.traceparent)
            refusal = ceiling.refusal(task.upload) if ceiling else None
            if refusal is not None:
                yield push, begun.outcome("not_allowed", refusal)
                continue
            try:
                if guard.is_released(task.destination.instance_key):
                    yield push, begun.outcome("instance_released")
                    continue
                source = opened.enter_context((spool.open if task.recheck else spool.open_pending)(task.upload))
            except (CourierError, OSError) as error:
                yield push, _unread(begun, error)
            else:
                delivery = delivery_of(task, config, ceiling)
                parcels[task.task_id] = (begun, Parcel(
                    delivery=delivery, source=_Metered(source, push) if push.bulk else source,
                    before_rename=partial(_last_moment, push, guard)))
        while parcels:
            yield from _deliver(parcels, hold, config)


class _Metered:
    """The bytes of a bulky file, which note in its push how far they were read. Whoever opened them closes them."""

    def __init__(self, source: Source, push: Push) -> None:
        self._source = source
        self._push = push

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill the buffer from its start; return how much came."""
        count = self._source.readinto(buffer)
        self._push.sent_bytes += count or 0
        return count

    def seek(self, offset: int, /) -> int:
        """Go to a place: what comes is read from there."""
        self._push.sent_bytes = self._source.seek(offset)
        return self._push.sent_bytes


def _unread(begun: _Begun, error: CourierError | OSError) -> PushOutcome:
    """The outcome of a push whose bytes cannot be read."""
    if isinstance(error, Stopped):
        return PushOutcome(begun.push.task, error.code, error.detail, held=error.mark is Mark.HELD)
    if isinstance(error, OSError):
        return begun.outcome("io_error", f"{error.strerror or error}")
    if begun.push.task.recheck and error.code == "bytes_missing":
        # Bytes go only after the barrier: what was delivered before the boot is on the disk.
        return begun.outcome(None)
    return begun.outcome(error.code, error.detail)


def _deliver(
    parcels: dict[str, tuple[_Begun, Parcel]], hold: _Hold, config: Config,
) -> Iterator[tuple[Push, PushOutcome]]:
    """Deliver over one session; what was not begun when that ended is left in `parcels`."""
    try:
        session = hold.session(config.delivery.stopped)
    except (CourierError, OSError) as error:
        code, detail = _failure(error, hold)
        for number, (begun, _) in enumerate(parcels.values()):
            # One of them was the attempt.
            yield begun.push, begun.outcome(code, detail, bystander=number > 0)
        parcels.clear()
        return
    for begun, parcel in list(parcels.values()):
        try:
            failpoints.reach("push.write")
        except OSError as error:
            del parcels[parcel.delivery.task_id]
            yield begun.push, begun.outcome(*_failure(error, hold))
    for ended in session.deliver_all([parcel for _, parcel in parcels.values()]):
        begun, _ = parcels.pop(ended.parcel.delivery.task_id)
        yield begun.push, _outcome(begun, ended, hold)
    hold.tend()


def _outcome(begun: _Begun, ended: Ended, hold: _Hold) -> PushOutcome:
    error = ended.error
    if error is None:
        try:
            failpoints.reach("push.renamed")
        except OSError as fault:
            error = fault
        else:
            return begun.outcome(None, ended=ended)
    code, detail = _failure(error, hold)
    return begun.outcome(code, detail, replace(ended, receipt=None), bystander=ended.bystander)


def _failure(error: CourierError | OSError, hold: _Hold) -> tuple[str, str]:
    """The code and the detail of an outcome."""
    if isinstance(error, OSError):
        hold.let_go_soon()
        return "io_error", f"{error.strerror or error}"
    failure = hold.whose(error)
    return failure.code, failure.detail


def _sweep(task: Task, hold: _Hold, config: Config, guard: Guard) -> Swept:
    """Remove the part file of a task that is not pushed."""
    opened = False
    try:
        session = hold.session(config.delivery.stopped)
        opened = True
        guard.heed()
        return Swept(task, None, removed=session.sweep(delivery_of(task, config)))
    except CourierError as error:
        failure = hold.whose(error)
        return Swept(task, failure.code, failure.detail, unopened=not opened)
    except OSError as error:
        # The trouble is on this side: nobody could look.
        return Swept(task, "io_error", f"{error.strerror or error}", unopened=True)


def _why_away(target: Callable[[], Target]) -> CourierError | None:
    """Why the whole remote is away; None when it answers."""
    try:
        target().probe()
    except CourierError as away:
        return away
    return None


def _last_moment(push: Push, guard: Guard) -> None:
    if push.cancelled:
        raise Cancelled
    if push.stopped:
        raise Undelivered("shutdown")
    failpoints.reach("push.rename")
    # The last thing of all: the process may have stood still until now.
    guard.heed()
