"""From all bytes of a resumable upload to its task.

Guarantees: rights are looked at again, as they are now; which task it becomes is on the disk before it is sealed, so
that completing it again makes no second one, whatever was interrupted; ids and rows agree about which upload to a path
is newer; what cannot become a task any more is removed, and all else is kept for another try.
"""

import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import Final

from api.access.amounts import Amounts
from api.access.requester import Requester
from api.live_config import LiveConfig
from api.resumable.hashing import RunningDigest
from api.threads import joined, undisturbed
from api.uploads.admission import Admission
from api.uploads.authorize import authorized
from api.uploads.made import chosen_anew, new_upload
from api.uploads.receive import Accepted
from api.uploads.request import UploadRequest
from api.uploads.storage import Storage
from daemon.access.caller import Caller
from daemon.errors import Rejected
from daemon.model.task import Task
from daemon.model.upload import Upload
from daemon.partials import Partial, PartialState, Phase, Plan
from daemon.spool import Incoming

#: What is read again is looked at in pieces of this size, and between so many of them somebody newer may come.
_READ_BYTES: Final = 2**20
_READS: Final = 32
#: A choice of which nothing came for so long is made anew: who looks for files without rows does not look far back.
PLACE_S: Final = 30.0
#: Answers after which an upload cannot become a task any more, however often it is tried.
_ENDS: Final = frozenset({400, 403, 422})


def request_of(plan: Plan, state: PartialState) -> UploadRequest:
    """What is asked for, with as much of its length as is known."""
    return UploadRequest(
        destination=plan.destination, display_name=plan.display_name, mode=plan.mode, uid=plan.uid, gid=plan.gid,
        mkdirs=plan.mkdirs, idempotency_key=plan.idempotency_key, digests=plan.digests, length=state.length,
        traceparent=plan.traceparent)


class Completion:
    """Makes tasks of uploads that are held and whole. On the event loop."""

    def __init__(
        self, live: LiveConfig, threads: Executor, storage: Storage, admission: Admission, amounts: Amounts,
        find: Callable[[str], Task | None], newer: Callable[[Upload], bool],
    ) -> None:
        """`find` tells the task of an id, `newer` whether a later one to its path is known. `threads` ask."""
        self._live = live
        self._threads = threads
        self._storage = storage
        self._admission = admission
        self._amounts = amounts
        self._find = find
        self._newer = newer

    async def complete(self, partial: Partial, running: RunningDigest, requester: Requester) -> Accepted | None:
        """The task of an upload of which all bytes are here; None when it turns out to be complete already.

        Raises Rejected: 403, 422 and 400 remove it, all others keep it.
        """
        try:
            if await self.settle(partial):
                return None
            caller = await requester.again()
            upload = partial.state.upload
            # What is in the spool is an upload already; only its row may be missing.
            if upload is None or not partial.is_spooled:
                request = authorized(request_of(partial.plan, partial.state), caller, self._live.config)
                self._live.check_adopted(request.destination)
                upload = upload or await self._described(partial, request, running)
            upload = await joined(self._threads.submit(self._in_its_place, partial, upload))
            return await undisturbed(self._commit(partial, upload, caller))
        except Rejected as error:
            if error.kind.status in _ENDS:
                await joined(self._threads.submit(partial.remove))
            raise

    async def settle(self, partial: Partial) -> bool:
        """True when its task is in the queue, or was; that is written down then, if it had not been."""
        if partial.state.phase is not Phase.COMPLETING or partial.state.upload is None:
            return partial.state.phase is Phase.COMPLETE
        return await joined(self._threads.submit(self._settle, partial, partial.state.upload.task_id))

    def _settle(self, partial: Partial, task_id: str) -> bool:
        if not partial.is_taken and self._find(task_id) is None:
            return False
        partial.conclude(task_id, time.time())
        return True

    def _in_its_place(self, partial: Partial, upload: Upload) -> Upload:
        """The upload as the newest to its path. Raises Rejected('outcome_unknown') when it is not, and cannot be."""
        if partial.state.upload is None:
            return upload
        if partial.is_spooled:
            if self._newer(upload):
                raise Rejected("outcome_unknown", "A newer one to its path was accepted: its worker orders them.")
            return upload
        # Nobody was told of the choice, and no other trace of it is left.
        is_fresh = 0 <= time.time() - upload.created_at < PLACE_S
        return upload if is_fresh and not self._newer(upload) else chosen_anew(upload)

    async def _described(self, partial: Partial, request: UploadRequest, running: RunningDigest) -> Upload:
        while running.position < partial.size:
            await joined(self._threads.submit(_read_again, partial, running))
            if partial.is_wanted():
                raise Rejected("upload_busy", "A newer request wants this upload.")
        return new_upload(request, partial.size, running.conclude())

    async def _commit(self, partial: Partial, upload: Upload, caller: Caller) -> Accepted:
        async with self._amounts.using(caller, upload.size) as use:
            if partial.state.upload != upload:
                await joined(self._threads.submit(partial.choose, upload))
            incoming = await joined(self._threads.submit(_whole, partial, upload))
            use.undecided = True
            decided = await self._storage.decide(upload.destination, lambda: (incoming, upload))
            accepted = Accepted(decided.upload, decided.put.task_id, decided.put.superseded)
            use.nothing = accepted.replayed
        if not accepted.replayed:
            self._admission.accepted(upload.size)
        # It is in the queue, whether this can be written down or not.
        with suppress(Rejected):
            await joined(self._threads.submit(partial.conclude, accepted.task_id, time.time()))
        return accepted


def _read_again(partial: Partial, running: RunningDigest) -> None:
    for _ in range(_READS):
        if not (piece := partial.read(running.position, _READ_BYTES)):
            if running.position < partial.size:
                raise Rejected("storage_failed", "The bytes of a resumable upload are not all there.")
            return
        running.update([piece])


def _whole(partial: Partial, upload: Upload) -> Incoming:
    incoming = partial.incoming()
    try:
        incoming.complete(upload)
    except BaseException:
        incoming.discard()
        raise
    return incoming
