"""What people did is kept, from the moment when they asked for it."""

import time

from daemon.model.action_id import new_action_id
from daemon.model.task import State
from daemon.task_queue import ActionRecord, Command, CommandAnswer, Intake, Selection, TaskQueue
from tests.unit.daemon.conformance.doors import LATER_S, QueueStore


def told(action: ActionRecord) -> tuple[object, ...]:
    """What is said of an action, without its times."""
    return action.by, action.verb, action.what, action.tasks, action.changed, action.refused, action.done_at is not None


def test_what_is_asked_is_an_action_with_its_answer(queues: QueueStore) -> None:
    """As soon as it is asked, for whoever looks, and after a restart."""
    intake, queue = queues.open_intake(), queues.open()
    [number] = intake.ask([Command(verb="retry", task_id="a", asked_by="token:ci", asked_at=1e9)])
    [waiting] = intake.actions(None, 9)
    assert (waiting.at, *told(waiting)) == (1e9, "token:ci", "retry", {"task_id": "a"}, 1, 0, 0, False)
    queue.change([], [CommandAnswer(number=number, changed=1)])
    queues.close()
    [done] = queues.open().actions(None, 9)
    assert told(done) == ("token:ci", "retry", {"task_id": "a"}, 1, 1, 0, True)
    assert done.action_id == waiting.action_id


def test_all_commands_of_an_action_are_one_that_is_done_when_they_are(queue: TaskQueue) -> None:
    """Also when they are asked for in several batches."""
    action_id = new_action_id(time.time())

    def ask(*tasks: str) -> list[int]:
        return queue.ask([Command(verb="hold", task_id=task, asked_by="me", action_id=action_id, selection_id="5e1")
                          for task in tasks])

    first, second = ask("a", "b")
    queue.change([], [CommandAnswer(number=first, changed=1)])
    assert told(queue.actions(None, 9)[0]) == ("me", "hold", {"selection": "5e1"}, 2, 1, 0, False)
    queue.change([], [CommandAnswer(number=second, refused=1, reason="no")])
    assert told(queue.actions(None, 9)[0])[-1] is True
    [third] = ask("c")
    assert told(queue.actions(None, 9)[0]) == ("me", "hold", {"selection": "5e1"}, 3, 1, 1, False)
    queue.change([], [CommandAnswer(number=third, changed=1)])
    [action] = queue.actions(None, 9)
    assert told(action) == ("me", "hold", {"selection": "5e1"}, 3, 2, 1, True)


def test_tasks_that_a_filter_means_are_counted_as_they_are_worked_off(queue: TaskQueue) -> None:
    """How many there are is not known before."""
    [number] = queue.ask([Command(verb="retry", selection=Selection(instance_key="i", states=(State.FAILED,)))])
    queue.change([], [CommandAnswer(number=number, changed=2, done=False)])
    queue.change([], [CommandAnswer(number=number, refused=1, reason="why")])
    [action] = queue.actions(None, 9)
    assert told(action) == ("", "retry", {"filter": {"instance_key": "i", "states": ["failed"]}}, 3, 2, 1, True)


def test_actions_come_newest_first_in_pages_and_by_name(intake: Intake) -> None:
    """`before` is the last id of the page before."""
    for number in range(5):
        intake.ask([Command(verb="hold", task_id=str(number), asked_by=f"{number % 2}", asked_at=1e9 + number)])
    seen = [action.task_id for action in intake.actions(None, 3)]
    last = intake.actions(None, 3)[-1].action_id
    assert seen + [action.task_id for action in intake.actions(last, 9)] == list("43210")
    assert [action.task_id for action in intake.actions(None, 9, "1")] == ["3", "1"]
    assert [action.task_id for action in intake.actions(last, 1, "0")] == ["0"]


def test_old_actions_are_forgotten_and_those_that_are_too_many(queue: TaskQueue) -> None:
    """A little at a time, the oldest first."""
    for number in range(6):
        queue.ask([Command(verb="hold", task_id=str(number), asked_at=1e9 + number)])
    assert queue.forget_actions(1e9 + 2, 99, 1) == 1
    assert queue.forget_actions(1e9 + 2, 99, 99) == 1
    assert queue.forget_actions(0, 3, 99) == 1
    assert [action.task_id for action in queue.actions(None, 9)] == ["5", "4", "3"]
    assert queue.forget_actions(LATER_S, 99, 99) == 3


def test_parts_of_an_action_in_two_shards_add_up() -> None:
    """It is done when both are, and was done when the later one was."""
    first = ActionRecord(action_id="a", at=2.0, by="me", verb="hold", selection_id="s", tasks=1, changed=1, done_at=5.0)
    second = ActionRecord(action_id="a", at=1.0, by="me", verb="hold", selection_id="s", tasks=4, refused=3)
    both = first + second
    assert (both.at, both.tasks, both.changed, both.refused, both.done_at) == (1.0, 5, 1, 3, None)
    assert (first + first).done_at == 5.0
