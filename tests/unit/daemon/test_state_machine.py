"""Every edge that the SQL can go along is in the table of transitions, and the table has no edge that nothing takes."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from daemon.model.task import TRANSITIONS, State
from daemon.model.upload import Upload
from daemon.model.verbs import VERBS
from daemon.spool import Mark
from daemon.task_queue import Change, Settlement
from tests.support import rows
from tests.support.depot import Depot, an_upload, sealed
from worker.dispatch.commands import decide

Uploads = dict[State, Upload]
EDGES = {(was, became) for was, some in TRANSITIONS.items() for became in some}
KEY = "local/default/c1"


class Stage:
    """A depot with one task in each state, each on a path of its own, and a record of every change."""

    def __init__(self, directory: Path) -> None:
        self.depot = Depot(directory)
        self.queue = self.depot.queue
        self.uploads: Uploads = {}
        for state in State:
            self.uploads[state] = self.depot.accept(f"/{state.label}")
            rows.write(self.queue, self.uploads[state].task_id, status=state, due_at=1.0)
        rows.watch(self.queue)

    def seen(self) -> set[tuple[State, State]]:
        """The edges that were taken."""
        return rows.seen(self.queue)

    def newer_everywhere(self, *, supersede: bool) -> None:
        """Put a newer upload to every path."""
        self.queue.put_many(sealed(*(an_upload(upload.destination.path) for upload in self.uploads.values())), supersede=supersede)

    def wish(self, state: State) -> None:
        """Have a person ask for something about the task that is being pushed."""
        pushing = self.depot.task(self.uploads[State.PUSHING])
        self.queue.change([Change(task=pushing, state=state, when_settled=True)])

    def settle(self, state: State, *, supersede: bool = True) -> None:
        """Settle every task, as if all had been pushed."""
        orders = [self.depot.task(upload).order for upload in self.uploads.values()]
        self.queue.settle([Settlement(order=order, state=state, attempts=1, due_at=2.0) for order in orders],
                          supersede=supersede)


def _ask(verb: str, stage: Stage) -> None:
    changes = []
    for state, upload in stage.uploads.items():
        decision = decide(verb, state, newer_exists=False, force=False)
        if isinstance(decision, State):
            changes += [Change(task=stage.depot.task(upload), state=decision, when_settled=running)
                        for running in ((True, False) if state is State.PUSHING else (False,))]
    stage.queue.change(changes)


def _wish_then(state: State, then: Callable[[Stage], object]) -> Callable[[Stage], object]:
    def step(stage: Stage) -> None:
        stage.wish(state)
        then(stage)

    return step


def _expire(stage: Stage) -> None:
    stage.queue.change([Change(task=task, state=State.CANCELLED) for task in stage.queue.old_dead_letters(4e9, 10)])


def _bury(stage: Stage) -> None:
    for state in (State.QUEUED, State.DEFERRED, State.HELD):
        task = stage.depot.task(stage.uploads[state])
        stage.queue.bury(task.order, state, "bytes_missing", "The bytes are gone.")


def _restore(stage: Stage) -> None:
    lost = an_upload("/queued")
    stage.depot.seal(lost)
    stage.queue.restore([(lost, State.QUEUED)], supersede=True)


def _damage_and_claim(stage: Stage) -> None:
    rows.damage(stage.queue, stage.uploads[State.QUEUED].task_id)
    stage.queue.claim(KEY, 10)


def _newer_then(then: Callable[[Stage], object], *, supersede: bool = False) -> Callable[[Stage], object]:
    def step(stage: Stage) -> None:
        stage.newer_everywhere(supersede=supersede)
        then(stage)

    return step


STEPS: dict[str, Callable[[Stage], object]] = {
    "put_newer": lambda stage: stage.newer_everywhere(supersede=True),
    "put_newer_deliver_all": lambda stage: stage.newer_everywhere(supersede=False),
    "claim": lambda stage: stage.queue.claim(KEY, 10),
    "claim_damaged": _damage_and_claim,
    "settle_delivered": lambda stage: stage.settle(State.DELIVERED),
    "settle_deferred": lambda stage: stage.settle(State.DEFERRED),
    "settle_failed": lambda stage: stage.settle(State.FAILED),
    "settle_queued": lambda stage: stage.settle(State.QUEUED),
    "settle_cancelled": lambda stage: stage.settle(State.CANCELLED),
    "settle_deferred_overtaken": _newer_then(lambda stage: stage.settle(State.DEFERRED)),
    "settle_wished_cancelled": _wish_then(State.CANCELLED, lambda stage: stage.settle(State.FAILED)),
    "settle_wished_held": _wish_then(State.HELD, lambda stage: stage.settle(State.DEFERRED)),
    "resume": lambda stage: stage.queue.resume(supersede=True),
    "resume_overtaken": _newer_then(lambda stage: stage.queue.resume(supersede=True)),
    "resume_wished_held": _wish_then(State.HELD, lambda stage: stage.queue.resume(supersede=True)),
    "resume_wished_cancelled": _wish_then(State.CANCELLED, lambda stage: stage.queue.resume(supersede=True)),
    "promote_due": lambda stage: stage.queue.promote_due(time.time(), 10),
    "release_late": lambda stage: stage.queue.release_late(0.0, 10),
    "release_instance": lambda stage: stage.queue.release_instance(KEY, 10),
    "recheck": lambda stage: stage.queue.recheck_unsynced(),
    "give_up": lambda stage: stage.queue.give_up(stage.queue.aged(KEY, 4e9, 10), "down"),
    "expire": _expire,
    "bury": _bury,
    "restore": _restore,
    **{f"ask_{verb}": partial(_ask, verb) for verb in VERBS},
}


@pytest.fixture
def stage(quick_path: Path) -> Iterator[Stage]:
    """A new stage."""
    made = Stage(quick_path / "state")
    yield made
    made.depot.close()


@pytest.mark.parametrize("step", STEPS)
def test_step_goes_along_edges_of_the_table_only(stage: Stage, step: str) -> None:
    """Whatever is done to tasks in whatever state, none takes an edge that the table does not have."""
    STEPS[step](stage)
    assert stage.seen() <= EDGES


def test_every_edge_of_the_table_is_taken_by_something(quick_path: Path) -> None:
    """The table promises no transition that never comes."""
    taken: set[tuple[State, State]] = set()
    for name, step in STEPS.items():
        stage = Stage(quick_path / name)
        step(stage)
        taken |= stage.seen()
        stage.depot.close()
    assert taken == EDGES


def test_finished_tasks_stay_as_they_are_whatever_people_ask(stage: Stage) -> None:
    """No verb revives what was delivered, replaced or cancelled."""
    for verb in VERBS:
        _ask(verb, stage)
    for state in (State.DELIVERED, State.SUPERSEDED, State.CANCELLED):
        assert stage.depot.state(stage.uploads[state]) is state


def test_marks_have_a_state_each() -> None:
    """What a file's name can say are states that a rebuild must not revive by itself."""
    assert {mark.name for mark in Mark} == {"PENDING", State.FAILED.name, State.HELD.name}
