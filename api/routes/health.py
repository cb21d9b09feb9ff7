"""Whether uploads can be taken and delivered, tried rather than believed.

A try blocks on the disk, so it is made in a thread; nobody waits for it without a bound, and there is one at a time.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

from api.http.description import Content, Description, Outcome
from api.queries.reader import Reader, free_bytes
from api.threads import OneAtATime, joined
from api.uploads.admission import Admission
from daemon.config import Config
from daemon.errors import CourierError, Rejected
from daemon.model.schema import YES_OR_NO, answer, many, or_null, saying, text, whole_number
from daemon.spool import Receive
from daemon.state.layout import Layout
from daemon.state.shard_lock import holder

#: Whoever asks is answered within so many seconds.
ANSWERS_WITHIN_S: Final = 5.0

_UP: Final = Content(schema=answer("Health", {
    "status": {"const": "up"},
    "cell": text("the name of this host's cell"),
    "tokens": text("the same in all cells that have the same file of tokens"),
}, maybe=["cell", "tokens"]))
HEALTH_DESCRIPTION: Final = Description(
    operation_id="getHealth", group="The service", summary="Whether the process is up", for_everybody=True,
    example="curl http://127.0.0.1:8420/healthz", outcomes={200: Outcome(meaning="It is.", content=_UP)})

#: What `Readiness.describe` makes.
READINESS_SCHEMA: Final = answer("Readiness", {
    "ready": saying(YES_OR_NO, "whether uploads can be taken and delivered"),
    "reasons": many(answer("Reason", {"code": text("stable, for programs"),
                                      "message": text("for people")})),
    "shards": many(answer("Shard", {"shard": whole_number(0),
                                    "worker": or_null(whole_number(1, None, "a process id"))})),
}, maybe=["reasons", "shards"])
_READINESS: Final = Content(schema=READINESS_SCHEMA)
READINESS_DESCRIPTION: Final = Description(
    operation_id="getReadiness", group="The service", summary="Whether uploads can be taken and delivered",
    text="Everybody is told whether it is ready. The reasons, and which shard has a worker, are for who has the right"
    " `metrics`.", for_everybody=True, example="curl http://127.0.0.1:8420/readyz", outcomes={
        200: Outcome(meaning="They can.", content=_READINESS),
        503: Outcome(meaning="Something stands in the way.", content=_READINESS)})


def describe_health(config: Config, tokens_digest: str) -> dict[str, str]:
    """What GET /healthz says: that the process is up, and where there are cells, which one this is."""
    return {"status": "up"} | ({"cell": config.cell.name, "tokens": tokens_digest} if config.cell.name else {})


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

    def describe(self, *, reasons: bool) -> dict[str, Any]:
        """The readiness for a client; `reasons` and workers only for who may know them."""
        if not reasons:
            return {"ready": not self.reasons}
        return {
            "ready": not self.reasons,
            "reasons": [{"code": reason.code, "message": reason.detail} for reason in self.reasons],
            "shards": [{"shard": shard, "worker": pid} for shard, pid in enumerate(self.workers)],
        }


@dataclass(frozen=True)
class Probe:
    """Tries the spool, the queue and the workers. It blocks on the disk."""

    layout: Layout
    spool: Receive
    reader: Reader
    admission: Admission
    #: Why the tokens cannot be read, for people; None while all is well.
    tokens_trouble: Callable[[], str | None] = lambda: None
    #: Changes with the tokens, and tells nothing of them.
    tokens_digest: Callable[[], str] = lambda: ""

    def examine(self, config: Config) -> Readiness:
        """Find out what stands in the way now."""
        reasons = [*_storage(self.spool, self.reader, config)]
        try:
            workers = [holder(self.layout, shard) for shard in range(config.queue.shards)]
            reasons += _shards_without_worker(workers)
        except OSError as error:
            workers = [None] * config.queue.shards
            reasons.append(Rejected("storage_failed", f"The workers' locks: {error.strerror}."))
        if (unreadable := self.tokens_trouble()) is not None:
            reasons.append(Rejected("tokens_unreadable", unreadable))
        if self.admission.draining:
            reasons.append(Rejected("draining"))
        if (trouble := self.admission.trouble()) is not None:
            reasons.append(Rejected("storage_failed", trouble))
        return Readiness(reasons, workers)


class Examiner:
    """Has a probe examine how things stand, for all who ask. To be used on the event loop."""

    def __init__(self, probe: Probe, threads: Executor) -> None:
        self._probe = probe
        self._threads = threads
        self._examining = OneAtATime[Readiness]()

    async def examine(self, config: Config) -> Readiness:
        """Find out what stands in the way now; that the disk does not answer, when it does not."""
        examining = self._examining.under_way(
            lambda: joined(self._threads.submit(self._probe.examine, config)))
        done, _ = await asyncio.wait([examining], timeout=ANSWERS_WITHIN_S)
        if done:
            return examining.result()
        trouble = self._probe.admission.trouble() or f"The disk has not answered for {ANSWERS_WITHIN_S:.0f} seconds."
        return Readiness([Rejected("storage_failed", trouble)], [])


def _storage(spool: Receive, reader: Reader, config: Config) -> Iterator[CourierError]:
    try:
        spool.begin(1).discard()
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
