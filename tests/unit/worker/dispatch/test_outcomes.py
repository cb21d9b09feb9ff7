import time
from typing import Any

import pytest

from daemon import failpoints
from daemon.config import Config, load
from daemon.errors import QueueFault
from daemon.model.task import Attempt, State, Task
from daemon.spool import Mark
from daemon.task_queue import Change
from tests.support import rows
from tests.support.depot import Depot, an_upload
from tests.support.targets import no_target
from worker.dispatch.outages import Outages
from worker.dispatch.outcomes import WAIT_PROBE_S, Settling
from worker.dispatch.remotes import Remotes
from worker.dispatch.runner import PushOutcome
from worker.dispatch.scheduler import Lanes
from worker.targets.base import Receipt


class Desk:
    """Settling with everything that it needs; nothing is ever pushed."""

    def __init__(self, depot: Depot, **sections: dict[str, object]) -> None:
        config: Config = load(None)
        changes: dict[str, Any] = {name: getattr(config, name).model_copy(update=keys) for name, keys in sections.items()}
        self.config = config.model_copy(update=changes)
        self.depot = depot
        self.outages = Outages(depot.queue)
        self.remotes = Remotes(self.outages, self.config, no_target, lambda _message: None)
        self.lanes = Lanes(depot.queue, self.outages, self.config, lambda *_: None, lambda _message: None)
        self.settling = Settling(depot.queue, depot.spool, self.lanes, self.remotes, self.outages, self.config)

    def claim(self, number: int = 1, path: str = "/f") -> list[Task]:
        """So many claimed tasks."""
        for index in range(number):
            self.depot.accept(f"{path}{index}")
        return self.depot.claim()

    def end(self, task: Task, code: str | None, detail: str = "so it is") -> None:
        """A push ends, and that is written down."""
        receipt = Receipt(atomic=True, way="sftp") if code is None else None
        self.settling.take([PushOutcome(task, code, detail, receipt)])
        self.settling.flush()

    def now(self, task: Task) -> Task:
        """How a task stands."""
        return self.depot.task(task.upload)

    def down(self) -> list[str]:
        """The instances that are known to be down."""
        return [lane.key for lane in self.lanes.health.down()]


@pytest.fixture
def desk(depot: Depot) -> Desk:
    """Settling with the default configuration."""
    return Desk(depot)


@pytest.mark.parametrize(("code", "state", "attempts"), [
    (None, State.DELIVERED, 1), ("parent_not_found", State.FAILED, 1), ("target_full", State.DEFERRED, 1),
    ("instance_not_found", State.DEFERRED, 1), ("incus_unreachable", State.QUEUED, 0), ("agent_down", State.QUEUED, 0),
    ("hidden_when_stopped", State.DEFERRED, 0), ("instance_changed", State.DEFERRED, 1), ("shutdown", State.QUEUED, 0), ("cancelled", State.CANCELLED, 0), ("worker_error", State.DEFERRED, 1),
])
def test_outcome_leads_to_its_state(desk: Desk, code: str | None, state: State, attempts: int) -> None:
    """Delivered, tried again later, kept as a dead letter, waited for, or cancelled; and counted or not."""
    [task] = desk.claim()
    desk.end(task, code)
    found = desk.now(task)
    assert (found.state, found.attempts) == (state, attempts)
    assert (found.due_at is not None) == (state is State.DEFERRED)
    assert found.error_code == (None if code in {None, "cancelled"} else code)


def test_push_that_only_shared_the_connection_is_tried_again_and_no_attempt_counts(desk: Desk) -> None:
    """It was another one that the connection ended over; what that may have left is known."""
    [task] = desk.claim()
    desk.settling.take([PushOutcome(task, "stalled", "nothing moved", left_part=True, bystander=True)])
    desk.settling.flush()
    found = desk.now(task)
    assert (found.state, found.attempts, found.error_code, found.left_part) == (State.QUEUED, 0, "stalled", True)


