"""From the first byte of a body to the decision about its upload: streamed, hashed, durable, queued.

Guarantees: memory for one upload is bounded whatever its size; what is refused or abandoned leaves nothing; a
file is closed only when no thread writes to it any more. A small body takes one hop to another thread, a large
one a hop for each batch, while the next batch is being read.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import uuid_utils

from api.threads import joined
from api.uploads.admission import Place
from api.uploads.body import Body
from api.uploads.digests import Check
from api.uploads.group_commit import Committer, Ticket
from api.uploads.request import UploadRequest
from daemon.model.upload import Upload
from daemon.process.thread_pools import begin_pool
from daemon.spool import Incoming, Receive

#: A body up to this size is read whole before a file is made for it.
WHOLE_BYTES: Final = 256 * 1024
#: A larger one goes to the disk in batches of this size. At most two are in memory.
BATCH_BYTES: Final = 384 * 1024
#: Threads that write to the spool.
THREADS: Final = 8


@dataclass(frozen=True, slots=True)
class Accepted:
    """An upload that is durable, and how it got into the queue."""

    upload: Upload
    #: The task that stands for it: another one's when it repeats an idempotency key.
    task_id: str
    superseded: Sequence[str]

    @property
    def replayed(self) -> bool:
        """True when an earlier upload with the same idempotency key stands for this one."""
        return self.task_id != self.upload.task_id


class Receiver:
    """Takes the bodies of uploads to the spool and their tasks to the queue."""

    def __init__(self, spool: Receive, committers: Sequence[Committer]) -> None:
        self._spool = spool
        self._committers = committers
        self._threads = begin_pool(THREADS, "spool")

    async def take(self, request: UploadRequest, body: Body, place: Place) -> Accepted:
        """Receive `body` and make it an upload. From its return on it is never lost.

        Raises Rejected, after which nothing is kept unless the code is outcome_unknown; and ClientGone.
        """
        ticket = Ticket.new()
        pieces = await body.pieces(WHOLE_BYTES)
        if not body.announced:
            place.expect(body.received_bytes)
        if body.ended:
            self._threads.submit(self._store_whole, request, pieces, ticket).add_done_callback(ticket.watch)
        else:
            await self._store_stream(request, pieces, body, place, ticket)
        decision = await ticket.decided
        return Accepted(decision.upload, decision.put.task_id, decision.put.superseded)

    def close(self) -> None:
        """Wait for the threads to end."""
        self._threads.shutdown()

    def _store_whole(self, request: UploadRequest, pieces: Sequence[bytes], ticket: Ticket) -> None:
        incoming, check = self._spool.begin(), Check(request.digests)
        try:
            _write(incoming, check, pieces)
            self._finish(incoming, check, request, ticket)
        finally:
            # What was sealed has no descriptor to close any more.
            incoming.discard()

    async def _store_stream(
        self, request: UploadRequest, first: Sequence[bytes], body: Body, place: Place, ticket: Ticket,
    ) -> None:
        incoming = await joined(self._threads.submit(self._spool.begin, request.length))
        check = Check(request.digests)
        try:
            if body.announced:
                # Its room is kept.
                place.owe(0)
            await self._pump(partial(_write, incoming, check), first, body, place)
            await joined(self._threads.submit(self._finish, incoming, check, request, ticket))
        finally:
            self._threads.submit(incoming.discard)

    async def _pump(
        self, write: Callable[[Sequence[bytes]], None], first: Sequence[bytes], body: Body, place: Place,
    ) -> None:
        """Read a batch while the one before is being written; come back when no thread writes any more."""
        writing = self._threads.submit(write, first)
        try:
            while not body.ended:
                batch = await body.pieces(BATCH_BYTES)
                await joined(writing)
                if not body.announced:
                    place.expect(sum(map(len, batch)))
                writing = self._threads.submit(write, batch)
        finally:
            await joined(writing)

    def _finish(self, incoming: Incoming, check: Check, request: UploadRequest, ticket: Ticket) -> None:
        sha256 = incoming.hexdigest()
        check.conclude(sha256)
        upload = Upload(
            task_id=str(uuid_utils.uuid7()), destination=request.destination, size=incoming.size, sha256=sha256,
            mode=request.mode, uid=request.uid, gid=request.gid, mkdirs=request.mkdirs,
            display_name=request.display_name, created_at=time.time(), idempotency_key=request.idempotency_key)
        sealed = incoming.seal(upload)
        self._committers[request.destination.shard(len(self._committers))].hand_over(sealed, ticket)


def _write(incoming: Incoming, check: Check, pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        incoming.write(piece)
        check.update(piece)
