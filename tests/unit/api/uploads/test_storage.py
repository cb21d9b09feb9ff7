"""The storage threads of a process: what the shards have to do with each other."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from api.uploads.group_commit import Prepare
from api.uploads.storage import Storage
from daemon import failpoints
from daemon.model.upload import Destination, Upload
from daemon.spool import open_spool
from daemon.state.layout import Layout
from daemon.task_queue.sqlite.queue import SqliteQueue
from tests.support.depot import a_state, an_upload
from tests.support.waiting import PATIENCE_S

SHARDS = 2
Scenario = Callable[[Storage, Callable[[Upload], Prepare]], Coroutine[Any, Any, None]]


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    """A state directory; no fault is armed after the test."""
    yield a_state(tmp_path)
    failpoints.arm("")


def play(layout: Layout, scenario: Scenario) -> None:
    """Run a scenario with the storage of a process."""
    spool = open_spool(layout)

    def prepared(upload: Upload) -> Any:
        incoming = spool.begin()
        incoming.write(b"abc")
        return incoming, upload

    async def run() -> None:
        storage = Storage(layout, SHARDS, spool, supersede=lambda: True, when_dead=lambda: None)
        storage.start()
        try:
            await scenario(storage, lambda upload: partial(prepared, upload))
        finally:
            assert await asyncio.to_thread(storage.close)

    asyncio.run(run())
    spool.close()


def of_shard(shard: int) -> Upload:
    """An upload for an instance of that shard."""
    instances = (f"c{number}" for number in range(100))
    return an_upload(instance=next(name for name in instances if _shard_of(name) == shard))


def _shard_of(instance: str) -> int:
    return Destination("local", "default", instance, "/a").shard(SHARDS)


def test_each_upload_gets_into_the_queue_of_its_shard(layout: Layout) -> None:
    """And into no other."""
    uploads = [of_shard(0), of_shard(1)]

    async def scenario(storage: Storage, prepare: Callable[[Upload], Prepare]) -> None:
        for upload in uploads:
            await storage.decide(upload.destination, prepare(upload))

    play(layout, scenario)
    for shard, upload in enumerate(uploads):
        with SqliteQueue(layout, shard) as queue:
            assert [task.task_id for task in queue.page(limit=10)] == [upload.task_id]


def test_shard_that_is_locked_holds_up_no_other(layout: Layout) -> None:
    """Its own uploads wait for the lock; that is no trouble of the disk."""
    locked, unlock = threading.Event(), threading.Event()

    def lock() -> None:
        with SqliteQueue(layout, 0) as queue, queue.write(queue.durable, "queue.commit"):
            locked.set()
            assert unlock.wait(PATIENCE_S)

    async def scenario(storage: Storage, prepare: Callable[[Upload], Prepare]) -> None:
        holding = asyncio.create_task(asyncio.to_thread(lock))
        assert await asyncio.to_thread(locked.wait, PATIENCE_S)
        waits, passes = of_shard(0), of_shard(1)
        waiting = asyncio.create_task(storage.decide(waits.destination, prepare(waits)))
        await storage.decide(passes.destination, prepare(passes))
        assert not waiting.done()
        assert storage.trouble() is None
        unlock.set()
        await waiting
        await holding

    play(layout, scenario)
