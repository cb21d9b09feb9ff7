"""Group commit: a batch of uploads of one shard becomes durable together, and gets its rows in one transaction.

The uploads of a batch take each step together: written, synced, named, put. So the more there are, the less each of
them costs. Guarantees: each is answered for by itself, and one that fails takes no other with it. It is accepted only
after its row is durable. Its bytes are taken back only when its row is certainly not in the queue.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from daemon.errors import CourierError, QueueFault, Rejected
from daemon.log import log
from daemon.model.upload import Upload
from daemon.spool import Incoming, Receive, Sealed
from daemon.state.doorbell import ring
from daemon.state.layout import Layout
from daemon.task_queue import Put, PutOutcome, open_intake


@dataclass(frozen=True, slots=True)
class CommitResult:
    """An upload, and what the queue made of it."""

    upload: Upload
    put: Put


#: What makes an upload ready to be sealed. It may block on the disk. Raises Rejected; nothing is left then.
Prepare = Callable[[], tuple[Incoming, Upload]]
Answer = CommitResult | CourierError


class GroupCommit:
    """Seals uploads of a shard and puts their rows. One thread uses it; it blocks on the disk."""

    def __init__(self, layout: Layout, shard: int, spool: Receive, *, supersede: Callable[[], bool]) -> None:
        """`supersede` is asked for each batch: whether newer uploads replace older ones of their paths."""
        self._layout = layout
        self._shard = shard
        self._spool = spool
        self._supersede = supersede
        self._queue = open_intake(layout, shard, spool)

    def commit(self, batch: Sequence[Prepare]) -> list[Answer]:
        """Decide about uploads, and answer in their order."""
        answers: dict[int, Answer] = {}
        sealed = self._seal(batch, answers)
        # Rows in the order of the ids, so that the two agree about which upload is newer.
        numbers = sorted(sealed, key=lambda number: sealed[number].upload.task_id)
        answers.update(zip(numbers, self._put([sealed[number] for number in numbers]), strict=True))
        return [answers[number] for number in range(len(batch))]

    def close(self) -> None:
        """Close the queue."""
        self._queue.close()

    def _seal(self, batch: Sequence[Prepare], answers: dict[int, Answer]) -> dict[int, Sealed]:
        """The uploads that are durable now, by their place in the batch; `answers` gets why the others are not."""
        ready: dict[int, tuple[Incoming, Upload]] = {}
        for number, prepare in enumerate(batch):
            try:
                ready[number] = prepare()
            except Rejected as error:
                answers[number] = error
        sealed: dict[int, Sealed] = {}
        for number, answer in zip(ready, self._spool.seal_all(list(ready.values())), strict=True):
            if isinstance(answer, Rejected):
                answers[number] = answer
            else:
                sealed[number] = answer
        return sealed

    def _put(self, some: Sequence[Sealed]) -> list[Answer]:
        if not some:
            return []
        answers: Sequence[Put | Rejected]
        try:
            answers = self._queue.put_many(some, supersede=self._supersede())
        except QueueFault as fault:
            log("upload.failed", code=fault.code, detail=fault.detail, shard=self._shard, uploads=len(some))
            answers = [_refusal(fault)] * len(some)
        else:
            ring(self._layout, self._shard)
        return self._conclude(some, answers)

    def _conclude(self, some: Sequence[Sealed], answers: Sequence[Put | Rejected]) -> list[Answer]:
        """Keep or withdraw the bytes as the answers want it; return what the clients are told."""
        unwanted = []
        for sealed, answer in zip(some, answers, strict=True):
            if _stays(sealed, answer):
                sealed.release()
            else:
                unwanted.append(sealed)
        ids = [sealed.upload.task_id for sealed in unwanted]
        kept = dict(zip(ids, self._spool.withdraw_all(unwanted), strict=True))
        # What stays is delivered: the repeat of an upload, or one that the client was told has failed.
        return [kept.get(sealed.upload.task_id) or _told(sealed, answer)
                for sealed, answer in zip(some, answers, strict=True)]


def _refusal(fault: QueueFault) -> Rejected:
    if not fault.certainly_failed:
        return Rejected("outcome_unknown")
    return Rejected("no_room", fault.detail) if fault.kind.room_helps else Rejected("storage_failed")


def _stays(sealed: Sealed, answer: Put | Rejected) -> bool:
    """True when the row of an upload is in the queue, or may be."""
    if isinstance(answer, Rejected):
        return answer.code == "outcome_unknown"
    return answer.task_id == sealed.upload.task_id


def _told(sealed: Sealed, answer: Put | Rejected) -> Answer:
    if isinstance(answer, Rejected):
        return answer
    if answer.outcome is PutOutcome.MISMATCH:
        return Rejected("idempotency_mismatch")
    return CommitResult(sealed.upload, answer)
