"""Asking workers, and applying selections, without any process: a test answers in the worker's place."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import pytest

from api.access.requester import Requester
from api.acting import errands as errands_module
from api.acting.applying import Applier
from api.acting.errands import Errands
from api.acting.selections import FrozenSelection, KeptSelection, Selections
from api.queries.reader import Reader
from daemon.access.caller import Caller, anonymous
from daemon.errors import Rejected
from daemon.state.shard_lock import ShardLock
from daemon.task_queue import Command, CommandAnswer
from tests.support.depot import Depot, an_upload, sealed

ME = anonymous(None)


@dataclass
class Desk:
    """One shard, and what asks its worker."""

    depot: Depot
    errands: Errands
    selections: Selections
    applier: Applier

    def choose(self, number: int = 3) -> str:
        """Put tasks and choose to hold them; the selection's id."""
        uploads = [an_upload(f"/{index}") for index in range(number)]
        self.depot.queue.put_many(sealed(*uploads), supersede=False)
        return self.selections.put(FrozenSelection(
            id="", owner=ME.name, root=ME.name, action="hold", force=False, states=[1, 2, 3], made_at=1.0, filter={},
            members={}, size_bytes=0, cut=False), {0: [upload.task_id for upload in uploads]}).id

    def apply(self, selection_id: str, *, revoked: bool = False) -> KeptSelection:
        """Apply a selection; whoever does may have lost his rights just then."""

        async def again() -> Caller:
            if revoked:
                raise Rejected("bad_credential")
            return ME

        return asyncio.run(self.applier.apply(selection_id, Requester(ME, again), patience_s=30))

    def answer(self) -> None:
        """Answer all commands as the worker does."""
        commands = self.depot.queue.commands(100)
        self.depot.queue.change([], [CommandAnswer(number=command.number, changed=1) for command in commands])


@pytest.fixture
def desk(depot: Depot) -> Iterator[Desk]:
    """The desk of one process."""
    with closing(Reader(depot.layout, depot.spool, 1)) as reader, ThreadPoolExecutor(1) as threads:
        errands, selections = Errands(depot.layout, reader, threads), Selections(depot.layout, 1)
        yield Desk(depot, errands, selections, Applier(selections, errands, reader, threads))


def test_without_a_worker_nobody_waits_and_nothing_is_asked_twice(desk: Desk) -> None:
    """What was asked is kept. Whoever applies the selection again finds it in the queue, answered or not."""
    chosen = desk.choose()
    assert not desk.apply(chosen).applied
    assert not desk.apply(chosen).applied
    assert desk.depot.queue.pending_commands() == 3
    desk.answer()
    found = desk.apply(chosen)
    assert (found.applied, found.steps[0].changed) == (True, 3)
    assert desk.depot.queue.pending_commands() == 0
    [action] = desk.depot.queue.actions(None, 9)
    assert (action.by, action.what, action.tasks, action.done_at is None) == (ME.name, {"selection": chosen}, 3, False)


def test_rights_that_ended_meanwhile_end_it(desk: Desk) -> None:
    """Nothing is asked of the worker then; who has them again goes on."""
    chosen = desk.choose()
    with pytest.raises(Rejected) as error:
        desk.apply(chosen, revoked=True)
    assert (error.value.code, desk.depot.queue.pending_commands()) == ("bad_credential", 0)
    assert not desk.selections.find(chosen, ME.name).running
    desk.apply(chosen)
    assert desk.depot.queue.pending_commands() == 3


def test_an_answer_of_the_database_that_took_the_place_of_another_is_none(desk: Desk, depot: Depot) -> None:
    """Its numbers begin anew: they would tell of others' commands."""

    async def ask() -> None:
        errand = await desk.errands.ask(0, [Command(verb="hold", task_id="a")])
        assert not (await desk.errands.report(errand, 0)).attended
        depot.close()
        for file in depot.layout.shard(0).glob("data.db*"):
            file.rename(file.with_name(f"old-{file.name}"))
        depot.layout.make_shard(0)
        depot.reopen()
        depot.queue.ask([Command(verb="cancel", task_id="b")])
        desk.answer()
        with pytest.raises(Rejected) as error:
            await desk.errands.report(errand, 0)
        assert error.value.code == "queue_unreadable"

    asyncio.run(ask())


def test_a_shard_without_a_worker_is_not_filled(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks again and again is told to come back."""
    monkeypatch.setattr(errands_module, "MAX_WAITING", 2)

    async def ask() -> None:
        for _ in range(2):
            await desk.errands.ask(0, [Command(verb="hold", task_id="a")])
        with pytest.raises(Rejected) as error:
            await desk.errands.ask(0, [Command(verb="hold", task_id="a")])
        assert error.value.code == "commands_full"

    asyncio.run(ask())


def test_an_answer_is_waited_for_while_there_is_a_worker(desk: Desk, depot: Depot) -> None:
    """For as long as is said at most, and not by a process that is to end."""

    async def ask() -> None:
        errand = await desk.errands.ask(0, [Command(verb="hold", task_id="a")])
        early = await desk.errands.report(errand, 0.02)
        assert (early.complete, early.attended) == (False, True)
        waiting = asyncio.create_task(desk.errands.report(errand, 60))
        await asyncio.sleep(0)
        desk.answer()
        assert (await waiting).complete
        late = asyncio.create_task(desk.errands.report(await desk.errands.ask(0, [Command(verb="hold", task_id="a")]), 60))
        await asyncio.sleep(0)
        desk.errands.ending = True
        assert not (await late).complete

    lock = ShardLock(depot.layout, 0)
    lock.acquire()
    asyncio.run(ask())
    lock.release()
