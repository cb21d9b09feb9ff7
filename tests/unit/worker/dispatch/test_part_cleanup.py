import time
from dataclasses import replace

import pytest

from daemon.config import load
from daemon.model.task import State, Task
from daemon.model.upload import Destination
from tests.support import rows
from tests.support.depot import Depot
from tests.support.lanes import take_one
from tests.support.targets import no_target
from worker.dispatch import part_cleanup
from worker.dispatch.lane import Lane
from worker.dispatch.outages import Outages
from worker.dispatch.outcomes import Settling
from worker.dispatch.part_cleanup import Sweeping
from worker.dispatch.remotes import Remotes
from worker.dispatch.runner import Swept
from worker.dispatch.scheduler import Lanes


class Broom:
    """Sweeping with everything that it needs; no runner ever runs."""

    def __init__(self, depot: Depot) -> None:
        config = load(None)
        self.depot = depot
        outages = Outages(depot.queue)
        self.remotes = Remotes(outages, config, no_target, lambda _message: None)
        self.lanes = Lanes(depot.queue, outages, config, lambda *_: None, lambda _message: None)
        settling = Settling(depot.queue, depot.spool, self.lanes, self.remotes, outages, config)
        self.sweeping = Sweeping(depot.queue, self.lanes, self.remotes, settling)

    def leave(self, instance: str = "c1", number: int = 1) -> list[Task]:
        """Cancelled tasks that may have left part files in an instance that answers."""
        self.lanes.health.note_up(Destination("local", "default", instance, "/"))
        uploads = [self.depot.accept(f"/{index}", instance=instance) for index in range(number)]
        self.depot.claim(instance)
        self.depot.queue.resume(supersede=True)
        for upload in uploads:
            rows.write(self.depot.queue, upload.task_id, status=State.CANCELLED)
        return [self.depot.task(upload) for upload in uploads]

    def turn(self) -> dict[str, int]:
        """Look, as after a while; return for how many part files each instance has work then."""
        self.sweeping._look_at = 0.0
        self.sweeping.turn(time.time())
        return {lane.destination.instance: lane.busy() for lane in self.lanes.active() if lane.busy()}

    def end(self, task: Task, code: str | None, *, removed: bool = False, unopened: bool = False) -> None:
        """A runner has looked for a part file."""
        lane = self.lanes.find(task.destination)
        push = take_one(lane) if lane else None
        if lane and push:
            lane.done(push, abandoned=False)
        self.sweeping.swept(Swept(task, code, "so it is", removed, unopened))

    def left(self, instance: str = "c1") -> int:
        """How many part files may be left in an instance."""
        return len(self.depot.queue.left_parts(f"local/default/{instance}", 1000))

    def down(self) -> list[Lane]:
        """The instances that are known to be down."""
        return self.lanes.health.down()


@pytest.fixture
def broom(depot: Depot) -> Broom:
    """Sweeping with the default configuration."""
    return Broom(depot)


def test_rows_that_cannot_be_read_hide_no_part_file_behind_them(broom: Broom) -> None:
    """They do not say where theirs would be: they are forgotten, and the others are found."""
    tasks = broom.leave(number=20)
    rows.damage(broom.depot.queue, *(task.task_id for task in tasks[:17]))
    assert broom.turn() == {"c1": 3}


def test_every_instance_gets_its_turn(broom: Broom) -> None:
    """Some part files of each are looked for at once, and of one with many not all."""
    for number in range(70):
        broom.leave(f"c{number:02}", 20 if number == 0 else 1)
    assert broom.turn() == {f"c{number:02}": 16 if number == 0 else 1 for number in range(64)}
    for lane in broom.lanes.active():
        lane.hand_back()
    assert broom.turn() == {f"c{number:02}": 1 for number in range(64, 70)}


def test_nothing_is_looked_for_more_often_than_needed(broom: Broom) -> None:
    """Between two looks a turn asks nobody anything."""
    assert broom.turn() == {}
    broom.leave()
    broom.sweeping.turn(time.time())
    assert broom.lanes.active() == []


