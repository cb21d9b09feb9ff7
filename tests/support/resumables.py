"""The engine of resumable uploads in a test's own process, with real files and a real queue."""

import asyncio
import contextlib
import multiprocessing
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from api.access.amounts import Amounts
from api.access.quotas import Quotas
from api.access.requester import Requester
from api.counting.counted import Counted
from api.http.peers import Shares
from api.http.refusal_log import RefusalLog
from api.http.response import Event, Receive
from api.live_config import LiveConfig
from api.queries.reader import Reader
from api.resumable.completion import Completion
from api.resumable.engine import Resumable
from api.resumable.turns import PATIENCE_S, Turns
from api.resumable.values import Progress
from api.uploads.admission import Admission
from api.uploads.backlog import Backlog
from api.uploads.headroom import Headroom
from api.uploads.receive import Receiver
from api.uploads.request import UploadRequest
from api.uploads.storage import Storage
from daemon import failpoints
from daemon.access.caller import Caller, Link
from daemon.config import Config, load
from daemon.delegation import open_delegations
from daemon.model.grant import EVERYTHING, Grant
from daemon.model.upload import Destination
from daemon.partials import Partials, open_partials
from daemon.process.shared_counts import Column, SharedCounts
from daemon.spool import Spool, open_spool
from daemon.state.layout import Layout
from tests.support.bodies import body
from tests.support.child import PRELOAD


@dataclass
class Person:
    """Who sends; what he may do can change."""

    name: str = "token:ci"
    grant: Grant = EVERYTHING

    @property
    def requester(self) -> Requester:
        """Who he is now, and a way to find out anew."""
        return Requester(self._caller, self._again)

    @property
    def _caller(self) -> Caller:
        return Caller(name=self.name, links=(Link(self.name, self.grant),))

    async def _again(self) -> Caller:
        return self._caller


#: Who sends unless another is named.
SOMEBODY: Final = Person()


@dataclass
class Kit:
    """The engine, and what it is made of."""

    layout: Layout
    spool: Spool
    partials: Partials
    reader: Reader
    admission: Admission
    receiver: Receiver
    resumable: Resumable
    cancelled: list[str] = field(default_factory=list)

    async def create(self, length: int | None, person: Person = SOMEBODY, path: str = "/x", **values: Any) -> Progress:
        """Make an upload of so many bytes."""
        return await self.resumable.create(request(length, path, **values), "meta", person.requester, "peer")

    async def append(
        self, upload_id: str, offset: int, data: bytes | Receive, person: Person = SOMEBODY, **values: Any,
    ) -> Progress:
        """Append these bytes, or what comes."""
        receive, length = (whole(data), len(data)) if isinstance(data, bytes) else (data, None)
        return await self.resumable.append(
            upload_id, offset, receive, person.requester, "peer", **{"content_length": length, **values})

    async def look(self, upload_id: str, person: Person = SOMEBODY) -> Progress:
        """How it stands."""
        return await self.resumable.look(upload_id, person.requester)

    def bytes_of(self, task_id: str) -> bytes:
        """What was accepted as that task."""
        task = self.reader.find(task_id, lambda _: True)
        assert task is not None, f"{task_id} is not in the queue"
        with self.spool.open(task.upload) as file:
            return file.read(task.upload.size)


def request(length: int | None, path: str = "/x", **values: Any) -> UploadRequest:
    """What an upload asks for."""
    asked: dict[str, Any] = {"display_name": "x", "mode": None, "uid": None, "gid": None, "mkdirs": None,
                             "idempotency_key": None, "digests": frozenset()}
    return UploadRequest(destination=Destination("local", "default", "c1", path), length=length, **{**asked, **values})


def whole(data: bytes) -> Receive:
    """A body that is there already."""
    return coming([data], then=None)


def coming(pieces: Iterable[bytes], then: Callable[[], Awaitable[None]] | None, *, gone: bool = False) -> Receive:
    """A body that comes in pieces; then `then` is waited for, and it ends, or its client goes away."""
    waiting = iter(pieces)

    async def receive() -> Event:
        piece = next(waiting, None)
        if piece is not None:
            return {"type": "http.request", "body": piece, "more_body": True}
        if then is not None:
            await then()
        return {"type": "http.disconnect"} if gone else {"type": "http.request", "body": b"", "more_body": False}

    return receive


def configured(**sections: Any) -> Config:
    """The defaults, but for these keys."""
    config = load(None)
    return config.model_copy(update={
        name: getattr(config, name).model_copy(update=keys) for name, keys in {
            "limits": {"min_free_bytes": 0}, **sections}.items()})