def test_task_that_waits_alone_does_not_age_meanwhile(desk: Desk) -> None:
    """Of its instance's other tasks each goes its own way; the clock of the instance does not stop for them."""
    [task] = desk.claim()
    desk.end(task, "hidden_when_stopped")
    found = desk.now(task)
    assert found.due_at is not None
    assert found.age_base - task.age_base == pytest.approx(found.due_at - found.updated_at, abs=0.1)
    assert desk.down() == []


@pytest.mark.parametrize(("outcome", "left"), [
    ({"code": "target_full"}, True), ({"code": "target_full", "left_part": True}, True), ({"code": None}, True),
    ({"code": None, "receipt": Receipt(atomic=True, way="sftp")}, False),
    ({"code": None, "receipt": Receipt(atomic=True, way="sftp"), "left_part": True}, True),
    ({"code": None, "receipt": Receipt(atomic=True, way="sftp", unchanged=True)}, True),
    ({"code": None, "receipt": Receipt(atomic=False, way="files")}, True),
])
def test_part_file_that_may_be_left_is_known_until_a_file_got_its_name(
    desk: Desk, depot: Depot, outcome: dict[str, Any], left: bool,
) -> None:
    """Only a rename shows that there is none; what the last worker may have left is not forgotten for less."""
    desk.claim()
    depot.queue.resume(supersede=True)
    [task] = depot.claim()
    desk.settling.take([PushOutcome(task, **outcome)])
    desk.settling.flush()
    rows.write(depot.queue, status=State.CANCELLED)
    assert bool(depot.queue.left_parts("local/default/c1", 10)) is left


def test_dead_letter_is_marked_before_its_row(desk: Desk, depot: Depot) -> None:
    """A rebuild of the queue never revives a dead letter."""
    [task] = desk.claim()
    failpoints.arm("queue.settle=EIO")
    with pytest.raises(QueueFault):
        desk.end(task, "parent_not_found")
    [name] = depot.spool.scan(task.destination.bucket)
    assert name.mark is Mark.FAILED
    assert desk.now(task).state is State.PUSHING


def test_outcome_is_kept_until_it_can_be_written(desk: Desk) -> None:
    """Nothing that the queue could not take is forgotten."""
    first, second = desk.claim(2)
    desk.settling.take([PushOutcome(first, None), PushOutcome(second, "target_full", "full")])
    failpoints.arm("queue.settle=ENOSPC@1")
    with pytest.raises(QueueFault) as caught:
        desk.settling.flush()
    assert caught.value.code == "queue_full"
    assert [desk.settling.all_written, desk.settling.flush(), desk.settling.all_written] == [False, 1, True]
    assert (desk.now(first).state, desk.now(second).state) == (State.DELIVERED, State.DEFERRED)
    assert desk.settling.flush() == 0


def test_task_that_was_handed_back_is_as_it_was(desk: Desk, depot: Depot) -> None:
    """Its attempts, and the reason of its last failure, stay."""
    [task] = desk.claim()
    desk.end(task, "target_full", "no room")
    depot.queue.promote_due(time.time() + 1000, 10)
    claimed = depot.claim()
    desk.settling.hand_back(claimed)
    desk.settling.flush()
    found = desk.now(task)
    assert (found.state, found.attempts, found.error_code, found.error_message) == (
        State.QUEUED, 1, "target_full", "no room")


def test_finished_tasks_are_counted_whatever_finished_them(desk: Desk, depot: Depot) -> None:
    """The bytes of delivered, cancelled and superseded ones can go: the worker looks at them at once."""
    delivered, cancelled, overtaken = desk.claim(3)
    depot.queue.change([Change(task=cancelled, state=State.CANCELLED, when_settled=True)])
    depot.put(an_upload(overtaken.destination.path))
    desk.settling.take([PushOutcome(delivered, None), PushOutcome(cancelled, "target_full"), PushOutcome(overtaken, "target_full")])
    assert desk.settling.flush() == 3
    assert [desk.now(task).state for task in (delivered, cancelled, overtaken)] == [
        State.DELIVERED, State.CANCELLED, State.SUPERSEDED]


