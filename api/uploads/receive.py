"""From the first byte of a body to the decision about its upload: streamed, hashed, durable, queued.

Guarantees: memory for one upload is bounded whatever its size; what is refused or abandoned leaves nothing; a
file is closed only when no thread writes to it any more. A small body is read whole, and all else is done by
who stores it with its neighbours. Of a large one what has come is written by one thread of a pool and hashed by
another, while more is being read; it holds up no small one.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Final, NamedTuple

from api.threads import joined
from api.uploads.admission import Place
from api.uploads.body import Body
from api.uploads.digests import Check
from api.uploads.flow import Flow
from api.uploads.request import UploadRequest
from api.uploads.small import received
from api.uploads.storage import Storage
from daemon.model.upload import Upload
from daemon.process.thread_pools import begin_pool
from daemon.spool import Incoming, Receive

#: A body up to this size is small.
SMALL_BYTES: Final = 128 * 1024
#: Of a larger one so much is read, or one piece more, before it is handed over to be written.
READ_BYTES: Final = 256 * 1024
#: What came in more pieces is joined before: a client may send pieces of one byte, and each takes fifty in memory.
READ_PIECES: Final = 512
#: Threads that write large bodies to the spool.
THREADS: Final = 8
#: Threads that hash them meanwhile: as many as there is work for.
HASHING_THREADS: Final = min(THREADS, len(os.sched_getaffinity(0)))


class Accepted(NamedTuple):
    """An upload that is durable, and how it got into the queue."""

    upload: Upload
    #: The task that stands for it: another one's when it repeats an idempotency key.
    task_id: str
    #: Ids of the tasks that it replaced, each with the client that had sent it.
    superseded: Mapping[str, str | None]

    @property
    def replayed(self) -> bool:
        """True when an earlier upload with the same idempotency key stands for this one."""
        return self.task_id != self.upload.task_id


class Receiver:
    """Takes the bodies of uploads to the spool and their tasks to the queue."""

    def __init__(self, spool: Receive, storage: Storage) -> None:
        self._spool = spool
        self._storage = storage
        self._threads = begin_pool(THREADS, "spool")
        self._hashing = begin_pool(HASHING_THREADS, "hash")

    @property
    def pools(self) -> tuple[Executor, Executor]:
        """The threads that write large bodies, and those that hash them."""
        return self._threads, self._hashing

    async def take(self, request: UploadRequest, body: Body, place: Place) -> Accepted:
        """Receive `body` and make it an upload. From its return on it is never lost.

        Raises Rejected, after which nothing is kept unless the code is outcome_unknown; and ClientGone.
        """
        pieces = await body.pieces(SMALL_BYTES)
        if not body.announced:
            place.expect(body.received_bytes)
        if body.ended:
            decision = await self._storage.store(request, pieces)
        else:
            decision = await self._storage.decide(request.destination, await self._stream(request, pieces, body, place))
        return Accepted(decision.upload, decision.put.task_id, decision.put.superseded)

    def close(self) -> None:
        """Wait for the threads to end."""
        self._threads.shutdown()
        self._hashing.shutdown()

    async def _stream(
        self, request: UploadRequest, first: Sequence[bytes], body: Body, place: Place,
    ) -> Callable[[], tuple[Incoming, Upload]]:
        """Receive a large upload; return what gives it, durable already."""
        incoming = await joined(self._threads.submit(self._spool.begin, request.length))
        check = Check(request.digests)
        try:
            if body.announced:
                # Its room is kept.
                place.owe(0)
            await pump(self._threads, partial(self._write, incoming, check), first, body, place)
            completed = await joined(self._threads.submit(_complete, incoming, check, request))
        except BaseException:
            self._threads.submit(incoming.discard)
            raise
        return lambda: completed

    def _write(self, incoming: Incoming, check: Check, pieces: Sequence[bytes]) -> None:
        """Write some of a large upload, and have it hashed meanwhile."""
        hashing = self._hashing.submit(_hash, incoming, check, pieces)
        try:
            incoming.store(pieces)
        finally:
            hashing.result()


async def pump(
    threads: Executor, write: Callable[[Sequence[bytes]], None], first: Sequence[bytes], body: Body, place: Place,
) -> None:
    """Read what comes while what came before is being written; come back when no thread writes any more."""
    flow = Flow(threads, write)
    try:
        await flow.put(first)
        while not body.ended:
            await flow.put(await _read(body, place, flow.unwritten_bytes))
    finally:
        await flow.end()


async def _read(body: Body, place: Place, unwritten_bytes: int) -> list[bytes]:
    """What comes next. Raises as `Body.pieces` and `Place.expect` do."""
    pieces = await body.pieces(READ_BYTES)
    if not body.announced:
        place.expect(sum(map(len, pieces)), unwritten_bytes)
    return pieces if len(pieces) <= READ_PIECES else [b"".join(pieces)]


def _hash(incoming: Incoming, check: Check, pieces: Sequence[bytes]) -> None:
    incoming.hash(pieces)
    for piece in pieces:
        check.update(piece)


def _complete(incoming: Incoming, check: Check, request: UploadRequest) -> tuple[Incoming, Upload]:
    upload = received(incoming, check, request)
    incoming.complete(upload)
    return incoming, upload


def traced(upload: Upload | None) -> tuple[tuple[str, str], ...]:
    """What the answer to an upload says of the trace that was kept with it."""
    trace = None if upload is None else upload.traceparent
    return () if trace is None else (("traceparent", trace),)
