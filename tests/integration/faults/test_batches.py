"""An API process dies in the middle of a batch: whatever it was doing, each upload is wholly there or not at all."""

import os
import signal
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from api.uploads.group_commit import CommitResult, GroupCommit
from daemon import failpoints
from daemon.model.task import State
from daemon.model.upload import Upload
from daemon.spool import Incoming, Mark
from daemon.spool.store import FileSpool
from daemon.state.layout import Layout
from tests.integration.recovery.world import World
from tests.support.depot import a_state, an_upload

#: The steps of a batch, and how often each is taken for the one below: it makes two files.
STEPS = {"spool.open": 2, "spool.write": 2, "spool.sync": 2, "spool.link": 5, "spool.linksync": 2, "spool.dirsync": 3,
         "queue.insert": 5, "queue.commit": 1, "queue.committed": 1}
#: Four that share a file, of three instances, and one that has its own.
BODIES = (b"", b"first", b"x" * 20_000, b"second", os.urandom(16 * 1024))


def uploads() -> list[Upload]:
    """What comes in together."""
    return [an_upload(f"/{number}", body, instance=f"c{number % 3}") for number, body in enumerate(BODIES)]


def accept(layout: Layout, batch: Sequence[Upload]) -> list[bool]:
    """Decide about a batch; return who was accepted."""
    spool = FileSpool(layout)

    def prepare(body: bytes, upload: Upload) -> tuple[Incoming, Upload]:
        incoming = spool.begin()
        incoming.write(body)
        return incoming, upload

    commits = GroupCommit(layout, 0, spool, supersede=lambda: True)
    answers = commits.commit([partial(prepare, *one) for one in zip(BODIES, batch, strict=True)])
    return [isinstance(answer, CommitResult) for answer in answers]


def dies(layout: Layout, batch: Sequence[Upload], faults: str) -> bool:
    """Decide about a batch in another process, which meets faults; True when it died of them."""
    child = os.fork()
    if not child:
        try:
            failpoints.arm(faults)
            os._exit(0 if all(accept(layout, batch)) else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert status in {0, signal.SIGKILL}, status
    return status == signal.SIGKILL


@pytest.mark.parametrize(("step", "nth"), [(step, nth) for step, times in STEPS.items() for nth in range(1, times + 1)])
def test_each_upload_of_a_batch_is_whole_or_nothing_when_its_process_dies(quick_path: Path, step: str, nth: int) -> None:
    """Those that had their names are queued by recovery; of the others nothing is left, whatever file they were in."""
    layout, batch = a_state(quick_path), uploads()
    assert dies(layout, batch, f"{step}=kill@{nth}")
    named = {path.name for path in layout.spool.rglob("*") if path.is_file()}
    if step in {"spool.open", "spool.write", "spool.sync"}:
        assert named == set()
    if step == "spool.link":
        assert named == {upload.task_id for upload in batch[:nth - 1]}
    world = World(layout.directory)
    try:
        assert set(world.compare(thorough=True)) <= {"row_missing"}
        assert world.compare(thorough=True) == world.lost_found() == []
        there = [(upload, body) for upload, body in zip(batch, BODIES, strict=True) if upload.task_id in named]
        for upload, body in there:
            assert (world.state(upload), world.mark(upload)) == (State.QUEUED, Mark.PENDING)
            with world.spool.open(upload) as source:
                assert source.read(upload.size) == body
        assert {task.task_id for task in world.queue.page(limit=100)} == named
    finally:
        world.close()


def test_every_step_of_a_batch_is_tried_as_often_as_it_is_taken(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step more wants its row above."""
    taken: list[str] = []

    def reach(step: str) -> bool:
        taken.append(step)
        return True

    monkeypatch.setattr(failpoints, "reach", reach)
    assert accept(a_state(quick_path), uploads()) == [True] * len(BODIES)
    assert Counter(taken) == STEPS
