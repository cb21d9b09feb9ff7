"""What a worker tells of itself."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from daemon.config import Config, load
from daemon.model.text import is_plain
from daemon.model.upload import Destination
from daemon.state.activity import Activity
from daemon.task_queue import BULK_BYTES
from tests.support.depot import Depot, an_upload, sealed
from tests.support.targets import no_target
from tests.support.waiting import PATIENCE_S, eventually
from worker.dispatch import telling
from worker.dispatch.crew import RunnerEnded
from worker.dispatch.lane import Lane
from worker.dispatch.outages import Outages
from worker.dispatch.remotes import Probed, Remotes
from worker.dispatch.scheduler import Lanes
from worker.targets.base import Patience

NOW = 2e9


class Floor:
    """Lanes and remotes over a real queue; runners hold what they took until the test is over."""

    def __init__(self, depot: Depot) -> None:
        outages = Outages(depot.queue)
        config = load(None)
        self.ended: list[RunnerEnded] = []
        self.over = threading.Event()
        self.lanes = Lanes(depot.queue, outages, config, self._run, self.ended.append)
        self.remotes = Remotes(outages, config, no_target, lambda _: None)

    def _run(self, lane: Lane, _: Callable[[], Config], patience: Patience) -> None:
        pushes = lane.take(0.0, most=64, turn_over=False)
        patience.in_session = True
        for push in pushes:
            push.sent_bytes = 3
        with patience.waiting():
            self.over.wait(PATIENCE_S)
        for push in pushes:
            lane.done(push, abandoned=False)

    def tell(self, *, waits_for: tuple[str, str] | None = None) -> Activity:
        """What the worker tells."""
        return telling.describe(self.lanes, self.remotes, NOW, started_at=1e9, waits_for=waits_for, wal_bytes=7)


@pytest.fixture
def floor(depot: Depot) -> Iterator[Floor]:
    """A worker's lanes."""
    made = Floor(depot)
    yield made
    made.lanes.close()
    made.over.set()
    eventually(lambda: len(made.ended) == made.lanes.runners)
    made.remotes.close()


def test_worker_tells_what_is_pushed_how_far_and_for_how_many_nothing_moves(depot: Depot, floor: Floor) -> None:
    """Bulky files come first; what still waits in a lane is counted alone."""
    small, bulky = an_upload("/small"), an_upload("/bulky", size=BULK_BYTES)
    depot.queue.put_many(sealed(small, bulky), supersede=False)
    floor.lanes.health.note_up(Destination("local", "default", "c1", "/"))
    began = time.time()
    floor.lanes.dispatch(NOW, lambda _: True)
    told = eventually(lambda: (found := floor.tell()).stalled == 2 and found)
    assert isinstance(told, Activity)
    assert (told.lanes, told.keeps, told.threads, told.sessions) == (1, 2, 2, 2)
    assert [(file.task_id, file.path, file.size_bytes, file.sent_bytes) for file in told.pushing] == [
        (bulky.task_id, "/bulky", BULK_BYTES, 3), (small.task_id, "/small", 5, 3)]
    assert all(began <= file.since <= time.time() for file in told.pushing)
    assert (told.at, told.pid, told.started_at, told.wal_bytes, told.code) == (NOW, os.getpid(), 1e9, 7, None)


def test_worker_tells_which_instances_it_leaves_alone_and_why(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Since the first failure, what was said last, until when; of very many those that are down for longest."""
    to = Destination("local", "default", "c1", "/")
    began = time.time()
    floor.lanes.note_down(to, "stalled", NOW + 1, "a")
    first = floor.tell().blocked[0]
    floor.lanes.note_down(to, "instance_stopped", NOW + 2, "evil \x1b[2J")
    [blocked] = floor.tell().blocked
    assert began <= first.since <= time.time()
    assert blocked == replace(first, code="instance_stopped", message=blocked.message, next_try_at=NOW + 2)
    assert is_plain(blocked.message)
    floor.lanes.health.note_up(to)
    assert floor.tell().blocked == ()
    monkeypatch.setattr(telling, "_BLOCKED", 3)
    for number in range(5):
        floor.lanes.note_down(Destination("local", "default", f"c{number}", "/"), "stalled", NOW)
    told = floor.tell()
    assert [one.instance_key for one in told.blocked] == [f"local/default/c{n}" for n in range(3)]
    assert (told.more, told.more_blocked) == (2, 2)


def test_worker_tells_how_its_remotes_stand(floor: Floor) -> None:
    """One that is away with what it said last and the next probe; one that came back since then."""
    assert floor.tell().remotes == ()
    began = time.time()
    floor.remotes.note_down("eu", "incus_unreachable", "refused")
    floor.remotes.probed(Probed("eu", "incus_refused", "no"))
    [away] = floor.tell().remotes
    assert (away.remote, away.up, away.code, away.message) == ("eu", False, "incus_refused", "no")
    assert began <= away.since <= time.time()
    assert away.next_try_at is not None
    assert NOW < away.next_try_at <= NOW + 2
    assert floor.remotes.note_up("eu")
    assert not floor.remotes.note_up("eu")


def test_worker_tells_what_it_waits_for_itself(floor: Floor) -> None:
    """Such as room on the disk."""
    told = floor.tell(waits_for=("queue_full", "no room\x00"))
    assert (told.code, told.message) == ("queue_full", "no room\\x00")
