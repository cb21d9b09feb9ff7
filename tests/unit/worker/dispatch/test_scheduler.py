import threading
import time
from collections.abc import Callable, Iterator

import pytest

from daemon.config import Config, load
from daemon.model.task import State, Task
from daemon.model.upload import Destination, Upload
from daemon.task_queue import BULK_BYTES, Change, Settlement
from tests.support import rows
from tests.support.depot import Depot, an_upload, sealed
from tests.support.waiting import eventually
from worker.dispatch.crew import RunnerEnded
from worker.dispatch.lane import Lane, Push
from worker.dispatch.outages import Outages
from worker.dispatch.scheduler import CLAIM_AHEAD, Lanes
from worker.targets.base import Patience

NOW = 2e9


def a_config(**delivery: object) -> Config:
    """A configuration with other values for some keys of [delivery]."""
    config = load(None)
    return config.model_copy(update={"delivery": config.delivery.model_copy(update=delivery)})


class Floor:
    """Lanes over a real queue, with runners that push only when the test says so."""

    def __init__(self, depot: Depot, config: Config) -> None:
        self.depot = depot
        self.outages = Outages(depot.queue)
        self.lanes = Lanes(depot.queue, self.outages, config, self._run, self._ended)
        self.pushes: dict[str, Push] = {}
        #: For each path: how many pushes ran at the same time, at most.
        self.most_at_once: dict[str, int] = {}
        self.ended: list[RunnerEnded] = []
        #: Tasks whose part files were removed, by their ids.
        self.swept: list[str] = []
        self.configs: list[Config] = []
        self._gates: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._open = threading.Event()
        #: How many runners push something.
        self._working = 0
        self.away: set[str] = set()
        #: Instances that have not answered; all others that something is sent to have.
        self.untried: set[str] = set()
        self.known: set[str] = set()

    def _run(self, lane: Lane, config: Callable[[], Config], patience: Patience) -> None:
        while pushes := lane.take(0.01, most=config().delivery.per_instance, turn_over=False):
            self.configs.append(config())
            for push in pushes:
                self._begin(push)
            with self._lock:
                self._working += 1
            for push in pushes:
                self._end(push)
                lane.done(push, abandoned=False)
                if push.sweep:
                    self.swept.append(push.task.task_id)
                else:
                    self.depot.queue.settle([_delivered(push.task)], supersede=False)
            with self._lock:
                self._working -= 1

    def _begin(self, push: Push) -> None:
        path = push.task.destination.instance_key + push.task.destination.path
        with self._lock:
            self.pushes[push.task.task_id] = push
            running = sum(other.task.destination == push.task.destination for other in self.pushes.values())
            self.most_at_once[path] = max(self.most_at_once.get(path, 0), running)
            self._gates.setdefault(push.task.task_id, threading.Event())

    def _end(self, push: Push) -> None:
        if not self._open.is_set():
            self._gates[push.task.task_id].wait(60.0)
        with self._lock:
            del self.pushes[push.task.task_id]

    def _ended(self, message: RunnerEnded) -> None:
        self.ended.append(message)

    def dispatch(self, now: float = NOW) -> int:
        """One turn of the main loop."""
        while self.ended:
            self.lanes.reap(self.ended.pop())
        for key in set(self.depot.queue.instance_keys("", 1000)) - self.known - self.untried:
            self.prove(key)
        return self.lanes.dispatch(now, lambda remote: remote not in self.away)

    def prove(self, key: str) -> None:
        """An instance answers."""
        self.known.add(key)
        if key.count("/") == 2:
            remote, project, instance = key.split("/")
            self.lanes.health.note_up(Destination(remote, project, instance, "/"))

    def sweep(self, *uploads: Upload, now: float = NOW) -> None:
        """Have part files removed that tasks left."""
        self.lanes.sweep([self.depot.task(upload) for upload in uploads], now, lambda remote: remote not in self.away)

    def running(self, instance: str | None = None) -> int:
        """How many pushes run, into one instance or in all."""
        with self._lock:
            return sum(instance in {None, push.task.destination.instance} for push in self.pushes.values())

    def settled(self) -> bool:
        """True when every runner that was started pushes something: nothing changes before the next dispatch."""
        return 0 < self.lanes.runners == self._working

    def bulky(self) -> int:
        """How many bulky pushes run."""
        with self._lock:
            return sum(push.bulk for push in self.pushes.values())

    def run_until(self, condition: Callable[[], object]) -> None:
        """Turn until something is so."""
        eventually(lambda: (self.dispatch(), condition())[1])

    def let_go(self) -> None:
        """Let all pushes end, now and from now on."""
        self._open.set()
        for gate in list(self._gates.values()):
            gate.set()

    def close(self) -> None:
        """End everything."""
        self.lanes.close()
        self.let_go()
        eventually(lambda: len(self.ended) == self.lanes.runners)


