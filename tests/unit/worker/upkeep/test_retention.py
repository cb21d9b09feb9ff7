import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from daemon import failpoints
from daemon.config import Config, load
from daemon.errors import Undelivered
from daemon.model.task import Attempt, State, Task
from daemon.model.upload import Destination
from daemon.spool import Mark
from daemon.state.reserve import Reserve
from daemon.task_queue import Command
from tests.support import rows
from tests.support.depot import Depot, an_upload
from tests.support.waiting import eventually
from worker.dispatch.outages import Outages
from worker.dispatch.remotes import Remotes
from worker.dispatch.scheduler import Lanes
from worker.upkeep import retention
from worker.upkeep.retention import Upkeep
from worker.upkeep.sync_barrier import Barrier, Unspooled, ready_to_go

NOW = 1_000_000.0


class Yard:
    """Upkeep with everything that it needs."""

    def __init__(self, depot: Depot, **sections: dict[str, object]) -> None:
        config: Config = load(None)
        limits = {"reserve_bytes": 0}
        changes: dict[str, Any] = {name: getattr(config, name).model_copy(update=keys)
                                   for name, keys in {"limits": limits, **sections}.items()}
        self.config = config.model_copy(update=changes)
        self.depot = depot
        self.messages: list[Unspooled] = []
        outages = Outages(depot.queue)
        self.lanes = Lanes(depot.queue, outages, self.config, lambda *_: None, lambda _message: None)
        self.upkeep = Upkeep(depot.queue, depot.spool, Barrier(depot.spool, self.messages.append), self.lanes,
                             Remotes(outages, self.config, _open_target, lambda _message: None), outages,
                             Reserve(depot.layout, 0, 0), self.config)

    def turn(self) -> None:
        """Turn until nothing more is due at once, and take what the barrier has to say."""
        while self.upkeep.turn():
            pass
        eventually(lambda: self.messages or not self.upkeep._barrier.busy)
        while self.messages:
            self.upkeep.unspooled(self.messages.pop())

    def turn_with_reserve(self, reserve_bytes: int) -> None:
        """Turn after a reload that wants a reserve of that size."""
        limits = self.config.limits.model_copy(update={"reserve_bytes": reserve_bytes})
        self.upkeep.configure(self.config.model_copy(update={"limits": limits}))
        self.turn()

    def spooled(self) -> list[str]:
        """The names of all files in the spool."""
        return [path.name for path in self.depot.layout.spool.rglob("*") if path.is_file()]


class _Here:

    def follow(self, *_: Any) -> None:
        """Nothing happens here."""

    def close(self) -> None:
        """Nothing to let go of."""


def _open_target(remote: str, _config: Config) -> Any:
    if remote != "local":
        raise Undelivered("invalid_row")
    return _Here()


@pytest.fixture
def yard(depot: Depot) -> Yard:
    """Upkeep with the default configuration."""
    return Yard(depot)


def a_task(state: State, *elsewhere: bool, finished_s_ago: float = 0.0) -> Task:
    """A finished task, with a delivery for each that says where."""
    done = NOW - finished_s_ago
    history = tuple(Attempt(at=done, duration_s=0.1, elsewhere=each) for each in elsewhere)
    return Task(order=1, upload=an_upload(), state=state, updated_at=done, history=history)


@pytest.mark.parametrize(("task", "goes"), [
    (a_task(State.DELIVERED), True), (a_task(State.DELIVERED, False), True), (a_task(State.DELIVERED, True), False),
    (a_task(State.DELIVERED, True, finished_s_ago=59), False), (a_task(State.DELIVERED, True, finished_s_ago=60), True),
    (a_task(State.DELIVERED, True, False), True), (a_task(State.DELIVERED, False, True), False),
    (a_task(State.SUPERSEDED, True), True), (a_task(State.CANCELLED, True), True),
])
def test_bytes_go_after_a_sync_but_for_fresh_deliveries_to_other_machines(task: Task, goes: bool) -> None:
    """One sync of this machine does not reach another one's disk; there the bytes are kept for a while."""
    assert bool(ready_to_go([task], set(), now=NOW, keep_s=60, is_away=lambda _: False)) is goes


