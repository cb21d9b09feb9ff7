"""Opening a shard's queue after its worker did not end in order."""

from dataclasses import replace
from pathlib import Path

from daemon.recovery import rebuild
from daemon.task_queue.sqlite import notes
from tests.support.depot import Depot


def test_number_that_may_have_been_told_before_a_loss_is_not_given_again(quick_path: Path) -> None:
    """Its log may have lost the newest events: who was told of them is told of what comes after."""
    with Depot(quick_path / "state") as depot:
        depot.accept("/old")
        last = depot.queue.position()
        notes.note_open(depot.layout, 0)
        depot.queue.close()
        depot.queue = rebuild.open_whole(depot.layout, 0, shards=1, supersede=True, report=lambda _finding: None)
        upload = depot.accept("/new")
        happened = depot.queue.happened(replace(last, seq=last.seq + 2), 9)
        assert ([event.task_id for event in happened.events], happened.lost) == ([upload.task_id], False)