def _delivered(task: Task) -> Settlement:
    return Settlement(order=task.order, state=State.DELIVERED, attempts=1)


@pytest.fixture
def floor(depot: Depot) -> Iterator[Floor]:
    """Lanes with four pushes into an instance, and sixteen runners in all."""
    made = Floor(depot, a_config(per_instance=4))
    yield made
    made.close()


def accept(depot: Depot, number: int, instance: str = "c1", size: int = 1, name: str = "f") -> None:
    """Queue so many tasks for an instance."""
    depot.queue.put_many(sealed(*(an_upload(f"/{name}/{index}", instance=instance, size=size) for index in range(number))),
                         supersede=False)


def inside(instance: str = "c1") -> Destination:
    """Where an instance is."""
    return Destination("local", "default", instance, "/")


def lane_of(floor: Floor, instance: str = "c1") -> Lane:
    """The lane to an instance that has something to do."""
    lane = floor.lanes.find(inside(instance))
    assert lane is not None
    return lane


def test_instance_gets_up_to_its_share_of_pushes_by_one_runner(depot: Depot, floor: Floor) -> None:
    """`delivery.per_instance` small files at once, and no more."""
    accept(depot, 100)
    floor.run_until(lambda: floor.running() == 4)
    floor.dispatch()
    assert (floor.lanes.runners, floor.running()) == (1, 4)


@pytest.mark.parametrize("per_instance", [2, 3, 4])
def test_instance_gets_no_more_than_its_share_of_large_and_small_files_together(depot: Depot, per_instance: int) -> None:
    """One large one beside small ones that wait."""
    floor = Floor(depot, a_config(per_instance=per_instance))
    accept(depot, 10, size=BULK_BYTES, name="big")
    accept(depot, 100)
    floor.run_until(lambda: (floor.bulky(), floor.running()) == (1, per_instance))
    floor.dispatch()
    assert (floor.lanes.runners, floor.running()) == (2, per_instance)
    floor.close()


def test_instance_gets_few_large_files_however_many_files_it_may_get(depot: Depot) -> None:
    """Each has a session of its own."""
    floor = Floor(depot, a_config(per_instance=64))
    accept(depot, 10, size=BULK_BYTES, name="big")
    floor.run_until(lambda: floor.bulky() == 3)
    floor.dispatch()
    assert (floor.lanes.runners, floor.running()) == (3, 3)
    floor.close()


def test_worker_never_has_more_runners_than_configured(depot: Depot) -> None:
    """`delivery.per_worker` sessions at once, over all instances."""
    floor = Floor(depot, a_config(per_worker=3, per_instance=4))
    for number in range(10):
        accept(depot, 20, f"c{number}")
    floor.run_until(lambda: floor.running() == 12)
    floor.dispatch()
    assert (floor.lanes.runners, floor.running()) == (3, 12)
    floor.close()


def test_every_instance_gets_a_runner_before_one_gets_a_second(depot: Depot) -> None:
    """An instance with many tasks does not keep the others waiting."""
    floor = Floor(depot, a_config(per_worker=4, per_instance=4))
    accept(depot, 200, "a")
    accept(depot, 10, "a", BULK_BYTES, "big")
    for instance in ("b", "c", "d"):
        accept(depot, 1, instance)
    floor.run_until(lambda: floor.lanes.runners == 4)
    eventually(floor.settled)
    assert [floor.running(instance) for instance in "bcd"] == [1, 1, 1]
    assert [lane_of(floor, instance).runners for instance in "abcd"] == [1, 1, 1, 1]
    floor.close()


def test_all_is_pushed_in_the_end_and_each_path_by_one_at_a_time(depot: Depot, floor: Floor) -> None:
    """Many uploads to the same paths, all to be delivered, never meet themselves."""
    for _ in range(10):
        accept(depot, 8)
    floor.let_go()
    floor.run_until(lambda: {task.state for task in depot.queue.page(limit=1000)} == {State.DELIVERED})
    assert set(floor.most_at_once.values()) == {1}


