"""Resumable uploads from their making to the task, whatever protocol they come by.

Guarantees: an offset that was answered is on the disk; one request at a time, of all processes, changes an upload, and
a newer one, `look` included, ends the older within two seconds; the last byte is told only when the task is in the
queue; completing it again after any crash gives the same task. Another identity's upload looks as if it did not exist.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from api.access.quotas import Admitted, Quotas
from api.access.requester import Requester
from api.counting.counted import Counted
from api.http.refusal_log import RefusalLog
from api.http.response import Receive
from api.live_config import LiveConfig
from api.resumable.appending import Appending
from api.resumable.completion import Completion, request_of
from api.resumable.decide import AppendStep, is_whole, step_of, told, unreserved
from api.resumable.hashing import Digests, RunningDigest, Verification
from api.resumable.turns import Turns
from api.resumable.values import Checksum, Progress
from api.threads import joined
from api.uploads.admission import Place
from api.uploads.authorize import authorized
from api.uploads.backlog import Backlog
from api.uploads.body import Body, ClientGone
from api.uploads.intake import log_accepted
from api.uploads.receive import SMALL_BYTES, Accepted, Receiver, pump
from api.uploads.recheck import recheck
from api.uploads.request import UploadRequest
from daemon.access.caller import Caller
from daemon.access.decide import largest_file
from daemon.config import UploadsSection
from daemon.errors import Rejected
from daemon.log import log
from daemon.model.upload import Destination, Upload
from daemon.partials import Census, Partial, Partials, PartialState, Phase, Plan

#: Cancels the task of an id to a destination for somebody; False when it does not wait any more, or he may not.
Cancel = Callable[[Caller, Destination, str], Awaitable[bool]]


@dataclass(frozen=True)
class _Append:
    """One append, on its way to an upload that is held."""

    partial: Partial
    request: UploadRequest
    step: AppendStep
    receive: Receive
    requester: Requester
    place: Place
    content_length: int | None
    final: bool | None
    verification: Verification | None


class Resumable:
    """Takes resumable uploads. To be used on the event loop."""

    def __init__(
        self, live: LiveConfig, partials: Partials, turns: Turns, backlog: Backlog, quotas: Quotas,
        receiver: Receiver, completion: Completion, refusals: RefusalLog, counted: Counted, cancel: Cancel,
    ) -> None:
        """`receiver` is whose threads large bodies are written by."""
        self._live = live
        self._partials = partials
        self._turns = turns
        self._backlog = backlog
        self._quotas = quotas
        self._threads, self._hashing = receiver.pools
        self._completion = completion
        self._refusals = refusals
        self._counted = counted
        self._cancel = cancel
        self._digests = Digests()
        self._clock = asyncio.get_running_loop().time
        #: What is being received, of whom.
        self._running: dict[Body, tuple[Requester, UploadRequest]] = {}

    async def create(self, request: UploadRequest, metadata: str, requester: Requester, peer: str) -> Progress:
        """Make an upload of `request.length` bytes, or of as many as are said later (None); none is sent yet.

        One of no bytes is complete at once. Raises Rejected: what `Uploads.take` raises from a head, 'rate_limited' and
        'too_many_pending' (429), 'too_many_partials' (503).
        """
        try:
            return await self._create(request, metadata, requester, peer)
        except Rejected as error:
            self._log("upload.rejected", requester, peer, error, request.destination)
            raise

    async def look(self, upload_id: str, requester: Requester) -> Progress:
        """How an upload stands; the request that sends to it is ended first.

        Raises Rejected('upload_not_found' or 'upload_busy').
        """
        await self._find(upload_id, requester)
        async with self._turns.held(upload_id) as partial:
            # Where the queue cannot be asked, the last byte is sent again.
            with contextlib.suppress(Rejected):
                await self._completion.settle(partial)
            return self._progress(partial)

    async def append(
        self, upload_id: str, offset: int, receive: Receive, requester: Requester, peer: str, *,
        content_length: int | None, length: int | None = None, final: bool | None = None,
        checksum: Checksum | None = None,
    ) -> Progress:
        """Add the body to an upload that stands at `offset`; the request that sends to it is ended first.

        `content_length` is that of the body, None when it comes in chunks; `length` is that of the upload, where it is
        said only now. `final`: None completes an upload when all its bytes are there; True says that this is its last
        append; False that it is not. With a `checksum` none of the body counts unless all of it came and has that.
        Returns when all that is told is on the disk, and, where it is complete, its task in the queue.

        Raises WrongOffset, and Rejected: 'upload_not_found', 'upload_busy' (423, also when a newer request ended this
        one), 'inconsistent_length' (400), 'upload_completed' (400), 'beyond_length' (413), 'checksum_mismatch' (460),
        'bad_checksum' (400), 'bad_length', 'incomplete_body', 'too_slow', 'too_large'; 403 codes, which end the upload
        when they come at its completion; 503 codes, which keep it, never 429; and ClientGone. What came before it was
        cut off is kept.
        """
        plan = None
        try:
            verification = None if checksum is None else Verification(checksum)
            plan, state = await self._find(upload_id, requester)
            request = authorized(request_of(plan, state), requester.caller, self._live.config)
            self._live.check_adopted(request.destination)
            new = unreserved(state, offset, content_length, length)
            with await self._backlog.admit(new, peer, self._live.config.limits) as place:
                async with self._turns.held(upload_id) as partial:
                    step = step_of(partial.state, offset, content_length=content_length, length=length, final=final)
                    if step.complete:
                        return self._progress(partial)
                    return await self._add(_Append(
                        partial, request, step, receive, requester, place, content_length, final, verification))
        except Rejected as error:
            self._log("upload.rejected", requester, peer, error, plan.destination if plan else None)
            raise
        except ClientGone:
            self._log("upload.interrupted", requester, peer, None, plan.destination if plan else None)
            raise

    async def end(self, upload_id: str, requester: Requester) -> None:
        """Remove an upload; the request that sends to it is ended first. The task of a finished one is cancelled.

        Raises Rejected('upload_not_found' or 'upload_busy'), and 'not_cancellable' (409) for a finished one whose task
        does not wait any more.
        """
        plan, _ = await self._find(upload_id, requester)
        async with self._turns.held(upload_id) as partial:
            if not await self._completion.settle(partial) and partial.is_spooled:
                # It is an upload: only a task can be cancelled.
                await self._complete(partial, RunningDigest(plan.digests), requester)
            task_id = partial.state.task_id
            if task_id is not None and not await self._cancel(requester.caller, plan.destination, task_id):
                raise Rejected("not_cancellable")
            await joined(self._threads.submit(partial.remove))
        log("upload.ended", instance=plan.destination.instance, project=plan.destination.project,
            path=plan.destination.path, client=requester.caller.client)

    async def recheck(self) -> None:
        """End the appends under way of who may not make them any more."""
        await recheck(self._running, self._live)

    # --- making one ----------------------------------------------------------------------------------------

    async def _create(self, request: UploadRequest, metadata: str, requester: Requester, peer: str) -> Progress:
        caller, config = requester.caller, self._live.config
        authorized(request, caller, config)
        self._live.check_adopted(request.destination)
        if request.length:
            # What was announced a moment ago, to any process, is owed: of two none overlooks the other.
            await self._backlog.renew()
        with (await self._backlog.admit(request.length, peer, config.limits),
              await self._quotas.enter(caller, request.length)):
            await self._check_fits(1, request.length or 0)
            plan = plan_of(request, metadata, caller, time.time())
            upload_id = await joined(self._threads.submit(self._partials.create, plan, request.length))
        to = request.destination
        log("upload.begun", instance=to.instance, project=to.project, path=to.path, announced_bytes=request.length,
            client=caller.client)
        if request.length != 0:
            state = PartialState(offset=0, length=request.length, changed_at=plan.created_at)
            return self._progress_of(upload_id, plan, state)
        async with self._turns.held(upload_id) as partial:
            try:
                return await self._complete(partial, RunningDigest(plan.digests), requester)
            except Rejected:
                # Nobody was told its address.
                await joined(self._threads.submit(partial.remove))
                raise

    async def _check_fits(self, number: int, size: int) -> None:
        census = await joined(self._threads.submit(self._partials.census))
        if not fits(census, self._live.config.uploads, number, size):
            raise Rejected("too_many_partials")

    # --- adding to one -------------------------------------------------------------------------------------

    async def _add(self, append: "_Append") -> Progress:
        partial, step = append.partial, append.step
        if step.frozen:
            return await self._add_again(append)
        running = self._digests.take(partial.upload_id, partial.plan.digests, partial.state.offset)
        try:
            with self._quotas.going_on(append.requester.caller) as admitted:
                if partial.state.length is None:
                    await self._count_more(append, admitted)
                await self._receive(append, running, admitted)
            if is_whole(partial.size, partial.state.length, final=append.final):
                return await self._complete(partial, running, append.requester)
        finally:
            # Bytes that may be told do not change any more; what comes after them may.
            if partial.state.phase is Phase.RECEIVING and running.position <= partial.state.offset:
                self._digests.keep(partial.upload_id, running)
        return self._progress(partial)

    async def _count_more(self, append: "_Append", admitted: Admitted) -> None:
        """Count what nobody announced before: all that is still to come, or as much as is known of it."""
        offset, length = append.partial.state.offset, append.step.length
        size = append.content_length if length is None else length - offset
        if length is not None and length > self._most(append.requester.caller)[0]:
            raise Rejected(self._most(append.requester.caller)[1])
        if size:
            await self._check_fits(0, size)
            await _never_limited(admitted.more, size)

    async def _add_again(self, append: "_Append") -> Progress:
        """All bytes are here already, and one that was not told comes again."""
        partial, most = append.partial, append.step.most or 0
        body = self._body_of(append, None)
        with self._under_way(append, body):
            pieces = await body.pieces(most + 1)
        if append.verification is not None:
            append.verification.update(pieces)
            append.verification.conclude()
        if append.final is False or body.received_bytes < most:
            return self._progress(partial)
        return await self._complete(partial, RunningDigest(partial.plan.digests), append.requester)

    async def _receive(self, append: "_Append", running: RunningDigest, admitted: Admitted) -> None:
        """Take the body to the disk; what came of one that is cut off, too."""
        partial = append.partial
        body = self._body_of(append, None if append.step.length is not None else admitted)
        appending = Appending(partial, running, append.verification, self._hashing,
                              length=append.step.length, final=append.final)
        try:
            with self._under_way(append, body):
                first = await body.pieces(SMALL_BYTES)
                if not body.announced:
                    append.place.expect(body.received_bytes)
                if body.ended:
                    await joined(self._threads.submit(appending.whole, first))
                else:
                    await pump(self._threads, appending.write, first, body, append.place)
                    await joined(self._threads.submit(appending.finish))
        except BaseException:
            await joined(self._threads.submit(appending.cut_off, body.rest()))
            raise

    @contextlib.contextmanager
    def _under_way(self, append: "_Append", body: Body) -> Iterator[None]:
        """While the body comes: end it when its sender loses his rights, or a newer request wants the upload."""
        self._running[body] = append.requester, append.request
        newer = Rejected("upload_busy", "A newer request wants this upload.")
        try:
            with self._turns.watched(append.partial, lambda: body.refuse(newer)):
                yield
        finally:
            del self._running[body]

    def _body_of(self, append: "_Append", admitted: Admitted | None) -> Body:
        most, code = append.step.most, "beyond_length"
        if most is None:
            all_bytes, code = self._most(append.requester.caller)
            most = max(0, all_bytes - append.partial.state.offset)

        waiting = append.partial.state.offset

        async def more(size: int) -> None:
            nonlocal waiting
            if admitted is None:
                return
            await self._check_fits(0, size)
            if admitted.links:
                # What is on the disk counts as waiting by now.
                before, waiting = waiting, append.partial.state.offset
                admitted.expect(0, before - waiting)
            await _never_limited(admitted.more, size)

        return Body(append.receive, length=append.content_length, max_bytes=most, pace=self._live.pace(),
                    too_large=code, unannounced=more, counted=self._counted.receive)

    def _most(self, caller: Caller) -> tuple[int, str]:
        """The most bytes that an upload of his may have, and the code of the error when it has more."""
        own, most = largest_file(caller), self._live.config.limits.max_upload_bytes
        return (most, "too_large") if own is None or own >= most else (own, "size_not_allowed")

    # --- ending one ----------------------------------------------------------------------------------------

    async def _complete(self, partial: Partial, running: RunningDigest, requester: Requester) -> Progress:
        began = self._clock()
        accepted = await self._completion.complete(partial, running, requester)
        if accepted is None:
            return self._progress(partial)
        self._counted.accept(self._clock() - began, replayed=accepted.replayed)
        log_accepted(accepted, duration_ms=round((self._clock() - began) * 1000, 2))
        return self._progress(partial, accepted)

    # --- telling -------------------------------------------------------------------------------------------

    async def _find(self, upload_id: str, requester: Requester) -> tuple[Plan, PartialState]:
        plan, state = await self._turns.find(upload_id)
        if plan.owner != requester.caller.name:
            raise Rejected("upload_not_found")
        return plan, state

    def _progress(self, partial: Partial, accepted: Accepted | None = None) -> Progress:
        return self._progress_of(partial.upload_id, partial.plan, partial.state, accepted)

    def _progress_of(
        self, upload_id: str, plan: Plan, state: PartialState, accepted: Accepted | None = None,
    ) -> Progress:
        is_complete = accepted is not None or state.phase is Phase.COMPLETE
        upload: Upload | None = state.upload if is_complete else None
        return Progress(
            upload_id=upload_id, offset=told(state) if upload is None else upload.size, length=state.length,
            metadata=plan.metadata, expires_at=state.changed_at + self._live.config.uploads.expire_s,
            complete=is_complete, upload=upload, accepted=accepted,
            task_id=state.task_id if accepted is None else accepted.task_id)

    def _log(
        self, event: str, requester: Requester, peer: str, error: Rejected | None, to: Destination | None,
    ) -> None:
        caller = requester.caller
        about: dict[str, Any] = {} if error is None else {"code": error.code, "detail": error.detail}
        if to is not None:
            about |= {"instance": to.instance, "project": to.project, "path": to.path}
        self._refusals.log(event, peer=peer, root=caller.root, client=caller.name, address=caller.address, **about)


def plan_of(request: UploadRequest, metadata: str, caller: Caller, now: float) -> Plan:
    """What an upload is to become."""
    return Plan(
        destination=request.destination, display_name=request.display_name, mode=request.mode, uid=request.uid,
        gid=request.gid, mkdirs=request.mkdirs, idempotency_key=request.idempotency_key, digests=request.digests,
        owner=caller.name, metadata=metadata, created_at=now, traceparent=request.traceparent)


def fits(census: Census, limits: UploadsSection, number: int, size: int) -> bool:
    """True when so many more uploads, of so many bytes, may be unfinished besides those that there are."""
    present = census.present_bytes + census.owed_bytes
    return census.number + number <= limits.max_partials and present + size <= limits.max_partial_bytes


async def _never_limited(more: Callable[[int], Awaitable[None]], size: int) -> None:
    """Ask for more bytes. A client that goes on is told to come again, not that it sends too much: it would give up."""
    try:
        await more(size)
    except Rejected as error:
        if error.code != "too_many_pending":
            raise
        raise Rejected("backlog_full", error.detail) from error