def test_overtaken_task_stays_where_all_are_to_be_delivered(depot: Depot) -> None:
    """`on_newer = "deliver-all"` tries the older one again."""
    desk = Desk(depot, delivery={"on_newer": "deliver-all"})
    [task] = desk.claim()
    depot.put(an_upload(task.destination.path), supersede=False)
    desk.end(task, "target_full")
    assert desk.now(task).state is State.DEFERRED


def test_reason_is_kept_as_text_that_can_be_shown_and_stored(desk: Desk) -> None:
    """Whatever a server or a disk said, the row takes it and nothing in it can forge a line."""
    [task] = desk.claim()
    desk.end(task, "target_full", "half \ud800 and\nmore\x1b[31m " + "x" * 5000)
    message = desk.now(task).error_message
    assert message is not None
    assert message.isprintable()
    assert len(message) < 1100


def test_each_push_that_counts_is_kept_with_its_task(desk: Desk) -> None:
    """When it ended, how long it took, and what was the matter; of a delivery how, and what the file has now."""
    [task] = desk.claim()
    desk.settling.take([PushOutcome(task, "target_full", "no \udcff room\n", seconds=2.5, at=1e9)])
    desk.settling.flush()
    failed = Attempt(at=1e9, duration_s=2.5, code="target_full", message=r"no \udcff room\n")
    assert desk.now(task).history == (failed,)
    desk.depot.queue.promote_due(time.time() + 1000, 10)
    [task] = desk.depot.claim()
    receipt = Receipt(atomic=True, way="sftp", mode=0o640, uid=0, gid=5)
    desk.settling.take([PushOutcome(task, None, receipt=receipt, seconds=0.25, at=1e9 + 60)])
    desk.settling.flush()
    delivered = Attempt(at=1e9 + 60, duration_s=0.25, way="sftp", mode=0o640, uid=0, gid=5)
    assert desk.now(task).history == (failed, delivered)


def test_attempt_that_was_the_last_one_keeps_its_own_reason(depot: Depot) -> None:
    """That it was given up is the task's error."""
    desk = Desk(depot, retry={"max_attempts": 1})
    [task] = desk.claim()
    desk.end(task, "target_full")
    found = desk.now(task)
    assert (found.error_code, [attempt.code for attempt in found.history]) == ("gave_up", ["target_full"])


@pytest.mark.parametrize("outcome", [
    {"code": "agent_down"}, {"code": "hidden_when_stopped"}, {"code": "stalled", "hurried": True}, {"code": "cancelled"},
    {"code": "stalled", "bystander": True}, {"code": "order_unknown"},
])
def test_push_that_does_not_count_pushes_no_attempt_out(desk: Desk, outcome: dict[str, Any]) -> None:
    """One that waits is tried again and again: why, its error says."""
    [task] = desk.claim()
    desk.settling.take([PushOutcome(task, **outcome)])
    desk.settling.flush()
    assert desk.now(task).history == ()


# --- what outcomes tell about their destinations -----------------------------------------------------------


def test_failure_of_the_instance_brings_it_down_once(desk: Desk) -> None:
    """Several pushes that fail together are one failure of the instance, not several."""
    tasks = desk.claim(4)
    desk.settling.take([PushOutcome(task, "stalled", "nothing moved") for task in tasks])
    [lane] = desk.lanes.health.down()
    assert (lane.key, lane.down_code, lane.failures) == ("local/default/c1", "stalled", 1)


def test_probes_of_an_instance_that_stays_down_grow_rare(desk: Desk) -> None:
    """Each probe takes another task, and still the next one is later."""
    desk.config = desk.config.model_copy(update={"retry": desk.config.retry.model_copy(update={"jitter": 0.0})})
    desk.settling.configure(desk.config)
    for task, wait_s in zip(desk.claim(6), (1, 2, 4, 8, 16, 32), strict=True):
        before = time.time()
        desk.end(task, "instance_not_found")
        [lane] = desk.lanes.health.down()
        assert lane.down_until is not None
        assert before <= lane.down_until - wait_s <= time.time()
        lane.down_until = 0.0