def test_bytes_of_a_delivery_elsewhere_stay_while_that_is_away() -> None:
    """It is compared when it is back; what is on this machine goes whatever is away."""
    old, here = a_task(State.DELIVERED, True, finished_s_ago=900), a_task(State.DELIVERED, False)
    assert ready_to_go([old], set(), now=NOW, keep_s=60, is_away=lambda _: True) == []
    assert ready_to_go([here], set(), now=NOW, keep_s=60, is_away=lambda _: True) == [here]


def test_bytes_of_a_path_stay_as_long_as_older_ones_of_it_do() -> None:
    """A rebuild must not find an older upload without the newer; that holds from one batch to the next, too."""
    fresh, here = a_task(State.DELIVERED, True), a_task(State.DELIVERED, False)
    kept: set[Destination] = set()
    assert ready_to_go([fresh, here], kept, now=NOW, keep_s=60, is_away=lambda _: False) == []
    assert ready_to_go([here], kept, now=NOW, keep_s=60, is_away=lambda _: False) == []


def test_bytes_go_however_many_before_them_are_kept(
        depot: Depot, yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is elsewhere, and may be so for long, holds up nothing that is here."""
    monkeypatch.setattr(retention, "_BARRIER_BATCH", 2)
    monkeypatch.setattr(retention, "_BARRIER_EVERY_S", 0.0)
    for number in range(5):
        depot.settle(depot.accept(f"/{number}"), State.DELIVERED,
                     attempt=Attempt(at=time.time(), duration_s=0.1, elsewhere=number < 4))

    def are_kept(number: int) -> bool:
        yard.turn()
        return len(depot.queue.unspoolable(9)) == number

    eventually(lambda: are_kept(4))
    assert yard.upkeep.unspooling


def test_older_bytes_of_a_path_go_first_however_late_they_finish(
        depot: Depot, yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where more is finished than goes at once, and the older upload came before all that has gone."""
    monkeypatch.setattr(retention, "_BARRIER_BATCH", 1)
    monkeypatch.setattr(retention, "_BARRIER_EVERY_S", 0.0)
    older, between = depot.accept("/path"), depot.accept("/other")
    depot.settle(between, State.DELIVERED)
    yard.turn()
    assert yard.spooled() == [older.task_id]
    newer = depot.accept("/path")
    depot.settle(newer, State.DELIVERED)
    assert depot.state(older) is State.SUPERSEDED
    yard.turn()
    assert yard.spooled() == [newer.task_id]


def test_bytes_of_finished_tasks_go_and_their_rows_say_so(depot: Depot, yard: Yard) -> None:
    """All in one pass; what is not finished keeps its bytes."""
    kept = depot.failed("/kept")
    finished = [depot.accept(f"/{number}") for number in range(3)]
    for upload in finished:
        depot.settle(upload, State.DELIVERED)
    yard.turn()
    assert yard.spooled() == [kept.task_id]
    assert [depot.task(upload).spooled for upload in finished] == [False] * 3
    assert depot.task(kept).spooled


def test_bytes_stay_when_the_sync_fails_and_go_later(depot: Depot, yard: Yard) -> None:
    """Nothing is unlinked before what was delivered from it is on the disk."""
    upload = depot.accept()
    depot.settle(upload, State.DELIVERED)
    failpoints.arm("barrier.sync=EIO")
    yard.turn()
    assert yard.spooled() == [upload.task_id]
    assert depot.task(upload).spooled
    failpoints.arm("")
    yard.upkeep._barrier_at = 0.0
    yard.turn()
    assert yard.spooled() == []


def test_barrier_has_one_batch_at_a_time(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncs do not pile up."""
    gate = threading.Event()
    messages: list[Unspooled] = []
    barrier = Barrier(depot.spool, messages.append)
    monkeypatch.setattr("os.sync", lambda: gate.wait(60))
    barrier.pass_through([])
    assert barrier.busy
    gate.set()
    eventually(lambda: messages)
    barrier.done()
    assert not barrier.busy


@pytest.mark.parametrize(("events", "kept"), [({"keep_s": 0.0}, 0), ({"keep_most": 4}, 4), ({}, 6)])
def test_events_are_forgotten_when_they_are_old_or_too_many(
    depot: Depot, monkeypatch: pytest.MonkeyPatch, events: dict[str, object], kept: int,
) -> None:
    """In small steps, as far as it has to be."""
    monkeypatch.setattr(retention, "_EVENTS", 1)
    start = depot.queue.position()
    for number in range(6):
        depot.accept(f"/{number}")
    Yard(depot, events=events).turn()
    newest = depot.queue.position()
    assert depot.queue.happened(replace(start, seq=max(start.seq, newest.seq - kept - 1)), 9).lost is (kept < 6)
    assert len(depot.queue.happened(replace(start, seq=newest.seq - kept), 9).events) == kept


def test_finished_rows_are_cleared_when_their_time_is_over(depot: Depot) -> None:
    """At most so many, and none for longer than is configured."""
    yard = Yard(depot, retention={"delivered_max": 2})
    for number in range(5):
        depot.settle(depot.accept(f"/{number}"), State.DELIVERED)
    yard.turn()
    yard.upkeep._clear_at = 0.0
    yard.turn()
    assert len(depot.queue.page(limit=10)) == 2


def test_dead_letters_are_kept_for_ever_by_default(depot: Depot, yard: Yard) -> None:
    """`retention.failed_s = 0`: only a person removes them."""
    depot.failed()
    rows.write(depot.queue, updated_at=0)
    yard.turn()
    assert [task.state for task in depot.queue.page(limit=10)] == [State.FAILED]


def test_dead_letters_are_removed_when_they_are_kept_for_a_time_only(depot: Depot) -> None:
    """The bytes go, and the row says that it was cancelled."""
    yard = Yard(depot, retention={"failed_s": 100.0})
    old, young = depot.failed("/old"), depot.failed("/young")
    rows.write(depot.queue, old.task_id, updated_at=1)
    yard.turn()
    yard.upkeep._barrier_at = 0.0
    yard.turn()
    assert (depot.state(old), depot.state(young)) == (State.CANCELLED, State.FAILED)
    assert yard.spooled() == [young.task_id]


def bring_down(yard: Yard, code: str) -> None:
    """The instance c1 is known to be down."""
    yard.lanes.note_down(Destination("local", "default", "c1", "/"), code, time.time() + 1000)


def test_tasks_that_waited_too_long_for_an_instance_are_given_up(depot: Depot) -> None:
    """Without being tried one by one; younger ones, and those of other instances, wait on."""
    yard = Yard(depot, retry={"give_up_after_s": 1000.0})
    old = depot.accept("/old", created_at=time.time() - 2000)
    young = depot.accept("/young")
    other = depot.accept("/old", created_at=time.time() - 2000, instance="c2")
    bring_down(yard, "instance_not_found")
    yard.turn()
    found = depot.task(old)
    assert (found.state, found.error_code, found.attempts) == (State.FAILED, "gave_up", 0)
    assert found.error_message == "instance_not_found: it was down for too long"
    assert {depot.state(young), depot.state(other)} == {State.QUEUED}
    assert {name.mark for name in depot.spool.scan(old.destination.bucket) if name.task_id == old.task_id} == {Mark.FAILED}


def test_tasks_of_many_instances_are_given_up_a_few_at_a_time(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty thousand names of which there is no instance hold up no turn."""
    monkeypatch.setattr(retention, "_LANES_AT_ONCE", 2)
    yard = Yard(depot, retry={"give_up_after_s": 1000.0})
    old = [depot.accept("/old", created_at=time.time() - 2000, instance=f"c{number}") for number in range(5)]
    for upload in old:
        yard.lanes.note_down(upload.destination, "instance_not_found", time.time() + 1000)
    given_up = []
    for _ in range(3):
        yard.upkeep._clear_at = 0.0
        yard.turn()
        given_up.append(sum(depot.state(upload) is State.FAILED for upload in old))
    assert given_up == [2, 4, 5]


@pytest.mark.parametrize("code", ["instance_stopped", "agent_down"])
def test_tasks_that_wait_for_a_start_are_never_given_up(depot: Depot, code: str) -> None:
    """A machine that is off for a month gets its files when it comes back."""
    yard = Yard(depot, retry={"give_up_after_s": 1000.0})
    old = depot.accept("/old", created_at=time.time() - 1_000_000)
    bring_down(yard, code)
    yard.turn()
    assert depot.state(old) is State.QUEUED


def test_time_in_which_the_remote_was_away_does_not_count(depot: Depot) -> None:
    """Nor does the time in which no worker ran."""
    yard = Yard(depot, retry={"give_up_after_s": 1000.0})
    old = depot.accept("/old", created_at=time.time() - 2000)
    depot.queue.add_outages({"local": 600.0, "": 600.0})
    bring_down(yard, "instance_not_found")
    yard.turn()
    assert depot.state(old) is State.QUEUED


def test_answers_to_people_are_kept_for_a_while(depot: Depot, yard: Yard) -> None:
    """Long enough to be read, and not for ever."""
    numbers = depot.queue.ask([Command(verb="hold", task_id="x"), Command(verb="hold", task_id="y")])
    depot.queue.durable.execute("UPDATE commands SET done_at = ? WHERE id = ?", (time.time(), numbers[0]))
    depot.queue.durable.execute("UPDATE commands SET done_at = 1 WHERE id = ?", (numbers[1],))
    yard.turn()
    assert list(depot.queue.answers(numbers)) == numbers[:1]


def test_deferred_tasks_are_tried_at_once_when_the_clock_was_set_back(depot: Depot, yard: Yard) -> None:
    """None is put off for longer than retry.max_delay_s, so one that is due much later is not waited for."""
    now, longest_s = time.time(), yard.config.retry.max_delay_s
    early, late = depot.accept("/early"), depot.accept("/late")
    depot.settle(early, State.DEFERRED, due_at=now + longest_s / 2)
    depot.settle(late, State.DEFERRED, due_at=now + longest_s + 3600)
    yard.turn()
    assert depot.task(early).state is State.DEFERRED
    assert depot.task(late).state is State.QUEUED


def test_reserve_has_another_size_after_a_reload(depot: Depot) -> None:
    """The next turn gives free what is too much, and makes what is missing."""
    yard, reserve = Yard(depot), depot.layout.reserves(0, 1)[0]

    def reload(reserve_bytes: int) -> int:
        yard.turn_with_reserve(reserve_bytes)
        return reserve.stat().st_size if reserve.exists() else 0

    assert [reload(8192), reload(4096), reload(0)] == [8192, 4096, 0]


def test_log_keeps_its_room_while_the_reserve_is_not_whole(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads would take what the write-ahead log gives free, and no outcome could be written any more."""
    monkeypatch.setattr(retention, "_CHECKPOINT_EVERY_S", 0.0)
    yard, log = Yard(depot), depot.layout.log(0)

    def turn(reserve_bytes: int) -> int:
        yard.turn_with_reserve(reserve_bytes)
        return log.stat().st_size

    for number in range(20):
        depot.accept(f"/f{number}")
    size = log.stat().st_size
    assert turn(reserve_bytes=2**60) >= size
    assert turn(reserve_bytes=0) < size


def test_audit_list_is_kept_as_long_as_delivered_tasks(depot: Depot) -> None:
    """Older actions go."""
    yard = Yard(depot, retention={"delivered_s": 3600.0})
    now = time.time()
    for number, age in enumerate((7200, 10)):
        depot.queue.ask([Command(verb="hold", task_id=str(number), asked_at=now - age)])
    yard.turn()
    assert [action.task_id for action in depot.queue.actions(None, 9)] == ["1"]