@contextlib.asynccontextmanager
async def kit(
    layout: Layout, config: Config | None = None, *, patience_s: float = PATIENCE_S, cancels: bool = True,
) -> AsyncIterator[Kit]:
    """The engine on a state directory; several of them are like several processes."""
    live, spool, counts, refusals = LiveConfig(config or configured()), open_spool(layout), SharedCounts(), RefusalLog()
    partials, reader = open_partials(layout, spool), Reader(layout, spool, 1)
    storage = Storage(layout, 1, spool, supersede=lambda: True, when_dead=lambda: None)
    storage.start()
    receiver, turns, delegations = Receiver(spool, storage), Turns(partials, patience_s=patience_s), open_delegations(layout)
    threads, _ = receiver.pools
    admission = Admission(
        reader.waiting(), Shares(lambda: 64, counts, Column.UPLOADS), counts.tally(Column.ANNOUNCED_BYTES),
        Headroom(counts, spool.free_bytes), storage.trouble)
    backlog = Backlog(reader, admission, lambda: partials.census(fresh=True))
    amounts, quotas = Amounts(delegations, threads), Quotas(counts, reader.pending_under, threads)
    cancelled: list[str] = []

    async def cancel(_caller: Caller, _to: Destination, task_id: str) -> bool:
        cancelled.append(task_id)
        return cancels

    completion = Completion(live, threads, storage, admission, amounts,
                            lambda task_id: reader.find(task_id, lambda _: True), reader.newer_known)
    resumable = Resumable(live, partials, turns, backlog, quotas, receiver, completion, refusals, Counted(), cancel)
    try:
        yield Kit(layout, spool, partials, reader, admission, receiver, resumable, cancelled)
    finally:
        refusals.close()
        for part in (receiver, turns, backlog, reader, delegations):
            await asyncio.to_thread(part.close)
        if await asyncio.to_thread(storage.close):
            partials.close()
            spool.close()


# --- a process of its own, to be killed --------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """What a client was told of the upload with the body of that seed."""

    seed: int
    size: int
    progress: Progress


class Sender:
    """A process that sends uploads with an engine of its own, and says what it was told of each."""

    _context = multiprocessing.get_context("forkserver")

    def __init__(self, directory: Path, seeds: Sequence[int], sizes: Sequence[int], faults: str = "") -> None:
        """It sends one upload of each seed and size on the state in `directory`, all at once."""
        self._context.set_forkserver_preload(list(PRELOAD))
        self._last: dict[str, Told] = {}
        self._told, theirs = self._context.Pipe(duplex=False)
        self.process = self._context.Process(target=_send, args=(directory, seeds, sizes, faults, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def told(self) -> dict[str, Told]:
        """The last that it has been told of each upload so far."""
        with contextlib.suppress(EOFError):
            while self._told.poll():
                one: Told = self._told.recv()
                self._last[one.progress.upload_id] = one
        return self._last

    def send(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.process.exitcode is None and self.process.pid is not None:
            os.kill(self.process.pid, number)


def _send(directory: Path, seeds: Sequence[int], sizes: Sequence[int], faults: str, told: Connection) -> None:
    async def send() -> None:
        async with kit(Layout(directory)) as made:
            failpoints.arm(faults)
            await asyncio.gather(*(_send_one(made, seed, size, told) for seed, size in zip(seeds, sizes, strict=True)))

    asyncio.run(send())


async def _send_one(made: Kit, seed: int, size: int, told: Connection) -> None:
    data, chance = body(seed, size), random.Random(seed)
    progress = await made.create(size, path=f"/{seed}")
    told.send(Told(seed, size, progress))
    while not progress.complete:
        end = min(size, progress.offset + chance.randint(1, max(1, size // 2)))
        progress = await made.append(progress.upload_id, progress.offset, data[progress.offset:end])
        told.send(Told(seed, size, progress))


async def finish(made: Kit, one: Told) -> Progress:
    """Go on with an upload that a process left, as its client would; nothing that was told may be gone."""
    data, upload_id = body(one.seed, one.size), one.progress.upload_id
    looked = await made.look(upload_id)
    assert looked.offset >= one.progress.offset, f"told {one.progress}, and now {looked}"
    assert looked.complete or not one.progress.complete
    done = looked if looked.complete else await made.append(upload_id, looked.offset, data[looked.offset:])
    assert done.complete
    assert one.progress.task_id in {None, done.task_id}
    assert made.bytes_of(done.task_id or "") == data
    return done
