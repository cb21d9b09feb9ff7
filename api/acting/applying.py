"""Applying selections: in batches, each known to the disk before the worker is asked, so that none is asked twice.

A selection is applied by one process at a time, and by no more than one job there. When that ends before all is done,
whoever applies it again goes on where it ended.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Final

from api.access.requester import Requester
from api.acting.actions import ACTIONS, is_passed_over, judge
from api.acting.errands import Errand, Errands
from api.acting.selections import FrozenSelection, KeptSelection, Selections, Step, TakenSelection
from api.queries.reader import Reader
from api.threads import joined
from daemon.access.caller import Caller
from daemon.errors import Rejected
from daemon.log import log
from daemon.model.action_id import action_id_of
from daemon.model.task import Task
from daemon.task_queue import Command, CommandAnswer

#: Tasks that a worker is asked to do something with at once. Others' wishes wait for so many.
BATCH: Final = 400
#: How long the answers to them are waited for.
BATCH_PATIENCE_S: Final = 60.0
#: Selections that one process applies at once.
MAX_JOBS: Final = 4


@dataclass(frozen=True)
class Sifted:
    """What is to be done with a batch."""

    commands: tuple[Command, ...]
    skipped: int
    refused: int


def sift(
    selection: FrozenSelection, members: Sequence[str], tasks: Sequence[Task], caller: Caller, at: float,
) -> Sifted:
    """What to ask for of some members of a selection, of which `tasks` are still there: rights and states of now count.

    Pure.
    """
    action = ACTIONS[selection.action]
    # Of one path the newest is asked for last, and wins.
    fitting = [task for task in sorted(tasks, key=lambda task: task.order) if task.state in selection.states]
    may = [task for task in fitting if judge(caller, action.permission, task).code is None]
    commands = tuple(Command(
        verb=action.verb, task_id=task.task_id, force=selection.force, asked_by=caller.name, asked_at=at,
        action_id=action_id_of(selection.made_at, selection.id), selection_id=selection.id) for task in may)
    return Sifted(commands, skipped=len(members) - len(fitting), refused=len(fitting) - len(may))


def asked(step: Step, sifted: Sifted, at: float) -> Step:
    """The step once the worker is asked for a batch. Pure."""
    return replace(step, asked_at=at, asked_skipped=sifted.skipped, asked_refused=sifted.refused)


def done(step: Step, members: int, answers: Sequence[CommandAnswer]) -> Step:
    """The step once a batch is done with. Pure."""
    passed_over = sum(map(is_passed_over, answers))
    refused = sum(bool(answer.refused) for answer in answers) - passed_over
    return Step(
        done=step.done + members, changed=step.changed + len(answers) - passed_over - refused,
        skipped=step.skipped + step.asked_skipped + passed_over, refused=step.refused + step.asked_refused + refused)


class Applier:
    """Applies selections in this process. To be used on the event loop."""

    def __init__(self, selections: Selections, errands: Errands, reader: Reader, threads: Executor) -> None:
        self._selections = selections
        self._errands = errands
        self._reader = reader
        self._threads = threads
        self._jobs: dict[str, asyncio.Task[None]] = {}

    async def find(self, selection_id: str, owner: str) -> KeptSelection:
        """A selection of `owner`'s, as it stands. Raises Rejected."""
        return await joined(self._threads.submit(self._selections.find, selection_id, owner))

    async def apply(self, selection_id: str, requester: Requester, patience_s: float) -> KeptSelection:
        """Apply a selection, or go on with it; how it stands when it is done, or after `patience_s`.

        Raises Rejected: 'selection_not_found', 'too_busy', and what keeps it from going on.
        """
        owner = requester.caller.name
        found = await self.find(selection_id, owner)
        if found.applied:
            return found
        job = self._jobs.get(selection_id)
        if job is None and not found.running:
            job = self._begin(selection_id, requester)
        if job is not None:
            await asyncio.wait({job}, timeout=patience_s)
            if job.done() and not job.cancelled() and (error := job.exception()) is not None:
                raise error
        return await self.find(selection_id, owner)

    def _begin(self, selection_id: str, requester: Requester) -> "asyncio.Task[None]":
        if len(self._jobs) >= MAX_JOBS:
            raise Rejected("too_busy")
        self._jobs[selection_id] = job = asyncio.create_task(self._work(selection_id, requester))
        job.add_done_callback(lambda ended: self._forget(selection_id, ended))
        return job

    def _forget(self, selection_id: str, job: "asyncio.Task[None]") -> None:
        del self._jobs[selection_id]
        error = None if job.cancelled() else job.exception()
        if isinstance(error, Rejected):
            log("selection.interrupted", code=error.code, detail=error.detail)
        elif error is not None:
            log("api.error", detail="A selection could not be applied.", error=repr(error))

    async def _work(self, selection_id: str, requester: Requester) -> None:
        taken = await joined(self._threads.submit(self._selections.take, selection_id, requester.caller.name))
        if taken is None:
            return
        try:
            for shard, count in taken.selection.members.items():
                while taken.steps[shard].done < count and not self._errands.ending:
                    if not await self._work_batch(taken, shard, requester):
                        break
        finally:
            taken.close()

    async def _work_batch(self, taken: TakenSelection, shard: int, requester: Requester) -> bool:
        """Do a batch of a shard's members; False when its worker does not. Raises Rejected."""
        members = await joined(self._threads.submit(taken.next_members, shard, BATCH))
        errand = await self._errand_before(taken, shard)
        if errand is None:
            caller = await self._who(taken, requester)
            at = time.time()
            tasks = await joined(self._threads.submit(self._reader.find_all, shard, members))
            sifted = sift(taken.selection, members, tasks, caller, at)
            step = asked(taken.steps[shard], sifted, at)
            if not sifted.commands:
                await self._note(taken, shard, done(step, len(members), ()))
                return True
            await self._note(taken, shard, step)
            errand = await self._errands.ask(shard, sifted.commands)
        report = await self._errands.report(errand, BATCH_PATIENCE_S)
        if not report.complete:
            return False
        await self._note(taken, shard, done(taken.steps[shard], len(members), tuple(report.answers.values())))
        return True

    async def _errand_before(self, taken: TakenSelection, shard: int) -> Errand | None:
        """What the worker was asked for by whoever applied it before, and did not live to see done."""
        at = taken.steps[shard].asked_at
        return None if at is None else await self._errands.find(shard, at, taken.selection.owner)

    async def _who(self, taken: TakenSelection, requester: Requester) -> Caller:
        """Who applies it, by now. Raises Rejected when he has no rights any more."""
        caller = await requester.again()
        if caller.name != taken.selection.owner:
            raise Rejected("selection_not_found")
        return caller

    async def _note(self, taken: TakenSelection, shard: int, step: Step) -> None:
        await joined(self._threads.submit(taken.note, shard, step))

    async def end(self) -> None:
        """Stop applying: what is begun goes on when it is applied again."""
        jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        if jobs:
            await asyncio.wait(jobs)