def test_large_files_leave_threads_for_small_ones_of_other_instances(depot: Depot, floor: Floor) -> None:
    """However many instances get large files, a small one for yet another instance is pushed at once."""
    for number in range(20):
        accept(depot, 4, f"big{number}", BULK_BYTES)
    floor.run_until(lambda: floor.bulky() == 12)
    floor.dispatch()
    accept(depot, 1, "other")
    floor.run_until(lambda: floor.running("other") == 1)
    assert floor.bulky() == 12


def test_large_files_leave_a_runner_for_small_ones_of_their_instance(depot: Depot, floor: Floor) -> None:
    """Three of four runners may be busy with large files; small ones go by the fourth."""
    accept(depot, 10, size=BULK_BYTES, name="big")
    floor.run_until(lambda: floor.bulky() == 3)
    accept(depot, 1)
    floor.run_until(lambda: floor.running() == 4)
    assert floor.bulky() == 3


def test_single_runner_pushes_large_files_too(depot: Depot) -> None:
    """With one thread in all large files are not left waiting for ever."""
    floor = Floor(depot, a_config(per_worker=1, per_instance=1))
    accept(depot, 2, size=BULK_BYTES)
    floor.let_go()
    floor.run_until(lambda: {task.state for task in depot.queue.page(limit=10)} == {State.DELIVERED})
    floor.close()


def test_claims_ahead_are_limited(depot: Depot, floor: Floor) -> None:
    """A worker holds as many tasks in memory as keep its runners busy, not all that wait."""
    accept(depot, 500)
    floor.run_until(lambda: floor.running() == 4)
    floor.dispatch()
    assert depot.queue.totals(frozenset({State.PUSHING}))[State.PUSHING].tasks <= CLAIM_AHEAD + 4


def test_claims_are_small_where_the_disk_has_no_room_for_large_ones(depot: Depot, floor: Floor) -> None:
    """What one claim writes may fit into the write-ahead log as it is, and its outcome makes room."""
    pushing = frozenset({State.PUSHING})
    accept(depot, 500)
    floor.lanes.claim_one_by_one()
    floor.run_until(lambda: floor.running() == 1)
    assert depot.queue.totals(pushing)[State.PUSHING].tasks <= 5
    for _ in range(CLAIM_AHEAD.bit_length()):
        floor.lanes.claim_more()
    floor.dispatch()
    assert depot.queue.totals(pushing)[State.PUSHING].tasks > CLAIM_AHEAD / 2


def test_remote_that_is_away_costs_nothing(depot: Depot, floor: Floor) -> None:
    """None of its tasks is claimed; others go on."""
    floor.away.add("eu")
    accept(depot, 1)
    depot.queue.put_many(sealed(an_upload(remote="eu")), supersede=False)
    floor.run_until(lambda: floor.running() == 1)
    assert floor.dispatch() == 0


def test_news_for_who_is_away_waits(depot: Depot, floor: Floor) -> None:
    """The main loop need not look at each of many uploads that nothing can be done about; at one for others it does."""
    floor.away.add("eu")
    waits = []
    for news in ([an_upload(remote="eu")], [], [an_upload(remote="eu"), an_upload()]):
        depot.queue.put_many(sealed(*news), supersede=False)
        floor.dispatch()
        waits.append(floor.lanes.news_waits)
    assert waits == [True, False, False]


# --- instances that are down -------------------------------------------------------------------------------


def bring_down(floor: Floor, until: float, code: str = "instance_not_found") -> list[Task]:
    """Note that the instance c1 is down."""
    floor.known.add(inside().instance_key)
    return floor.lanes.note_down(inside(), code, until)


def test_instance_that_is_down_is_left_alone_until_its_time(depot: Depot, floor: Floor) -> None:
    """Nothing is claimed for it before the next probe is due."""
    accept(depot, 10)
    bring_down(floor, NOW + 10)
    assert floor.dispatch(NOW) == 0
    assert floor.lanes.next_look_in_s(NOW) == 10


def test_instance_that_is_down_waits_no_longer_when_the_clock_is_set_back(depot: Depot, floor: Floor) -> None:
    """An hour that comes twice is not waited for twice."""
    accept(depot, 10)
    bring_down(floor, NOW + 10)
    floor.dispatch(NOW - 3600)
    look_in_s = floor.lanes.next_look_in_s(NOW - 3600)
    assert look_in_s is not None
    assert look_in_s <= load(None).retry.max_delay_s


