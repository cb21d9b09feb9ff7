"""One upload from its headers to its answer, whichever door it came through; and the log of it."""

import asyncio
from collections.abc import Callable
from typing import Any

from api.access.amounts import Amounts, Use
from api.access.quotas import Admitted, Headers, Quotas
from api.access.requester import Requester
from api.counting.counted import Counted
from api.http.refusal_log import RefusalLog
from api.http.response import Receive
from api.live_config import LiveConfig
from api.uploads.admission import Admission, Place
from api.uploads.authorize import authorized
from api.uploads.backlog import Backlog
from api.uploads.body import Body, ClientGone
from api.uploads.receive import Accepted, Receiver
from api.uploads.recheck import recheck
from api.uploads.request import UploadRequest
from daemon.access.caller import Caller
from daemon.access.decide import decide, largest_file
from daemon.config import Config
from daemon.errors import Rejected
from daemon.log import log
from daemon.model.grant import Permission


class Uploads:
    """Takes uploads."""

    def __init__(
        self, live: LiveConfig, admission: Admission, backlog: Backlog, quotas: Quotas, receiver: Receiver,
        refusals: RefusalLog, amounts: Amounts, counted: Counted,
    ) -> None:
        self._live = live
        self._refusals = refusals
        self._admission = admission
        self._backlog = backlog
        self._quotas = quotas
        self._receiver = receiver
        self._amounts = amounts
        self._counted = counted
        self._clock = asyncio.get_running_loop().time
        #: What is being received, of whom.
        self._running: dict[Body, tuple[Requester, UploadRequest]] = {}

    async def take(
        self, read: Callable[[Config], UploadRequest], receive: Receive, peer: str, requester: Requester,
    ) -> tuple[UploadRequest, Accepted]:
        """Take the upload of `requester`, at `peer`, that `read` finds in the request's head.

        Raises Rejected and ClientGone, and logs them.
        """
        began = self._clock()
        request = None
        try:
            request = read(self._live.config)
            request = authorized(request, requester.caller, self._live.config)
            self._live.check_adopted(request.destination)
            accepted = await self._take(request, receive, peer, requester)
        except (Rejected, ClientGone) as end:
            self.tell(end, peer, requester, **_about(request), **self._since(began))
            raise
        self._counted.accept(self._clock() - began, replayed=accepted.replayed)
        log_accepted(accepted, **self._since(began))
        return request, accepted

    async def expect(self, length: int | None, peer: str, requester: Requester) -> None:
        """Look, before the first byte of `length`, whether an upload would be let in; nothing is kept of that.

        Raises Rejected.
        """
        code = decide(requester.caller, Permission.UPLOAD)
        if code is not None:
            raise Rejected(code)
        limits = self._live.config.limits
        place = await self._backlog.admit(min(length or 0, limits.max_upload_bytes), peer, limits)
        place.end()

    def tell(self, end: Rejected | ClientGone, peer: str, requester: Requester, **about: Any) -> None:
        """Log what ended an upload, or what should have become some."""
        caller = requester.caller
        who: dict[str, Any] = {"peer": peer, "root": caller.root, "client": caller.name, "address": caller.address}
        if isinstance(end, Rejected):
            self._refusals.log("upload.rejected", **who, code=end.code, detail=end.detail, **about)
        else:
            self._refusals.log("upload.aborted", **who, **about)

    def rate_headers(self, caller: Caller) -> Headers:
        """What his answers say about his rates."""
        return self._quotas.headers(caller)

    async def recheck(self) -> None:
        """End the uploads under way of who may not make them any more."""
        await recheck(self._running, self._live)

    async def _take(self, request: UploadRequest, receive: Receive, peer: str, requester: Requester) -> Accepted:
        # The quotas last: what the service itself refuses takes nothing of them.
        with (await self._backlog.admit(request.length, peer, self._live.config.limits) as place,
              await self._quotas.enter(requester.caller, request.length) as admitted):
            # Of a file in a form they are used up as they come.
            size = 0 if request.in_form else request.length
            async with self._amounts.using(requester.caller, size) as use:
                accepted = await self._receive(request, receive, requester, place, admitted, use)
                use.nothing = accepted.replayed
        return accepted

    async def _receive(
        self, request: UploadRequest, receive: Receive, requester: Requester, place: Place, admitted: Admitted,
        use: Use,
    ) -> Accepted:
        body = self._body_of(request, receive, requester.caller, admitted, use)
        self._running[body] = requester, request
        try:
            accepted = await self._receiver.take(request, body, place)
        finally:
            use.undecided = body.ended
            del self._running[body]
        if not accepted.replayed:
            self._admission.accepted(accepted.upload.size)
        return accepted

    def _body_of(
        self, request: UploadRequest, receive: Receive, caller: Caller, admitted: Admitted, use: Use,
    ) -> Body:
        async def unannounced(size: int) -> None:
            await admitted.more(size)
            await use.more(size)

        own = largest_file(caller)
        most = self._live.config.limits.max_upload_bytes
        smaller = own is not None and own < most
        return Body(receive, length=request.length, max_bytes=own if own is not None and smaller else most,
                    pace=self._live.pace(), too_large="size_not_allowed" if smaller else "too_large",
                    unannounced=unannounced, counted=self._counted.receive)

    def _since(self, began: float) -> dict[str, Any]:
        return {"duration_ms": round((self._clock() - began) * 1000, 2)}


def log_accepted(accepted: Accepted, **more: Any) -> None:
    """Log an upload that is in the queue, and what it replaced."""
    upload = accepted.upload
    log("upload.replayed" if accepted.replayed else "upload.accepted", task_id=accepted.task_id,
        instance=upload.destination.instance, project=upload.destination.project, path=upload.destination.path,
        size=upload.size, sha256=upload.sha256, client=upload.client,
        traceparent=upload.traceparent, **more)
    for task_id, client in accepted.superseded.items():
        log("upload.superseded", task_id=task_id, by=upload.task_id, instance=upload.destination.instance,
            path=upload.destination.path, client=client)


def _about(request: UploadRequest | None) -> dict[str, Any]:
    if request is None:
        return {}
    to = request.destination
    return {"instance": to.instance, "project": to.project, "path": to.path, "announced_bytes": request.length}
