import threading
from collections.abc import Callable

import pytest

from daemon.model.task import State, Task
from daemon.model.upload import Destination
from daemon.task_queue import BULK_BYTES
from tests.support.depot import an_upload
from tests.support.lanes import take_one
from tests.support.waiting import eventually
from worker.dispatch.lane import Lane, Push

#: Longer than any test waits.
LONG_S = 60.0


@pytest.fixture
def lane() -> Lane:
    """A lane that may push two bulky files at once."""
    return Lane(Destination("local", "default", "c1", "/"), most_bulk=2)


def a_task(path: str = "/x", size: int = 1) -> Task:
    """A claimed task."""
    return Task(order=1, upload=an_upload(path, size=size), state=State.PUSHING)


def small(number: int) -> list[Task]:
    """So many small tasks."""
    return [a_task(f"/small/{index}") for index in range(number)]


def bulky(number: int) -> list[Task]:
    """So many bulky tasks."""
    return [a_task(f"/bulky/{index}", BULK_BYTES) for index in range(number)]


class Taker:
    """A thread that waits for a task."""

    def __init__(self, lane: Lane) -> None:
        self.taken: list[list[Push]] = []
        self._thread = threading.Thread(target=lambda: self.taken.append(lane.take(LONG_S, most=4, turn_over=False)))
        self._thread.start()

    def wakes_when(self, happens: Callable[[], object]) -> list[Push]:
        """What the thread has got after something happens."""
        assert self.taken == []
        happens()
        self._thread.join(LONG_S)
        assert not self._thread.is_alive()
        return self.taken[0]


def test_small_tasks_are_taken_together_up_to_what_may_be_pushed_at_once(lane: Lane) -> None:
    """In their order; what is being pushed counts."""
    tasks = small(6)
    lane.add(tasks)
    first = lane.take(0, most=4, turn_over=False)
    assert [push.task for push in first] == tasks[:4]
    assert lane.take(0, most=4, turn_over=False) == []
    lane.done(first[0], abandoned=False)
    assert [push.task for push in lane.take(0, most=4, turn_over=False)] == tasks[4:5]


def test_bulky_file_goes_alone_and_small_ones_leave_it_a_place(lane: Lane) -> None:
    """A runner that has taken all small ones leaves the next one something to do."""
    lane.add(small(10))
    lane.add(bulky(1))
    assert [push.bulk for push in lane.take(0, most=4, turn_over=False)] == [True]
    [push, *_] = pushes = lane.take(0, most=4, turn_over=False)
    assert len(pushes) == 3
    lane.add(bulky(1))
    lane.done(push, abandoned=False)
    assert not lane.take(0, most=4, turn_over=False)[0].bulk


def test_bulky_file_does_not_wait_for_ever_behind_small_ones(lane: Lane) -> None:
    """A place is kept for it as soon as there is one."""
    lane.add(small(8))
    first = lane.take(0, most=4, turn_over=False)
    lane.add(bulky(1))
    lane.done(first[0], abandoned=False)
    assert [push.bulk for push in lane.take(0, most=4, turn_over=False)] == [True]
    for push in first[1:]:
        lane.done(push, abandoned=False)
    assert len(lane.take(0, most=4, turn_over=False)) == 3


def test_lane_is_low_when_little_is_left_and_the_queue_has_more(lane: Lane) -> None:
    """The main loop says how little; without more in the queue there is nothing to say."""
    lane.add(small(3))
    assert not lane.is_low()
    lane.low_at = 1
    assert [lane.is_low(), take_one(lane) is None, lane.is_low(), take_one(lane) is None, lane.is_low()] == [
        False, False, False, False, True]


def test_tasks_are_taken_in_their_order(lane: Lane) -> None:
    """First in, first out."""
    tasks = small(3)
    lane.add(tasks)
    assert [push.task for push in (take_one(lane), take_one(lane), take_one(lane)) if push] == tasks
    assert take_one(lane) is None


def test_bulky_files_never_take_all_runners(lane: Lane) -> None:
    """However many large files wait, only so many are pushed at once; small ones go on."""
    lane.add(bulky(5))
    assert [take_one(lane) is not None for _ in range(3)] == [True, True, False]
    lane.add(small(1))
    push = take_one(lane)
    assert push is not None
    assert not push.bulk


def test_bulky_file_that_is_done_makes_room_for_the_next(lane: Lane) -> None:
    """The limit is on what is being pushed."""
    lane.add(bulky(3))
    first, _ = take_one(lane), take_one(lane)
    assert first is not None
    lane.done(first, abandoned=False)
    assert take_one(lane) is not None


