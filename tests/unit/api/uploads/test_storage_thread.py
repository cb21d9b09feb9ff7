"""The thread that makes uploads durable: what comes together, and who waits how long."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import pytest

from api.uploads import awaited, storage_thread
from api.uploads.group_commit import Answer, CommitResult, Prepare
from api.uploads.storage_thread import StorageThread
from daemon.errors import CannotStart, CourierError
from daemon.task_queue import Put, PutOutcome
from tests.support.depot import an_upload
from tests.support.waiting import PATIENCE_S, eventually

Scenario = Callable[["Disk", StorageThread], Coroutine[Any, Any, None]]


class Disk:
    """Stands for all that is done with a batch: it takes as long as the test wants."""

    def __init__(self) -> None:
        self.batches: list[Sequence[Prepare]] = []
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.mistake: Exception | None = None
        self.deaths = 0

    def commit(self, batch: Sequence[Prepare]) -> Sequence[Answer]:
        """Accept them all, when it is allowed to end."""
        self.batches.append(batch)
        self.begun.release()
        assert self.may_end.acquire(timeout=PATIENCE_S)
        if self.mistake is not None:
            raise self.mistake
        return [CommitResult(an_upload(), Put(PutOutcome.ACCEPTED, "id")) for _ in batch]

    async def has_begun(self) -> None:
        """Wait until it has one more batch."""
        assert await asyncio.to_thread(self.begun.acquire, timeout=PATIENCE_S)

    def died(self) -> None:
        """What the thread calls when it dies."""
        self.deaths += 1


def play(scenario: Scenario) -> Disk:
    """Run a scenario with a storage thread, and close that."""
    async def run() -> Disk:
        disk = Disk()
        storage = StorageThread(disk.commit, when_dead=disk.died)
        storage.start()
        try:
            await scenario(disk, storage)
        finally:
            disk.may_end.release(100)
            storage.end()
            assert await asyncio.to_thread(storage.join)
        return disk

    return asyncio.run(run())


def begin(storage: StorageThread, number: int = 1) -> "list[asyncio.Task[CommitResult]]":
    """Hand over uploads."""
    return [asyncio.create_task(storage.decide(_never_asked)) for _ in range(number)]


async def handed_over() -> None:
    """Wait until what was begun lies before the thread: its task runs in the next turn, and hands it over in another."""
    for _ in range(3):
        await asyncio.sleep(0)


def _never_asked() -> Any:
    raise AssertionError


async def codes(waiting: Sequence[Awaitable[CommitResult]]) -> list[str]:
    """What became of uploads."""
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    return [answer.code if isinstance(answer, CourierError) else "ok" for answer in answers]


def test_what_comes_while_the_disk_is_busy_is_one_batch() -> None:
    """However many turns of the event loop it came in; what came in one turn is one batch from the start."""
    async def scenario(disk: Disk, storage: StorageThread) -> None:
        first = begin(storage, 2)
        await disk.has_begun()
        later = []
        for _ in range(3):
            later += begin(storage, 2)
            await handed_over()
        disk.may_end.release(2)
        assert await codes(first + later) == ["ok"] * 8

    assert [len(batch) for batch in play(scenario).batches] == [2, 6]


def test_batch_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many come at once: the first of them are not held up by the last."""
    monkeypatch.setattr(storage_thread, "MAX_BATCH", 4)

    async def scenario(disk: Disk, storage: StorageThread) -> None:
        disk.may_end.release(100)
        assert await codes(begin(storage, 11)) == ["ok"] * 11

    sizes = [len(batch) for batch in play(scenario).batches]
    assert sum(sizes) == 11
    assert max(sizes) == 4


def test_caller_that_is_gone_takes_no_other_with_it() -> None:
    """Its upload may be accepted all the same."""
    async def scenario(disk: Disk, storage: StorageThread) -> None:
        gone, stays = begin(storage, 2)
        await disk.has_begun()
        gone.cancel()
        disk.may_end.release()
        assert await codes([stays]) == ["ok"]
        assert gone.cancelled()

    play(scenario)


def test_nobody_waits_for_a_disk_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is told that nobody knows; it is said that nothing can be stored, until it goes on."""
    monkeypatch.setattr(awaited, "DECIDED_WITHIN_S", 0.05)
    monkeypatch.setattr(awaited, "HANGS_S", 0.0)

    async def scenario(disk: Disk, storage: StorageThread) -> None:
        assert storage.trouble() is None
        waiting = begin(storage)
        await disk.has_begun()
        waiting += begin(storage)
        assert await codes(waiting) == ["outcome_unknown"] * 2
        assert "not answered" in (storage.trouble() or "")
        disk.may_end.release(2)
        await asyncio.to_thread(eventually, lambda: storage.trouble() is None, PATIENCE_S, "the end of the trouble")

    play(scenario)


def test_end_does_not_wait_for_a_disk_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so instead."""
    monkeypatch.setattr(storage_thread, "ENDS_WITHIN_S", 0.05)

    async def scenario(disk: Disk, storage: StorageThread) -> None:
        waiting = begin(storage)
        await disk.has_begun()
        storage.end()
        assert not await asyncio.to_thread(storage.join)
        disk.may_end.release()
        assert await codes(waiting) == ["ok"]
        monkeypatch.undo()

    play(scenario)


def test_thread_that_dies_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had begun is undecided; of what it had not, and of what comes later, nothing is kept."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    async def scenario(disk: Disk, storage: StorageThread) -> None:
        begun = begin(storage)
        await disk.has_begun()
        waiting = begin(storage)
        await handed_over()
        disk.mistake = ZeroDivisionError()
        disk.may_end.release()
        assert await codes(begun + waiting) == ["outcome_unknown", "storage_failed"]
        assert await codes(begin(storage)) == ["storage_failed"]
        assert storage.trouble() is not None

    disk = play(scenario)
    assert disk.deaths == 1
    assert len(disk.batches) == 1


def test_start_says_so_when_there_is_no_thread_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reason in words, and nothing that would have to be waited for."""
    def no_more(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_more)

    async def scenario() -> None:
        storage = StorageThread(Disk().commit, when_dead=lambda: None)
        with pytest.raises(CannotStart, match="one more thread"):
            storage.start()
        assert storage.join()

    asyncio.run(scenario())


def test_end_decides_what_was_handed_over() -> None:
    """And only then ends."""
    async def scenario(disk: Disk, storage: StorageThread) -> None:
        first = begin(storage)
        await disk.has_begun()
        later = begin(storage)
        await handed_over()
        storage.end()
        closing = asyncio.create_task(asyncio.to_thread(storage.join))
        disk.may_end.release(2)
        assert await codes(first + later) == ["ok"] * 2
        assert await closing

    play(scenario)
