from collections.abc import Iterable
from typing import Any

import pytest

from daemon import failpoints
from daemon.errors import QueueFault
from daemon.model.task import FINISHED, TRANSITIONS, State
from daemon.model.upload import Destination, Upload
from daemon.model.verbs import VERBS
from daemon.spool import Mark
from daemon.task_queue import Command, CommandAnswer, Selection
from tests.support import rows
from tests.support.depot import Depot, new_id
from tests.support.lanes import take_one
from worker.dispatch.commands import Commands, Forget, Refused, decide, states_of
from worker.dispatch.lane import Lane

KEY = "local/default/c1"


class OneLane:
    """The lanes of a worker with one instance."""

    def __init__(self) -> None:
        self.only = Lane(Destination("local", "default", "c1", "/"), most_bulk=1)
        self.tried: list[str] = []

    def find(self, _destination: Destination) -> Lane:
        """The lane to every instance."""
        return self.only

    @property
    def health(self) -> "OneLane":
        """What is known of the instance."""
        return self

    def try_again(self, keys: Iterable[str]) -> None:
        """Note which instances are to be tried."""
        self.tried += keys


@pytest.fixture
def lanes() -> Any:
    """The worker's lanes."""
    return OneLane()


@pytest.fixture
def commands(depot: Depot, lanes: Any) -> Commands:
    """What works off commands."""
    return Commands(depot.queue, depot.spool, lanes)


def ask(depot: Depot, commands: Commands, verb: str, *uploads: Upload, force: bool = False) -> list[CommandAnswer]:
    """Ask for something about tasks, have it done, and return the answers."""
    numbers = depot.queue.ask([Command(verb=verb, task_id=upload.task_id, force=force) for upload in uploads])
    while commands.work():
        pass
    answers = depot.queue.answers(numbers)
    return [answers[number] for number in numbers]


def mark_of(depot: Depot, upload: Upload) -> Mark | None:
    """What the name of an upload's file says."""
    [mark] = [name.mark for name in depot.spool.scan(upload.destination.bucket) if name.task_id == upload.task_id]
    return mark


# --- deciding ----------------------------------------------------------------------------------------------

