"""What people who ask for something, and the worker that does it, can rely on."""

import time
from dataclasses import replace

import pytest

from daemon.model.task import State
from daemon.task_queue import Change, Command, CommandAnswer, Selection, TaskQueue
from tests.support.depot import an_upload, sealed
from tests.unit.daemon.conformance.doors import (
    KEY,
    LATER_S,
    QueueStore,
    accept,
    bring,
    claim,
    ids,
    several,
    state_of,
    task_of,
)


def test_commands_are_kept_in_the_order_in_which_they_were_given(queues: QueueStore, queue: TaskQueue) -> None:
    """Each has a number, and is there until it is answered."""
    selection = Selection(instance_key=KEY, states=(State.FAILED,), accepted_before=7.0, up_to_order=9)
    given = [Command(verb="hold", task_id="a", asked_by="me"), Command(verb="retry", force=True, selection=selection)]
    numbers = queue.ask(given)
    queues.close()
    queue = queues.open()
    found = queue.commands(9)
    assert [command.number for command in found] == numbers
    assert [replace(command, number=0, asked_at=0.0) for command in found] == given
    assert [command.number for command in queue.commands(1)] == numbers[:1]
    assert queue.pending_commands() == 2


def test_answers_add_up_and_the_first_reason_stays(queue: TaskQueue) -> None:
    """A command about many tasks is answered in slices."""
    [number] = queue.ask([Command(verb="retry", selection=Selection())])
    queue.change([], [CommandAnswer(number=number, changed=2, done=False),
                      CommandAnswer(number=number, refused=1, reason="first", done=False)])
    assert not queue.answers([number])[number].done
    queue.change([], [CommandAnswer(number=number, refused=1, reason="second")])
    assert queue.answers([number, number + 99]) == {
        number: CommandAnswer(number=number, changed=2, refused=2, reason="first", done=True)}
    assert (queue.commands(9), queue.pending_commands()) == ([], 0)


def test_whoever_does_not_know_whether_he_asked_finds_out(queues: QueueStore, queue: TaskQueue) -> None:
    """Commands are found by their exact time and name, answered or not, as long as they are known."""
    given = [Command(verb="hold", task_id=task, asked_by=by, asked_at=at)
             for task, by, at in (("a", "me", 7.1), ("b", "me", 7.1), ("c", "you", 7.1), ("d", "me", 7.2))]
    numbers = queue.ask([*given, Command(verb="hold", selection=Selection(), asked_by="me", asked_at=7.1)])
    queue.change([], [CommandAnswer(number=numbers[0])])
    assert queue.asked(7.1, "me") == queues.open_intake().asked(7.1, "me") == dict(zip("ab", numbers, strict=False))
    assert queue.asked(7.3, "me") == {}


def test_answers_are_forgotten_and_open_commands_are_not(queue: TaskQueue) -> None:
    """Nobody asks for an old answer any more."""
    done, waiting = queue.ask([Command(verb="retry", task_id="a"), Command(verb="hold", task_id="b")])
    queue.change([], [CommandAnswer(number=done)])
    queue.forget_answers(time.time() - 100)
    assert set(queue.answers([done, waiting])) == {done, waiting}
    queue.forget_answers(LATER_S)
    assert set(queue.answers([done, waiting])) == {waiting}


def test_selection_goes_through_a_state_in_pages(queue: TaskQueue) -> None:
    """Each page goes on where the last one ended, and the end is told."""
    uploads = accept(queue, *several(5))
    bring(queue, an_upload("/held"), State.HELD)
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        tasks, after = queue.select(Selection(instance_key=KEY), State.QUEUED, after, 2)
        seen += [task.task_id for task in tasks]
    assert seen == ids(uploads)


def test_selection_is_of_what_was_there_and_is_old_enough(queue: TaskQueue) -> None:
    """Neither what came after the command nor what is too young is meant, nor what another client sent."""
    [old] = accept(queue, an_upload("/old", task_id="01000000-0000-7000-8000-000000000000"))
    order = queue.newest_order()
    [new] = accept(queue, an_upload("/new", instance="c2", client="token:a"))

    def chosen(selection: Selection) -> list[str]:
        return [task.task_id for task in queue.select(selection, State.QUEUED, "", 9)[0]]

    assert chosen(Selection()) == ids([old, new])
    assert chosen(Selection(up_to_order=order)) == chosen(Selection(accepted_before=time.time() - 60)) == [old.task_id]
    assert chosen(Selection(instance_key="local/default/c2")) == chosen(Selection(client="token:a")) == [new.task_id]
    assert chosen(Selection(instance_key="local/default/c2", client="token:a")) == [new.task_id]
    assert chosen(Selection(client="token:b")) == chosen(Selection(instance_key=KEY, client="token:a")) == []


def test_change_is_not_made_when_the_task_has_left_its_state(queue: TaskQueue) -> None:
    """What was decided about one state does not happen to another."""
    [upload] = accept(queue, an_upload())
    task = task_of(queue, upload)
    claim(queue)
    assert queue.change([Change(task=task, state=State.HELD)]) == 0
    assert state_of(queue, upload) is State.PUSHING


def test_retried_dead_letter_begins_anew(queue: TaskQueue) -> None:
    """After a person's retry it has all its attempts and its whole time again."""
    upload = bring(queue, an_upload(created_at=1000.0), State.FAILED)
    queue.change([Change(task=task_of(queue, upload), state=State.QUEUED)])
    task = task_of(queue, upload)
    assert (task.attempts, task.age_base > 1e9) == (0, True)


def test_forced_task_comes_after_what_overtook_it(queue: TaskQueue) -> None:
    """It counts as accepted just now, and what is accepted next counts as newer."""
    older = bring(queue, an_upload("/f"), State.FAILED)
    [newer] = accept(queue, an_upload("/f"))
    target = older.destination.digest
    assert queue.newer_exists(target, task_of(queue, older).order)
    queue.change([Change(task=task_of(queue, older), state=State.QUEUED, anew=True)])
    assert not queue.newer_exists(target, task_of(queue, older).order)
    assert claim(queue) == [newer.task_id]
    assert queue.put_many(sealed(an_upload("/f")), supersede=True)[0].superseded == {older.task_id: None}


@pytest.mark.parametrize("cleared", [True, False])
def test_newer_upload_is_remembered_as_long_as_an_older_one_is_there(queue: TaskQueue, cleared: bool) -> None:
    """Also when it is finished and forgotten: it is known that the path has moved on."""
    older, newer = (bring(queue, an_upload("/f"), state) for state in (State.FAILED, State.DELIVERED))
    if cleared:
        queue.unspool([task_of(queue, newer).order])
        assert queue.clear_finished(LATER_S, 0, 9) == 1
    assert queue.newer_exists(older.destination.digest, task_of(queue, older).order)
    assert not queue.newer_exists(an_upload("/g").destination.digest, 0)


def test_deleted_task_is_forgotten_with_its_key(queue: TaskQueue) -> None:
    """The same upload with the same key is another one then."""
    upload, again = (an_upload(idempotency_key="k") for _ in range(2))
    bring(queue, upload, State.CANCELLED)
    queue.delete_rows([task_of(queue, upload).order])
    assert queue.find(upload.task_id) is None
    assert queue.instance_keys("", 9) == []
    assert queue.put_many(sealed(again), supersede=True)[0].task_id == again.task_id