@pytest.mark.parametrize("size", [1, BULK_BYTES])
def test_instance_that_is_down_is_probed_with_one_task_at_a_time(depot: Depot, floor: Floor, size: int) -> None:
    """A hundred thousand waiting tasks cost one attempt each time, large ones as well as small ones."""
    accept(depot, 100, size=size)
    bring_down(floor, NOW - 1)
    floor.run_until(lambda: floor.running() == 1)
    assert floor.dispatch(NOW) == 0
    assert floor.lanes.runners == 1


@pytest.mark.parametrize("size", [1, BULK_BYTES])
def test_instance_that_is_down_is_probed_with_any_task_in_time(depot: Depot, size: int) -> None:
    """Where the older uploads go nothing moves, however often they are tried: the newer one gets its turn all the same."""
    accept(depot, 20, name="hangs")
    accept(depot, 1, name="well", size=size)
    lanes = Lanes(depot.queue, Outages(depot.queue), a_config(), lambda *_: None, lambda _: None)
    probed: list[str] = []
    lanes.note_down(inside(), "stalled", NOW)
    while "/well/0" not in probed:
        assert len(probed) < 1000
        assert lanes.dispatch(NOW, lambda _: True) == 1
        (task,) = lanes.note_down(inside(), "stalled", NOW)
        depot.queue.settle([Settlement(order=task.order, state=State.QUEUED)])
        probed.append(task.destination.path)
    lanes.close()


def test_instance_that_answers_gets_all_of_its_tasks(depot: Depot, floor: Floor) -> None:
    """After a probe that came through there is no waiting."""
    accept(depot, 100)
    bring_down(floor, NOW + 1000)
    assert floor.lanes.health.note_up(inside())
    assert not floor.lanes.health.note_up(inside())
    floor.run_until(lambda: floor.running() == 4)


def test_tasks_that_were_claimed_for_it_are_handed_back(depot: Depot, floor: Floor) -> None:
    """What no runner has begun waits with the others in the queue."""
    accept(depot, 20)
    floor.run_until(floor.settled)
    handed_back = bring_down(floor, NOW + 10)
    assert len(handed_back) == 20 - floor.running()
    assert lane_of(floor).busy() == floor.running()


def test_instance_is_tried_at_once_when_something_changed(depot: Depot, floor: Floor) -> None:
    """An event, or a person, ends the wait."""
    accept(depot, 10)
    bring_down(floor, NOW + 1000)
    floor.lanes.health.try_again(["local/default/c2"])
    assert floor.dispatch(NOW) == 0
    floor.lanes.health.try_again(["local/default/c1"])
    assert floor.dispatch(NOW) == 1


def test_instance_that_nothing_is_sent_to_is_forgotten(depot: Depot, floor: Floor) -> None:
    """What is known of instances does not grow for ever."""
    bring_down(floor, NOW)
    floor.dispatch(NOW + 60)
    assert len(floor.lanes.health.down()) == 1
    floor.dispatch(NOW + 86400)
    assert floor.lanes.health.down() == []


@pytest.mark.parametrize(("code", "stands_still"), [("instance_stopped", True), ("agent_down", True),
                                                    ("instance_not_found", False), ("stalled", False)])
def test_clock_of_an_instance_stands_still_while_it_has_to_be_waited_for(
    floor: Floor, code: str, stands_still: bool,
) -> None:
    """Waiting for a stopped machine makes nothing older; an instance that does not exist does."""
    bring_down(floor, NOW, code)
    began = time.monotonic()
    eventually(lambda: time.monotonic() > began + 0.02)
    assert (floor.outages.seconds(Destination("local", "default", "c1", "/")) > 0) is stands_still
    floor.lanes.health.note_up(inside())


# --- part files --------------------------------------------------------------------------------------------


def test_nothing_is_pushed_into_an_instance_while_part_files_are_removed_there(depot: Depot, floor: Floor) -> None:
    """A task that is queued again by then never loses the part file of its new attempt; other instances go on."""
    held = depot.accept("/held")
    [task] = depot.claim()
    depot.queue.settle([Settlement(order=task.order, state=State.HELD, part=True)])
    floor.sweep(held)
    floor.run_until(lambda: held.task_id in floor.pushes)
    depot.queue.change([Change(task=depot.task(held), state=State.QUEUED)])
    accept(depot, 1)
    accept(depot, 1, "other")
    floor.run_until(lambda: floor.running("other") == 1)
    assert (floor.running("c1"), depot.state(held)) == (1, State.QUEUED)
    floor.let_go()
    floor.run_until(lambda: depot.state(held) is State.DELIVERED)
    assert floor.swept == [held.task_id]


