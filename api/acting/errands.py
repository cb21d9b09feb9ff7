"""What the workers are asked to do: kept on the disk before anything else, and what became of it.

A worker that runs answers within moments. Without one it is done when one runs again.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from api.queries.reader import Reader
from api.threads import joined
from daemon.errors import Rejected
from daemon.state.doorbell import ring
from daemon.state.layout import Layout
from daemon.state.shard_lock import holder
from daemon.task_queue import Command, CommandAnswer

#: Commands that may wait in each shard: one without a worker must not fill the disk.
MAX_WAITING: Final = 10_000
#: Between two looks at the answers: short at first, and longer and longer.
FIRST_PAUSE_S: Final = 0.005
LONGEST_PAUSE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Errand:
    """Commands that are in a shard's queue."""

    shard: int
    #: What tells their database from the next one, whose numbers begin anew.
    epoch: str
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What became of an errand so far."""

    #: Those that are done, by their numbers.
    answers: dict[int, CommandAnswer]
    complete: bool
    #: Whether the shard has a worker.
    attended: bool


class Errands:
    """Asks the workers. To be used on the event loop."""

    def __init__(self, layout: Layout, reader: Reader, threads: Executor) -> None:
        self._layout = layout
        self._reader = reader
        self._threads = threads
        #: True once the process is to end: nobody waits for an answer any more, as the worker does it all the same.
        self.ending = False

    async def ask(self, shard: int, commands: Sequence[Command]) -> Errand:
        """Ask a shard's worker, durably. Raises Rejected: 'commands_full', 'queue_unreadable' or 'no_room'.

        After 'queue_unreadable' it may have been asked all the same: ask again.
        """
        return await joined(self._threads.submit(self._ask, shard, commands))

    def _ask(self, shard: int, commands: Sequence[Command]) -> Errand:
        if self._reader.pending_commands(shard) >= MAX_WAITING:
            raise Rejected("commands_full")
        epoch = self._reader.epoch(shard)
        numbers = self._reader.ask(shard, commands)
        ring(self._layout, shard)
        return Errand(shard, epoch, tuple(numbers))

    async def find(self, shard: int, at: float, by: str) -> Errand | None:
        """What was asked of a shard at exactly that time by that name, or None. Raises Rejected."""
        return await joined(self._threads.submit(self._find, shard, at, by))

    def _find(self, shard: int, at: float, by: str) -> Errand | None:
        epoch = self._reader.epoch(shard)
        numbers = self._reader.asked(shard, at, by)
        ring(self._layout, shard)
        return Errand(shard, epoch, tuple(numbers.values())) if numbers else None

    async def report(self, errand: Errand, patience_s: float) -> Report:
        """Wait until all of it is done, for `patience_s` at most, and no longer than there is a worker.

        Raises Rejected('queue_unreadable') also when its database was replaced meanwhile, and the commands with it.
        """
        clock = asyncio.get_running_loop().time
        until, pause_s = clock() + patience_s, FIRST_PAUSE_S
        while True:
            await asyncio.sleep(pause_s)
            report = await joined(self._threads.submit(self._look, errand))
            if report.complete or not report.attended or self.ending or clock() >= until:
                return report
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S, max(until - clock(), 0))

    def _look(self, errand: Errand) -> Report:
        # Before the answers: one that ends in between has still given them.
        attended = self._is_attended(errand.shard)
        found = self._reader.answers(errand.shard, errand.numbers)
        if self._reader.epoch(errand.shard) != errand.epoch:
            raise Rejected("queue_unreadable", f"Shard {errand.shard}: the database was replaced just now; ask again.")
        answers = {number: answer for number, answer in found.items() if answer.done}
        return Report(answers, complete=len(answers) == len(errand.numbers), attended=attended)

    def _is_attended(self, shard: int) -> bool:
        try:
            return holder(self._layout, shard) is not None
        except OSError:
            # It cannot be told, and the answer may come all the same.
            return True
