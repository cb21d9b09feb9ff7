"""Group commit: uploads that were sealed side by side get their rows in one transaction.

Guarantees: a ticket is answered only after its row is durable, or when its outcome is decided otherwise. The
bytes of an upload are unlinked only when its row is certainly not in the queue. One thread a shard; it ends
when it is closed and everything that was handed to it is decided.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from daemon.errors import CourierError, QueueFault, Rejected
from daemon.log import log
from daemon.model.upload import Upload
from daemon.spool import Sealed
from daemon.state.doorbell import ring
from daemon.state.layout import Layout
from daemon.task_queue import Bytes, Put, PutOutcome, open_intake

#: Most uploads in one transaction.
MAX_BATCH: Final = 256
#: How long a transaction is put off for uploads that are still on their way.
GATHER_S: Final = 0.002


@dataclass(frozen=True, slots=True)
class CommitResult:
    """An upload, and what the queue made of it."""

    upload: Upload
    put: Put


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where the decision about one upload is awaited, on the event loop."""

    decided: "asyncio.Future[CommitResult]"

    @classmethod
    def new(cls) -> "Ticket":
        """A ticket that the running loop waits for."""
        return cls(asyncio.get_running_loop().create_future())

    def refuse(self, error: BaseException) -> None:
        """From any thread: the upload failed."""
        self.decided.get_loop().call_soon_threadsafe(_settle, [(self, error)])

    def watch(self, work: "Future[None]") -> None:
        """From any thread: refuse the upload if `work` on it failed."""
        error = work.exception()
        if error is not None:
            self.refuse(error)


class Committer:
    """Puts the uploads of one shard."""

    def __init__(
        self, layout: Layout, shard: int, spool: Bytes, *, supersede: Callable[[], bool], receiving: Callable[[], int],
        when_dead: Callable[[], None],
    ) -> None:
        """`receiving` says how many uploads are on their way, those that were handed over included.

        `supersede` is asked for each transaction: whether newer uploads replace older ones of their paths.
        """
        self._layout = layout
        self._shard = shard
        self._supersede = supersede
        self._receiving = receiving
        self._when_dead = when_dead
        self._queue = open_intake(layout, shard, spool)
        # No queue.SimpleQueue: up to Python 3.12 its `get` may wait for ever although it has a timeout.
        self._inbox: list[tuple[Sealed, Ticket]] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"committer-{shard}")
        self._closing = False

    def start(self) -> None:
        """Begin to take uploads."""
        self._thread.start()

    def hand_over(self, sealed: Sealed, ticket: Ticket) -> None:
        """From any thread: decide about `sealed`, and answer `ticket` with a CommitResult or an error."""
        with self._changed:
            self._inbox.append((sealed, ticket))
            if len(self._inbox) == 1 or self._is_complete():
                self._changed.notify()

    def close(self) -> None:
        """Decide everything that was handed over, then end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._queue.close()

    def _run(self) -> None:
        ended = False
        try:
            while batch := self._next_batch():
                self._decide(batch)
            ended = True
        finally:
            if not ended:
                self._when_dead()

    def _next_batch(self) -> list[tuple[Sealed, Ticket]]:
        """The uploads that are there, and those that come within a moment if any are on their way; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._inbox or self._closing)
            self._changed.wait_for(self._is_complete, timeout=GATHER_S)
            batch, self._inbox = self._inbox[:MAX_BATCH], self._inbox[MAX_BATCH:]
            return batch

    def _is_complete(self) -> bool:
        return self._closing or len(self._inbox) >= min(MAX_BATCH, self._receiving())

    def _decide(self, batch: list[tuple[Sealed, Ticket]]) -> None:
        # Rows in the order of the ids, so that the two agree about which upload is newer.
        batch.sort(key=lambda item: item[0].upload.task_id)
        answers: list[Put | CourierError]
        try:
            answers = list(self._queue.put_many([sealed.upload for sealed, _ in batch], supersede=self._supersede()))
            ring(self._layout, self._shard)
        except QueueFault as fault:
            log("upload.failed", code=fault.code, detail=fault.detail, shard=self._shard, uploads=len(batch))
            answers = [_refusal(fault)] * len(batch)
        decided = [(ticket, _conclude(sealed, answer)) for (sealed, ticket), answer in zip(batch, answers, strict=True)]
        batch[0][1].decided.get_loop().call_soon_threadsafe(_settle, decided)


def _refusal(fault: QueueFault) -> Rejected:
    if not fault.certainly_failed:
        return Rejected("outcome_unknown")
    return Rejected("no_room", fault.detail) if fault.kind.room_helps else Rejected("storage_failed")


def _conclude(sealed: Sealed, answer: Put | CourierError) -> CommitResult | CourierError:
    """Keep or withdraw the bytes as the answer wants it; return what the ticket is told."""
    keep = (answer.code == "outcome_unknown" if isinstance(answer, CourierError)
            else answer.task_id == sealed.upload.task_id)
    if keep:
        sealed.release()
    else:
        try:
            sealed.withdraw()
        except OSError as error:
            # It stays and is delivered: the repeat of an upload, or one that the client was told has failed.
            return Rejected("outcome_unknown", f"The spool: {error.strerror}.")
    if isinstance(answer, CourierError):
        return answer
    if answer.outcome is PutOutcome.MISMATCH:
        return Rejected("idempotency_mismatch")
    return CommitResult(sealed.upload, answer)


def _settle(decided: "Sequence[tuple[Ticket, CommitResult | BaseException]]") -> None:
    for ticket, answer in decided:
        if ticket.decided.done():
            continue
        if isinstance(answer, BaseException):
            ticket.decided.set_exception(answer)
        else:
            ticket.decided.set_result(answer)
