"""What people change: one task, or all that they select."""

import time
from dataclasses import replace

import pytest

from daemon.model.task import State
from daemon.task_queue import Change, Command, CommandAnswer, Selection
from tests.support.depot import Depot

KEY = "local/default/c1"


def test_change_is_not_made_when_the_task_has_left_its_state(depot: Depot) -> None:
    """What was decided about one state does not happen to another."""
    upload = depot.accept("/f")
    task = depot.task(upload)
    depot.accept("/f")
    assert depot.state(upload) is State.SUPERSEDED
    assert depot.queue.change([Change(task=task, state=State.HELD)]) == 0
    assert depot.state(upload) is State.SUPERSEDED


def test_retried_task_begins_anew(depot: Depot) -> None:
    """After a person's retry it has all its attempts and its whole time again."""
    upload = depot.accept(created_at=1000.0)
    depot.settle(upload, State.FAILED)
    depot.queue.change([Change(task=depot.task(upload), state=State.QUEUED)])
    task = depot.task(upload)
    assert task.attempts == 0
    assert task.age_base > 1e9


def test_forced_task_comes_after_what_overtook_it(depot: Depot) -> None:
    """It counts as accepted just now, so that neither a crash nor another failure takes the person's word back."""
    older = depot.failed("/f")
    newer = depot.accept("/f")
    depot.queue.change([Change(task=depot.task(older), state=State.QUEUED, anew=True)])
    assert depot.task(older).order > depot.task(newer).order
    assert not depot.queue.newer_exists(older.destination.digest, depot.task(older).order)
    assert [task.task_id for task in depot.claim()] == [newer.task_id]
    depot.reopen()
    depot.queue.resume(supersede=True)
    assert depot.state(older) is State.QUEUED
    assert depot.state(newer) is State.SUPERSEDED


def test_forced_task_makes_way_for_the_next_upload(depot: Depot) -> None:
    """What is accepted after a forced retry is newer than it."""
    older = depot.failed("/f")
    depot.queue.change([Change(task=depot.task(older), state=State.QUEUED, anew=True)])
    latest = depot.accept("/f")
    assert depot.task(latest).order > depot.queue.newest_order() - 1
    assert depot.state(older) is State.SUPERSEDED


def test_newer_upload_is_remembered_after_its_row_is_cleared(depot: Depot) -> None:
    """As long as an older dead letter is there, it is known that its path has moved on."""
    older = depot.failed("/f")
    newer = depot.accept("/f")
    depot.settle(newer, State.DELIVERED)
    depot.queue.unspool([depot.task(newer).order])
    depot.queue.clear_finished(time.time() + 1, 0, 10)
    assert depot.queue.find(newer.task_id) is None
    assert depot.queue.newer_exists(older.destination.digest, depot.task(older).order)


def test_commands_come_in_the_order_in_which_they_were_given(depot: Depot) -> None:
    """Each has a number, and is there until it is answered."""
    given = [Command(verb="hold", task_id="a", asked_by="me"), Command(verb="retry", force=True, selection=Selection(
        instance_key=KEY, states=(State.FAILED, State.DEFERRED), accepted_before=7.0, up_to_order=9))]
    numbers = depot.queue.ask(given)
    depot.reopen()
    found = depot.queue.commands(10)
    assert [command.number for command in found] == numbers
    assert [replace(command, number=0, asked_at=0.0) for command in found] == given
    assert depot.queue.pending_commands() == 2


def test_answers_add_up_and_the_first_reason_stays(depot: Depot) -> None:
    """A command about many tasks is answered in slices."""
    [number] = depot.queue.ask([Command(verb="retry", selection=Selection())])
    depot.queue.change([], [CommandAnswer(number=number, changed=2, done=False),
                            CommandAnswer(number=number, refused=1, reason="first", done=False)])
    assert not depot.queue.answers([number])[number].done
    depot.queue.change([], [CommandAnswer(number=number, refused=1, reason="second")])
    assert depot.queue.answers([number, 99]) == {
        number: CommandAnswer(number=number, changed=2, refused=2, reason="first", done=True)}
    assert depot.queue.commands(10) == []


def test_answers_are_forgotten_after_a_while(depot: Depot) -> None:
    """Only commands that were done go."""
    done, open_ = depot.queue.ask([Command(verb="retry", task_id="a"), Command(verb="hold", task_id="b")])
    depot.queue.change([], [CommandAnswer(number=done)])
    depot.queue.forget_answers(time.time() - 100)
    assert set(depot.queue.answers([done, open_])) == {done, open_}
    depot.queue.forget_answers(time.time() + 100)
    assert set(depot.queue.answers([done, open_])) == {open_}


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"states": 7}', '{"states": [99]}', '{"surprise": 1, "states": []}'])
def test_command_that_cannot_be_read_has_no_verb(depot: Depot, text: str) -> None:
    """A damaged command is refused by name, and stops nothing."""
    depot.queue.ask([Command(verb="cancel", selection=Selection())])
    depot.queue.durable.execute("UPDATE commands SET filter = ?", (text,))
    assert [command.verb for command in depot.queue.commands(10)] == [""]


def test_selection_goes_through_a_state_in_pages(depot: Depot) -> None:
    """Each page goes on where the last one ended, and the end is told."""
    uploads = [depot.accept(f"/{number}") for number in range(5)]
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        tasks, after = depot.queue.select(Selection(instance_key=KEY), State.QUEUED, after, 2)
        seen += [task.task_id for task in tasks]
    assert seen == [upload.task_id for upload in uploads]


def test_selection_is_of_what_was_there_and_is_old_enough(depot: Depot) -> None:
    """Neither what came after the command nor what is too young is meant."""
    old = depot.accept("/old", task_id="01000000-0000-7000-8000-000000000000")
    order = depot.queue.newest_order()
    depot.accept("/new")

    def chosen(selection: Selection) -> list[str]:
        return [task.task_id for task in depot.queue.select(selection, State.QUEUED, "", 10)[0]]

    assert chosen(Selection(up_to_order=order)) == [old.task_id]
    assert chosen(Selection(accepted_before=time.time() - 60)) == [old.task_id]
    assert chosen(Selection(accepted_before=0.0)) == []
    assert len(chosen(Selection())) == 2