def test_one_bulky_file_is_pushed_beside_any_number_of_small_ones(lane: Lane) -> None:
    """Small files do not starve large ones either."""
    lane.add(small(10))
    lane.add(bulky(2))
    taken = [push.bulk for push in (take_one(lane), take_one(lane), take_one(lane)) if push]
    assert taken == [True, False, False]


def test_runner_waits_for_a_task_and_gets_it_at_once(lane: Lane) -> None:
    """A session that is open is used for what comes in a moment later."""
    [task] = small(1)
    [push] = Taker(lane).wakes_when(lambda: lane.add([task]))
    assert push.task is task


def test_idle_runner_ends_at_once_when_another_lane_waits(lane: Lane) -> None:
    """A runner that lingers does not keep another instance waiting."""
    assert Taker(lane).wakes_when(lambda: lane.give_way(True)) == []


def test_busy_runner_makes_way_after_its_turn_only(lane: Lane) -> None:
    """It goes on with what waits until its turn is over, and no longer."""
    lane.add(small(2))
    lane.give_way(True)
    assert lane.take(0, most=1, turn_over=False)
    assert not lane.take(0, most=2, turn_over=True)
    lane.give_way(False)
    assert lane.take(0, most=2, turn_over=True)


def test_runners_end_when_the_lane_is_closed(lane: Lane) -> None:
    """Nothing more is begun after that."""
    assert Taker(lane).wakes_when(lane.close) == []
    lane.add(small(1))
    assert take_one(lane) is None


def test_hand_back_gives_what_no_runner_has_begun(lane: Lane) -> None:
    """What is being pushed stays with its runner."""
    tasks = [*small(2), *bulky(1)]
    lane.add(tasks)
    push = take_one(lane)
    assert push is not None
    assert [task.task_id for task in lane.hand_back()] == [task.task_id for task in tasks if task is not push.task]
    assert (lane.busy(), lane.waiting(bulk=False), lane.waiting(bulk=True), lane.bulky()) == (1, 0, 0, int(push.bulk))


def test_take_back_is_of_one_task_that_is_not_begun(lane: Lane) -> None:
    """Once, and not from a runner."""
    tasks = small(2)
    lane.add(tasks)
    push = take_one(lane)
    assert push is not None
    assert not lane.take_back(push.task.task_id)
    assert lane.take_back(tasks[1].task_id)
    assert not lane.take_back(tasks[1].task_id)
    assert lane.busy() == 1


def test_interruption_reaches_the_push_that_is_meant(lane: Lane) -> None:
    """Others go on; one that is over already is no error."""
    tasks = small(2)
    lane.add(tasks)
    first, second = take_one(lane), take_one(lane)
    assert first is not None
    assert second is not None
    lane.interrupt(first.task.task_id, cancelled=True)
    lane.interrupt("unknown", cancelled=True)
    assert (first.cancelled, first.stopped, second.cancelled, second.stopped) == (True, True, False, False)


def test_stop_reaches_every_push(lane: Lane) -> None:
    """When time is up everything ends before its rename, and nothing counts as cancelled."""
    lane.add(small(2))
    pushes = [take_one(lane), take_one(lane)]
    lane.stop()
    assert [(push.stopped, push.cancelled) for push in pushes if push] == [(True, False)] * 2


def test_abandoned_tasks_are_given_out_once(lane: Lane) -> None:
    """What a runner was pushing when it made a mistake is settled by the main loop."""
    lane.add(small(1))
    push = take_one(lane)
    assert push is not None
    lane.done(push, abandoned=True)
    assert lane.abandoned() == [push]
    assert lane.abandoned() == []
    eventually(lambda: lane.busy() == 0)


def test_part_files_are_removed_one_after_the_other_whatever_their_size(lane: Lane) -> None:
    """Sweeping up after a large file takes as long as after a small one; until all is done the lane says so."""
    assert not lane.sweeping()
    lane.sweep([*bulky(3), *small(1)])
    assert (lane.bulky(), lane.busy()) == (0, 4)
    [first] = lane.take(0, most=4, turn_over=False)
    lane.done(first, abandoned=False)
    while lane.busy():
        push = take_one(lane)
        assert push is not None
        assert push.sweep
        assert lane.sweeping()
        lane.done(push, abandoned=False)
    assert not lane.sweeping()


def test_part_files_are_no_tasks_that_could_be_handed_back(lane: Lane) -> None:
    """They are looked for again when the instance is up."""
    tasks = small(2)
    lane.add(tasks[:1])
    lane.sweep(tasks[1:])
    assert lane.hand_back() == tasks[:1]
    assert (lane.busy(), lane.sweeping()) == (0, False)
