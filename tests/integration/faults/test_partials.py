"""A process that takes resumable uploads is killed at each step: what was told stays, and it becomes one task."""

import asyncio
import signal
from pathlib import Path

import pytest

from api.resumable.values import Progress
from daemon import failpoints
from daemon.errors import Rejected
from daemon.model.upload import BUCKETS
from daemon.spool import open_checked
from daemon.state.layout import Layout
from tests.support.bodies import body
from tests.support.resumables import SOMEBODY, Kit, Sender, Told, finish, kit

#: Steps of completing that all uploads take, too.
_SHARED = ("spool.sync", "spool.linksync", "spool.dirsync", "queue.insert", "queue.commit", "queue.committed")
#: Where one step is taken several times: at the making, with bytes, at the end.
_CELLS = [*(f"{step}=kill" for step in (*failpoints.PARTIAL_STEPS, *_SHARED) if step != "partials.remove"),
          "partials.record=kill@2", "partials.recorded=kill@2", "partials.sync=kill@2"]
#: Those in which most is left half done; the others are tried by `make test-full` alone.
_TELLING = {"partials.recorded=kill", "partials.chosen=kill", "partials.renamed=kill", "queue.committed=kill"}
SIZE = 300_000


@pytest.fixture
def layout(quick_path: Path) -> Layout:
    """A new state directory."""
    made = Layout(quick_path / "state")
    made.create()
    return made


def killed(layout: Layout, faults: str) -> dict[str, Told]:
    """What a process was told before it died."""
    sender = Sender(layout.directory, [7], [SIZE], faults)
    sender.process.join()
    assert sender.process.exitcode == -signal.SIGKILL, f"{faults} was not reached"
    return sender.told()


def spooled(layout: Layout) -> list[str]:
    """The names of all that is in the spool."""
    spool = open_checked(layout)
    try:
        return [name.file for bucket in range(BUCKETS) for name in spool.scan(bucket)]
    finally:
        spool.close()


@pytest.mark.parametrize("fault", [
    pytest.param(fault, marks=[] if fault in _TELLING else pytest.mark.full) for fault in _CELLS])
def test_upload_goes_on_after_its_process_was_killed(layout: Layout, fault: str) -> None:
    """Every byte that was told is there, the rest is sent, and there is one task with all of it."""
    told = killed(layout, fault)

    async def go_on() -> None:
        async with kit(layout) as made:
            for one in told.values():
                chosen = made.partials.find(one.progress.upload_id)
                assert chosen is not None
                done = await finish(made, one)
                assert chosen[1].upload is None or chosen[1].upload.task_id == done.task_id
                assert await finish(made, one) is not None
                assert spooled(layout) == [done.task_id]
            assert made.reader.waiting().tasks == len(told)
            assert made.partials.census().number == len(list(layout.partials.glob("*.head"))) - len(told)

    asyncio.run(go_on())


async def send_stubbornly(made: Kit) -> Progress:
    """Send one upload as a client that is told to come again; what it was told never goes back."""
    data, progress, refused = body(7, SIZE), None, list[Rejected]()
    while progress is None or not progress.complete:
        assert all(error.kind.status in {503, 507} for error in refused), refused
        assert len(refused) < 3, refused
        try:
            if progress is None:
                progress = await made.create(SIZE)
            progress = await made.append(progress.upload_id, progress.offset, data[progress.offset:progress.offset + 100_000])
        except Rejected as error:
            refused.append(error)
            if progress is not None:
                looked = await made.look(progress.upload_id)
                assert looked.offset >= progress.offset
                progress = looked
    return progress


@pytest.mark.full
@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EROFS", "EDQUOT"])
@pytest.mark.parametrize("step", [step for step in (*failpoints.PARTIAL_STEPS, *_SHARED) if step != "partials.remove"])
def test_upload_goes_on_after_its_disk_failed(layout: Layout, step: str, error: str) -> None:
    """Whatever failed, once: the client is told to come again, goes on, and there is one task with all of it."""
    async def happen() -> None:
        async with kit(layout) as made:
            failpoints.arm(f"{step}={error}@1")
            try:
                done = await send_stubbornly(made)
            finally:
                failpoints.arm("")
            assert made.bytes_of(done.task_id or "") == body(7, SIZE)
            assert spooled(layout) == [done.task_id]
            assert made.reader.waiting().tasks == 1
            left = {path.name for path in layout.partials.iterdir()} - {f"{done.upload_id}.head"}
            assert not left or step in {"partials.create", "partials.created"}

    asyncio.run(happen())


def test_upload_that_could_not_be_removed_is_still_there(layout: Layout) -> None:
    """Whole, and it can be removed again."""
    async def happen() -> None:
        async with kit(layout) as made:
            upload_id = (await made.create(3)).upload_id
            await made.append(upload_id, 0, b"ab")
            failpoints.arm("partials.remove=EIO")
            try:
                with pytest.raises(Rejected) as refused:
                    await made.resumable.end(upload_id, SOMEBODY.requester)
            finally:
                failpoints.arm("")
            assert refused.value.code == "storage_failed"
            assert (await made.look(upload_id)).offset == 2
            await made.resumable.end(upload_id, SOMEBODY.requester)
            assert list(layout.partials.iterdir()) == []

    asyncio.run(happen())
