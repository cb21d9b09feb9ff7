"""Whether uploads can be taken and delivered, tried rather than believed. Blocks on the disk: call it in a thread."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from api.queries.reader import Reader, free_bytes
from api.uploads.admission import Admission
from daemon.config import Config
from daemon.errors import CourierError, Rejected
from daemon.spool import Receive
from daemon.state.layout import Layout
from daemon.state.shard_lock import holder


@dataclass(frozen=True)
class Readiness:
    """What stands in the way of an upload, and who serves each shard."""

    reasons: list[CourierError]
    #: Process id of each shard's worker; None where there is none.
    workers: list[int | None]

    @property
    def status(self) -> int:
        """200 when nothing stands in the way, else 503."""
        return 503 if self.reasons else 200

    def describe(self) -> dict[str, Any]:
        """The readiness for a client."""
        return {
            "ready": not self.reasons,
            "reasons": [{"code": reason.code, "message": reason.detail} for reason in self.reasons],
            "shards": [{"shard": shard, "worker": pid} for shard, pid in enumerate(self.workers)],
        }


@dataclass(frozen=True)
class Probe:
    """Tries the spool, the queue and the workers."""

    layout: Layout
    spool: Receive
    reader: Reader
    admission: Admission

    def examine(self, config: Config) -> Readiness:
        """Find out what stands in the way now."""
        reasons = [*_storage(self.spool, self.reader, config)]
        try:
            workers = [holder(self.layout, shard) for shard in range(config.queue.shards)]
            reasons += _shards_without_worker(workers)
        except OSError as error:
            workers = [None] * config.queue.shards
            reasons.append(Rejected("storage_failed", f"The workers' locks: {error.strerror}."))
        if self.admission.draining:
            reasons.append(Rejected("draining"))
        if (trouble := self.admission.trouble()) is not None:
            reasons.append(Rejected("storage_failed", trouble))
        return Readiness(reasons, workers)


def _storage(spool: Receive, reader: Reader, config: Config) -> Iterator[CourierError]:
    try:
        incoming = spool.begin()
        incoming.write(b"?")
        incoming.discard()
    except Rejected as error:
        yield error
    if not spool.is_in_place():
        yield Rejected("storage_failed", "The spool was removed or replaced under this process: restart it.")
    try:
        waiting, room_bytes = reader.waiting(), free_bytes(spool)
        reader.try_writing()
    except Rejected as error:
        yield error
        return
    if room_bytes < config.limits.min_free_bytes:
        yield Rejected("no_room")
    if waiting.tasks >= config.limits.max_pending_tasks or waiting.size_bytes >= config.limits.max_pending_bytes:
        yield Rejected("backlog_full")


def _shards_without_worker(workers: list[int | None]) -> Iterator[CourierError]:
    for shard, pid in enumerate(workers):
        if pid is None:
            yield Rejected("no_worker", f"Shard {shard} has no worker.")