def test_instance_that_broke_a_connection_off_is_left_alone_for_as_long_as_a_quick_operation_takes(desk: Desk) -> None:
    """A session that is asked for meanwhile is opened at the operation's very end, and in the way of the next one."""
    [task] = desk.claim(1)
    before = time.time()
    desk.end(task, "connection_lost")
    [lane] = desk.lanes.health.down()
    assert lane.down_until is not None
    assert lane.down_until >= before + 2


def test_instance_whose_file_server_is_lost_is_left_alone_until_incus_can_have_found_it(desk: Desk) -> None:
    """Incus finds it only after 15 s in which nobody asks: a try before that is one of those that keep it lost."""
    first, second = desk.claim(2)
    before = time.time()
    desk.end(first, "file_server_lost")
    [lane] = desk.lanes.health.down()
    assert lane.down_until is not None
    assert lane.down_until > before + 15
    lane.down_until = 0.0
    desk.end(second, "file_server_lost")
    assert lane.failures == 2
    assert lane.down_until > before + 15


def test_instance_that_has_to_be_waited_for_is_probed_steadily(desk: Desk) -> None:
    """A stopped machine gets its files within seconds of its start, however long it was stopped."""
    for task in desk.claim(5):
        before = time.time()
        desk.end(task, "instance_stopped")
        [lane] = desk.lanes.health.down()
        assert lane.down_until is not None
        assert before <= lane.down_until - WAIT_PROBE_S <= time.time()
        lane.down_until = 0.0


@pytest.mark.parametrize("code", [None, "parent_not_found", "target_full", "permission_denied", "cancelled"])
def test_instance_that_answers_in_any_way_is_up(desk: Desk, code: str | None) -> None:
    """A refusal about one file shows that the instance is there."""
    first, second = desk.claim(2)
    desk.end(first, "stalled")
    assert desk.down() == ["local/default/c1"]
    desk.end(second, code)
    assert desk.down() == []


@pytest.mark.parametrize("code", ["shutdown", "bytes_missing", "bytes_damaged", "invalid_row", "io_error", "worker_error"])
def test_trouble_on_this_side_tells_nothing_about_the_instance(desk: Desk, code: str) -> None:
    """One damaged file does not send a thousand others into an instance that is down."""
    first, second = desk.claim(2)
    desk.end(first, "stalled")
    desk.end(second, code)
    assert desk.down() == ["local/default/c1"]


def test_remote_that_is_away_takes_back_what_was_not_begun(desk: Desk) -> None:
    """All of its tasks wait together in the queue, without an attempt."""
    pushed, waiting = desk.claim(2)
    lane = desk.lanes._lane(waiting.destination)
    lane.add([waiting])
    desk.lanes._hold(lane)
    desk.end(pushed, "incus_unreachable")
    assert not desk.remotes.answers("local")
    assert desk.down() == []
    assert {desk.now(task).state for task in (pushed, waiting)} == {State.QUEUED}
    assert {desk.now(task).attempts for task in (pushed, waiting)} == {0}


def test_task_is_not_given_up_for_the_time_its_remote_was_away(depot: Depot) -> None:
    """After a month without Incus the first failure is only the first failure."""
    desk = Desk(depot, retry={"give_up_after_s": 1000.0})
    depot.accept("/old", created_at=time.time() - 5000)
    [old] = depot.claim()
    depot.queue.add_outages({"local": 4500.0})
    desk.end(old, "target_full")
    assert desk.now(old).state is State.DEFERRED


@pytest.mark.parametrize(("held", "state"), [(False, State.FAILED), (True, State.HELD)])
def test_push_of_a_stopped_upload_stops_it_again(desk: Desk, held: bool, state: State) -> None:
    """It was not tried, tells nothing of its instance, and whether its path has moved on is not known."""
    [task] = desk.claim()
    desk.settling.take([PushOutcome(task, "order_unknown", "lost", held=held)])
    desk.settling.flush()
    found = desk.now(task)
    assert (found.state, found.attempts, found.error_code) == (state, 0, "order_unknown")
    assert desk.depot.queue.newer_exists(task.destination.digest, task.order)
    assert desk.down() == []
