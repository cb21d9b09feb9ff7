"""Single tasks by their ids: what is asked for while others are being read is read together, next.

One thread after the other has to get the interpreter for each piece of work: ten thousand clients who are all to be
told at once that the process ends are told within seconds.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from itertools import islice
from typing import Final

from api.queries.reader import Reader
from api.threads import joined
from daemon.model.task import Task

#: Tasks that are read together.
MOST_AT_ONCE: Final = 256


class Finder:
    """Finds tasks. To be used on the event loop."""

    def __init__(self, reader: Reader, threads: Executor) -> None:
        self._reader = reader
        self._threads = threads
        self._asked: dict[str, asyncio.Future[list[Task]]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def find(self, task_id: str, sees: Callable[[Task], bool]) -> Task | None:
        """The task of that id as it is now, or None; see Reader.find, whose errors it raises."""
        asked = self._asked.get(task_id)
        if asked is None:
            asked = self._asked[task_id] = asyncio.get_running_loop().create_future()
            if self._reading is None:
                self._reading = asyncio.create_task(self._read())
        for task in await asyncio.shield(asked):
            if sees(task):
                return task
        # Whether there is none, or it cannot be read, that knows.
        return await joined(self._threads.submit(self._reader.find, task_id, sees))

    async def _read(self) -> None:
        """Read what is asked for, until nothing is."""
        try:
            while self._asked:
                some = dict(islice(self._asked.items(), MOST_AT_ONCE))
                # Who asks from now on wants it as it is after this.
                for task_id in some:
                    del self._asked[task_id]
                await self._answer(some)
        finally:
            self._reading = None

    async def _answer(self, asked: dict[str, "asyncio.Future[list[Task]]"]) -> None:
        found: dict[str, list[Task]] = {}
        try:
            for task in await joined(self._threads.submit(self._reader.find_each, list(asked))):
                found.setdefault(task.task_id, []).append(task)
        finally:
            # Who finds nothing looks for himself.
            for task_id, future in asked.items():
                future.set_result(found.get(task_id, []))