APPLIES = {
    ("retry", State.FAILED): State.QUEUED, ("retry", State.DEFERRED): State.QUEUED,
    ("cancel", State.QUEUED): State.CANCELLED, ("cancel", State.PUSHING): State.CANCELLED,
    ("cancel", State.DEFERRED): State.CANCELLED, ("cancel", State.HELD): State.CANCELLED,
    ("hold", State.QUEUED): State.HELD, ("hold", State.PUSHING): State.HELD, ("hold", State.DEFERRED): State.HELD,
    ("release", State.HELD): State.QUEUED, ("delete", State.FAILED): State.CANCELLED,
    ("flush", State.DEFERRED): State.QUEUED,
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("state", State)
def test_verb_applies_to_its_states_and_no_others(verb: str, state: State) -> None:
    """Where a verb does not apply it says to which state it was asked to."""
    decision = decide(verb, state, newer_exists=False, force=False)
    if (verb, state) in APPLIES:
        assert decision is APPLIES[verb, state]
    elif verb == "delete" and state in FINISHED:
        assert decision == Refused("its bytes are not gone yet; try again in a moment")
        assert decide(verb, state, newer_exists=False, force=False, spooled=False) == Forget()
    else:
        assert isinstance(decision, Refused)
        assert decision.reason.startswith(f"cannot {verb} a task that is {state.label}")


@pytest.mark.parametrize(("verb", "state"), APPLIES)
def test_verb_leads_along_an_edge_of_the_table(verb: str, state: State) -> None:
    """People cannot do what the state machine does not know."""
    assert VERBS[verb][state] in TRANSITIONS[state]


@pytest.mark.parametrize(("verb", "state"), [("retry", State.FAILED), ("release", State.HELD)])
def test_overtaken_task_needs_force(verb: str, state: State) -> None:
    """Bytes go over newer ones only when that is said."""
    assert isinstance(decide(verb, state, newer_exists=True, force=False), Refused)
    assert decide(verb, state, newer_exists=True, force=True) is State.QUEUED


@pytest.mark.parametrize(("verb", "state"), [("retry", State.DEFERRED), ("flush", State.DEFERRED), ("cancel", State.HELD)])
def test_overtaken_task_needs_no_force_where_nothing_is_revived(verb: str, state: State) -> None:
    """A task that is to be pushed anyway keeps its place before the newer one."""
    assert isinstance(decide(verb, state, newer_exists=True, force=False), State)


@pytest.mark.parametrize(("verb", "states", "looked_at"), [
    ("retry", (), {State.FAILED, State.DEFERRED}), ("retry", (State.FAILED, State.DELIVERED), {State.FAILED}),
    ("retry", (State.DELIVERED,), set()), ("delete", (), {State.FAILED}),
    ("delete", (State.DELIVERED, State.QUEUED), {State.DELIVERED}), ("release", (), {State.HELD}),
])
def test_selection_looks_at_states_in_which_the_verb_applies(
    verb: str, states: tuple[State, ...], looked_at: set[State],
) -> None:
    """A million delivered tasks are not gone through to be refused one by one."""
    assert set(states_of(Command(verb=verb, selection=Selection(states=states)))) == looked_at


# --- doing -------------------------------------------------------------------------------------------------


def test_commands_about_one_task_are_done_in_their_order(depot: Depot, commands: Commands) -> None:
    """Each sees what the one before it did."""
    upload = depot.accept()
    depot.queue.ask([Command(verb=verb, task_id=upload.task_id) for verb in ("hold", "release", "hold")])
    while commands.work():
        pass
    assert depot.state(upload) is State.HELD
    assert depot.queue.pending_commands() == 0


def test_commands_by_id_and_by_kind_are_done_in_their_order(depot: Depot, commands: Commands) -> None:
    """What was asked for later does not come first because it is about one task."""
    upload = depot.accept()
    depot.queue.ask([Command(verb="hold", selection=Selection(instance_key=KEY)),
                     Command(verb="release", task_id=upload.task_id)])
    while commands.work():
        pass
    assert depot.state(upload) is State.QUEUED


def test_unknown_task_and_unknown_verb_are_answered(depot: Depot, commands: Commands) -> None:
    """Every command gets an answer, and the next one is done."""
    upload = depot.accept()
    numbers = depot.queue.ask([Command(verb="hold", task_id=new_id()), Command(verb="sing", task_id=upload.task_id),
                               Command(verb="hold"), Command(verb="hold", task_id=upload.task_id)])
    while commands.work():
        pass
    answers = depot.queue.answers(numbers)
    assert [answers[number].reason for number in numbers] == [
        "there is no such task", "there is no such command", "there is no such task", None]
    assert depot.state(upload) is State.HELD


def test_damaged_row_is_refused_and_stops_nothing(depot: Depot, commands: Commands) -> None:
    """A worker does not die of a command about a row that it cannot read."""
    damaged, well = depot.accept("/a"), depot.accept("/b")
    rows.damage(depot.queue, damaged.task_id)
    refused, done = ask(depot, commands, "cancel", damaged, well)
    assert (refused.refused, done.changed) == (1, 1)


def test_marks_follow_what_people_decide(depot: Depot, commands: Commands) -> None:
    """A rebuild of the queue revives neither held uploads nor dead letters, but what was released or retried."""
    upload, failed = depot.accept("/a"), depot.failed("/b")
    depot.spool.mark(failed, Mark.FAILED)
    ask(depot, commands, "hold", upload)
    assert mark_of(depot, upload) is Mark.HELD
    ask(depot, commands, "release", upload)
    ask(depot, commands, "retry", failed)
    assert (mark_of(depot, upload), mark_of(depot, failed)) == (Mark.PENDING, Mark.PENDING)


def test_mark_that_cannot_be_made_stops_nothing(depot: Depot, commands: Commands) -> None:
    """The row decides; a name that a broken disk does not take is only logged."""
    upload = depot.accept()
    failpoints.arm("spool.mark=EIO")
    [answer] = ask(depot, commands, "hold", upload)
    failpoints.arm("")
    assert answer.changed == 1
    assert depot.state(upload) is State.HELD


def test_selection_of_many_is_worked_off_in_slices_and_counted(depot: Depot, commands: Commands) -> None:
    """A turn does a slice, the answer adds up, and every selected task is reached once."""
    uploads = [depot.accept(f"/{number}") for number in range(450)]
    [number] = depot.queue.ask([Command(verb="hold", selection=Selection(instance_key=KEY))])
    turns = 0
    while commands.work():
        turns += 1
    assert turns >= 3
    assert depot.queue.answers([number])[number] == CommandAnswer(number=number, changed=450)
    assert {depot.state(upload) for upload in uploads} == {State.HELD}


def test_selection_is_taken_up_again_by_the_next_worker(depot: Depot, lanes: Any) -> None:
    """What a killed worker left undone of it is done."""
    for number in range(450):
        depot.accept(f"/{number}")
    depot.queue.ask([Command(verb="hold", selection=Selection(instance_key=KEY))])
    Commands(depot.queue, depot.spool, lanes).work()
    depot.reopen()
    again = Commands(depot.queue, depot.spool, lanes)
    while again.work():
        pass
    assert {task.state for task in depot.queue.page(limit=1000)} == {State.HELD}


def test_selection_that_means_nothing_is_refused(depot: Depot, commands: Commands) -> None:
    """A verb that applies to none of the states says so once."""
    [number] = depot.queue.ask([Command(verb="retry", selection=Selection(states=(State.DELIVERED,)))])
    while commands.work():
        pass
    assert depot.queue.answers([number])[number].reason == "retry does not apply to tasks in these states"


def test_retry_and_flush_probe_the_instance_at_once(depot: Depot, commands: Commands, lanes: Any) -> None:
    """What a person wants tried now does not wait for the next probe of an instance that is down."""
    upload = depot.accept()
    depot.settle(upload, State.DEFERRED, due_at=4e9)
    depot.queue.ask([Command(verb="flush", selection=Selection(instance_key=KEY, states=(State.DEFERRED,)))])
    while commands.work():
        pass
    assert KEY in lanes.tried
    assert depot.state(upload) is State.QUEUED


# --- tasks that were claimed -------------------------------------------------------------------------------


def test_claimed_task_that_no_runner_has_begun_is_taken_back(depot: Depot, commands: Commands, lanes: Any) -> None:
    """It is cancelled at once, and no runner gets it any more."""
    upload = depot.accept()
    lanes.only.add(depot.claim())
    ask(depot, commands, "cancel", upload)
    assert depot.state(upload) is State.CANCELLED
    assert take_one(lanes.only) is None


def test_task_that_was_taken_back_is_not_lost_when_the_queue_cannot_be_written(
    depot: Depot, commands: Commands, lanes: Any,
) -> None:
    """The command is done in a later turn: neither it nor the task is forgotten."""
    upload = depot.accept()
    lanes.only.add(depot.claim())
    depot.queue.ask([Command(verb="hold", task_id=upload.task_id)])
    failpoints.arm("queue.settle=EIO")
    with pytest.raises(QueueFault):
        commands.work()
    failpoints.arm("")
    assert depot.state(upload) is State.PUSHING
    while commands.work():
        pass
    assert depot.state(upload) is State.HELD


@pytest.mark.parametrize("verb", ["cancel", "hold"])
def test_task_that_is_being_pushed_is_ended_before_its_rename(
    depot: Depot, commands: Commands, lanes: Any, verb: str,
) -> None:
    """Its runner is told, and the wish is on the disk until the push ends, however it does."""
    upload = depot.accept()
    lanes.only.add(depot.claim())
    push = take_one(lanes.only)
    assert push is not None
    [answer] = ask(depot, commands, verb, upload)
    assert answer.changed == 1
    assert push.stopped
    assert push.cancelled is (verb == "cancel")
    assert depot.state(upload) is State.PUSHING
    depot.reopen()
    depot.queue.resume(supersede=True)
    assert depot.state(upload) is VERBS[verb][State.PUSHING]


def test_task_whose_push_has_just_ended_is_cancelled_when_that_is_settled(
    depot: Depot, commands: Commands, lanes: Any,
) -> None:
    """A cancel that comes between the end of a failed push and its settlement is not lost."""
    upload = depot.accept()
    lanes.only.add(depot.claim())
    lanes.only.done(take_one(lanes.only), abandoned=False)
    ask(depot, commands, "cancel", upload)
    depot.queue.resume(supersede=True)
    assert depot.state(upload) is State.CANCELLED


def test_of_several_forced_at_once_the_newest_comes_last(depot: Depot, commands: Commands) -> None:
    """As if one had been done after the other: what is asked for last is pushed last, and its bytes stay."""
    older, newer = depot.failed("/x"), depot.failed("/x")
    assert [answer.changed for answer in ask(depot, commands, "retry", older, newer, force=True)] == [1, 1]
    orders = [depot.task(upload).order for upload in (older, newer)]
    assert orders == sorted(orders)
