"""Group commit: a batch of uploads becomes durable together, and gets its rows in one transaction for each shard.

The uploads of a batch take each step together: written, synced, named, put. So the more there are, the less each of
them costs. Guarantees: each is answered for by itself, and one that fails takes no other with it. It is accepted only
after its row is durable. Its bytes are taken back only when its row is certainly not in the queue.
"""

from collections import defaultdict
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
    """Seals uploads and puts their rows, for all shards. One thread uses it; it blocks on the disk."""

    def __init__(self, layout: Layout, shards: int, spool: Receive, *, supersede: Callable[[], bool]) -> None:
        """`supersede` is asked for each batch: whether newer uploads replace older ones of their paths."""
        self._layout = layout
        self._spool = spool
        self._supersede = supersede
        self._queues = [open_intake(layout, shard, spool) for shard in range(shards)]

    def commit(self, batch: Sequence[Prepare]) -> list[Answer]:
        """Decide about uploads, and answer in their order."""
        answers: dict[int, Answer] = {}
        sealed = self._seal(batch, answers)
        shards = defaultdict(list)
        # Rows in the order of the ids, so that the two agree about which upload is newer.
        for number in sorted(sealed, key=lambda number: sealed[number].upload.task_id):
            shards[sealed[number].upload.destination.shard(len(self._queues))].append(number)
        for shard, numbers in shards.items():
            some = [sealed[number] for number in numbers]
            answers.update(zip(numbers, map(_conclude, some, self._put(shard, some)), strict=True))
        return [answers[number] for number in range(len(batch))]

    def close(self) -> None:
        """Close the queues."""
        for queue in self._queues:
            queue.close()

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

    def _put(self, shard: int, some: Sequence[Sealed]) -> Sequence[Put | Rejected]:
        try:
            put = self._queues[shard].put_many([sealed.upload for sealed in some], supersede=self._supersede())
        except QueueFault as fault:
            log("upload.failed", code=fault.code, detail=fault.detail, shard=shard, uploads=len(some))
            return [_refusal(fault) for _ in some]
        ring(self._layout, shard)
        return put


def _refusal(fault: QueueFault) -> Rejected:
    if not fault.certainly_failed:
        return Rejected("outcome_unknown")
    return Rejected("no_room", fault.detail) if fault.kind.room_helps else Rejected("storage_failed")


def _conclude(sealed: Sealed, answer: Put | Rejected) -> Answer:
    """Keep or withdraw the bytes as the answer wants it; return what the client is told."""
    keep = (answer.code == "outcome_unknown" if isinstance(answer, Rejected)
            else answer.task_id == sealed.upload.task_id)
    if keep:
        sealed.release()
    else:
        try:
            sealed.withdraw()
        except OSError as error:
            # It stays and is delivered: the repeat of an upload, or one that the client was told has failed.
            return Rejected("outcome_unknown", f"The spool: {error.strerror}.")
    if isinstance(answer, Rejected):
        return answer
    if answer.outcome is PutOutcome.MISMATCH:
        return Rejected("idempotency_mismatch")
    return CommitResult(sealed.upload, answer)
