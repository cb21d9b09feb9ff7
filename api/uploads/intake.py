"""One upload from its headers to its answer, whichever door it came through; and the log of it."""

import asyncio
from collections.abc import Callable

from api.access.quotas import Headers, Quotas
from api.http.refusal_log import RefusalLog
from api.http.response import Receive
from api.live_config import LiveConfig
from api.uploads.admission import Admission, Place
from api.uploads.backlog import Backlog
from api.uploads.body import Body, ClientGone
from api.uploads.receive import Accepted, Receiver
from api.uploads.request import UploadRequest
from daemon.access.caller import Caller
from daemon.config import Config, Limits
from daemon.errors import Rejected
from daemon.log import log


class Uploads:
    """Takes uploads."""

    def __init__(
        self, live: LiveConfig, admission: Admission, backlog: Backlog, quotas: Quotas, receiver: Receiver,
        refusals: RefusalLog,
    ) -> None:
        self._live = live
        self._refusals = refusals
        self._admission = admission
        self._backlog = backlog
        self._quotas = quotas
        self._receiver = receiver
        self._clock = asyncio.get_running_loop().time

    async def take(
        self, read: Callable[[Config], UploadRequest], receive: Receive, peer: str, caller: Caller,
    ) -> tuple[UploadRequest, Accepted]:
        """Take the upload of `caller`, who is at `peer`, that `read` finds in the request's head.

        Raises Rejected and ClientGone, and logs them.
        """
        began = self._clock()
        request = None
        try:
            request = read(self._live.config)
            accepted = await self._take(request, receive, peer, caller)
        except Rejected as error:
            self._refusals.log("upload.rejected", peer=peer, code=error.code, detail=error.detail, **_about(request),
                               **self._since(began))
            raise
        except ClientGone:
            self._refusals.log("upload.aborted", peer=peer, **_about(request), **self._since(began))
            raise
        self._log_accepted(accepted, began)
        return request, accepted

    def rate_headers(self, caller: Caller) -> Headers:
        """What his answers say about his rates."""
        return self._quotas.headers(caller)

    async def _take(self, request: UploadRequest, receive: Receive, peer: str, caller: Caller) -> Accepted:
        config = self._live.config
        await self._backlog.freshen()
        # The quotas last: what the service itself refuses takes nothing of them.
        with (await self._admit(request.length, peer, config.limits) as place,
              await self._quotas.enter(caller, request.length) as admitted):
            body = Body(receive, length=request.length, max_bytes=config.limits.max_upload_bytes,
                        pace=self._live.pace(), unannounced=admitted.more)
            accepted = await self._receiver.take(request, body, place)
        if not accepted.replayed:
            self._admission.accepted(accepted.upload.size)
        return accepted

    async def _admit(self, length: int | None, peer: str, limits: Limits) -> Place:
        try:
            return self._admission.admit(length, peer, limits)
        except Rejected as error:
            if error.code != "backlog_full":
                raise
        # Something may be counted twice: nobody is refused for that.
        await self._backlog.renew()
        return self._admission.admit(length, peer, limits)

    def _log_accepted(self, accepted: Accepted, began: float) -> None:
        upload = accepted.upload
        log("upload.replayed" if accepted.replayed else "upload.accepted", task_id=accepted.task_id,
            instance=upload.destination.instance, project=upload.destination.project, path=upload.destination.path,
            size=upload.size, sha256=upload.sha256, **self._since(began))
        for task_id in accepted.superseded:
            log("upload.superseded", task_id=task_id, by=upload.task_id, instance=upload.destination.instance,
                path=upload.destination.path)

    def _since(self, began: float) -> dict[str, float]:
        return {"duration_ms": round((self._clock() - began) * 1000, 2)}


def _about(request: UploadRequest | None) -> dict[str, str | int | None]:
    if request is None:
        return {}
    to = request.destination
    return {"instance": to.instance, "project": to.project, "path": to.path, "announced_bytes": request.length}