@pytest.mark.parametrize("code", [
    None, "parent_not_found", "permission_denied", "read_only", "incus_error", "io_error", "worker_error", "invalid_row",
    "instance_not_found", "project_not_found"])
def test_part_file_is_forgotten_when_it_is_gone_or_cannot_be_removed(
    broom: Broom, capfd: pytest.CaptureFixture[str], code: str | None,
) -> None:
    """Trying again for ever would help nobody: the log says what could not be removed, and the instance is not down."""
    [task] = broom.leave()
    broom.turn()
    broom.end(task, code)
    assert broom.left() == 0
    assert broom.down() == []
    assert broom.depot.task(task.upload).attempts == 0
    silent = {None, "instance_not_found", "project_not_found"}
    assert ("target.not_swept" in capfd.readouterr().err) is (code not in silent)


@pytest.mark.parametrize("code", ["instance_stopped", "agent_down", "stalled", "connection_lost", "instance_refused"])
def test_part_file_is_kept_in_mind_while_its_instance_is_down(broom: Broom, code: str) -> None:
    """One is the next probe, when the time for it has come; after that the others follow."""
    first, *_ = broom.leave(number=3)
    broom.turn()
    broom.end(first, code)
    assert broom.left() == 3
    [lane] = broom.down()
    assert (lane.down_code, broom.turn()) == (code, {})
    lane.down_until = 0.0
    assert broom.turn() == {"c1": 1}
    broom.end(first, None, removed=True)
    assert (broom.left(), broom.down()) == (2, [])
    assert broom.turn() == {"c1": 2}


def test_part_file_is_kept_in_mind_when_no_session_could_be_opened(broom: Broom, capfd: pytest.CaptureFixture[str]) -> None:
    """An error of Incus at the door says nothing about the path behind it; one that stays an error does."""
    [task] = broom.leave()
    broom.turn()
    broom.end(task, "incus_error", unopened=True)
    assert (broom.left(), broom.turn()) == (1, {"c1": 1})
    broom.end(task, "bad_config", unopened=True)
    assert broom.left() == 0
    assert "target.not_swept" in capfd.readouterr().err


def test_part_file_is_kept_in_mind_while_what_it_is_in_is_not_mounted(broom: Broom) -> None:
    """The instance is not down, but nothing is looked for in it any more until something has changed."""
    [task] = broom.leave()
    broom.turn()
    broom.end(task, "hidden_when_stopped")
    assert (broom.left(), broom.down(), broom.turn()) == (1, [], {})
    broom.sweeping.look_again(task.destination.instance_key)
    assert broom.turn() == {"c1": 1}


def test_instance_that_was_put_off_is_remembered_no_longer_than_that(
    broom: Broom, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker meets any number of instances in its life."""
    monkeypatch.setattr(part_cleanup, "_PUT_OFF_S", 0.0)
    for number in range(3):
        [task] = broom.leave(f"c{number}")
        broom.turn()
        broom.end(task, "hidden_when_stopped")
    assert broom.turn() == {f"c{number}": 1 for number in range(3)}
    assert broom.sweeping._put_off == {}


def test_part_file_is_kept_in_mind_while_its_remote_is_away(broom: Broom) -> None:
    """The remote is probed as for any push."""
    [task] = broom.leave()
    broom.turn()
    broom.end(task, "incus_unreachable")
    assert broom.left() == 1
    assert not broom.remotes.answers("local")
    assert broom.turn() == {}
    broom.remotes.note_up("local")
    assert broom.turn() == {"c1": 1}


def test_task_stays_what_it_is(broom: Broom) -> None:
    """Sweeping up changes nothing about a task but that nothing is left of it."""
    [task] = broom.leave()
    broom.turn()
    broom.end(task, None, removed=True)
    assert broom.depot.task(task.upload) == replace(task, left_part=False)
    assert task.state is State.CANCELLED