def test_part_files_of_an_instance_are_removed_once(depot: Depot, floor: Floor) -> None:
    """Those that are on their way are not handed out again."""
    uploads = [depot.accept(f"/{number}") for number in range(3)]
    floor.let_go()
    floor.lanes.health.note_up(inside())
    floor.sweep(*uploads)
    floor.sweep(*uploads)
    rows.write(depot.queue, status=State.CANCELLED)
    floor.run_until(lambda: floor.lanes.active() == [])
    assert floor.swept == [upload.task_id for upload in uploads]


@pytest.mark.parametrize("away", [True, False])
def test_part_file_waits_for_its_instance(depot: Depot, floor: Floor, away: bool) -> None:
    """Nothing is tried while the remote is away, or before the instance may be probed; then it is the probe."""
    uploads = [depot.accept(f"/{number}") for number in range(3)]
    rows.write(depot.queue, status=State.CANCELLED)
    if away:
        floor.away.add("local")
        floor.lanes.health.note_up(inside())
    else:
        floor.lanes.note_down(inside(), "instance_stopped", NOW + 10)
    floor.sweep(*uploads)
    assert floor.lanes.active() == []
    floor.away.clear()
    floor.sweep(*uploads, now=NOW + 10)
    assert lane_of(floor).busy() == (3 if away else 1)
    floor.let_go()


def test_part_files_take_no_place_of_too_many_lanes(depot: Depot) -> None:
    """However many instances have some, others get their runners."""
    floor = Floor(depot, a_config(per_worker=1))
    for number in range(10):
        floor.sweep(depot.accept(instance=f"c{number}"))
    assert len(floor.lanes.active()) == 4
    floor.close()


# --- the rest ----------------------------------------------------------------------------------------------


def test_lanes_that_hold_nothing_any_more_take_no_place(depot: Depot) -> None:
    """Lanes whose tasks were all handed back before they got a runner do not shut out other instances."""
    floor = Floor(depot, a_config(per_worker=1))
    for number in range(10):
        accept(depot, 1, f"c{number}")
    floor.run_until(lambda: floor.running() == 1)
    for lane in floor.lanes.active():
        lane.hand_back()
    depot.queue.resume(supersede=False)
    rows.write(depot.queue, status=State.CANCELLED)
    floor.let_go()
    floor.run_until(lambda: floor.lanes.runners == 0)
    assert floor.lanes.active() == []
    accept(depot, 1, "other")
    floor.run_until(lambda: depot.queue.page(states=frozenset({State.DELIVERED}), limit=1))
    floor.close()


def test_rows_for_what_is_no_instance_become_dead_letters(depot: Depot, floor: Floor) -> None:
    """Whoever writes rows by hand cannot stop the worker with them."""
    accept(depot, 3)
    [wrong] = depot.queue.rows(1, 1)
    rows.move_to(depot.queue, wrong.task_id, "no instance")
    floor.run_until(lambda: floor.running() == 2)
    found = depot.queue.row(wrong.order)
    assert found is not None
    assert (found.state, found.error_code) == (State.FAILED, "invalid_row")


def test_runner_learns_of_a_new_configuration(depot: Depot, floor: Floor) -> None:
    """A reload is for the next file, not for the next session."""
    accept(depot, 1)
    floor.lanes.configure(a_config(mode="0600"))
    floor.let_go()
    floor.run_until(lambda: floor.configs)
    assert floor.configs[0].delivery.mode == "0600"


def test_closing_hands_back_what_was_not_begun_and_waits_for_nobody(depot: Depot, floor: Floor) -> None:
    """At the end running pushes may finish, and nothing else is begun."""
    accept(depot, 20)
    floor.run_until(floor.settled)
    assert len(floor.lanes.close()) == 20 - floor.running()
    floor.lanes.stop_pushes()
    assert all(push.stopped for push in floor.pushes.values())


def test_mistake_of_a_runner_is_told(depot: Depot) -> None:
    """A runner that dies of a mistake is reaped like any other, with the mistake."""
    ended: list[RunnerEnded] = []

    def run(*_: object) -> None:
        raise ZeroDivisionError

    lanes = Lanes(depot.queue, Outages(depot.queue), a_config(), run, ended.append)
    accept(depot, 1)
    lanes.dispatch(NOW, lambda _remote: True)
    eventually(lambda: ended)
    lane, mistake = lanes.reap(ended[0])
    assert isinstance(mistake, ZeroDivisionError)
    assert lane.runners == 0
