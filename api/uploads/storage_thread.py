"""A thread that makes uploads durable, seen from the event loop.

A batch is all that came in while the last one was on its way to the disk: one hop there, one hop back for all of it.

Guarantees: nobody waits for the thread without a bound. What it has not decided in time is told to be undecided. While
it hangs, or after it died, `trouble` says so: nothing more is to be taken in then.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Final

from api.threads import start_thread
from api.uploads.awaited import Awaited, Decided, said_of, settle
from api.uploads.group_commit import Answer, CommitResult, Prepare
from daemon.errors import Rejected

#: Most uploads in one batch.
MAX_BATCH: Final = 256
#: So long a thread may take to end.
ENDS_WITHIN_S: Final = 5.0

_Job = tuple[Prepare, Decided]


class StorageThread:
    """Has uploads decided about in batches. To be made, and used unless said otherwise, on the event loop's thread."""

    def __init__(
        self, commit: Callable[[Sequence[Prepare]], Sequence[Answer]], *, when_dead: Callable[[], None],
    ) -> None:
        """`commit` decides about a batch on the thread; `when_dead` is called from there when it made a mistake."""
        self._commit = commit
        self._when_dead = when_dead
        self._loop = asyncio.get_running_loop()
        #: What was handed over in this turn of the event loop.
        self._gathered: list[_Job] = []
        self._awaited = Awaited(self.trouble)
        #: What waits for the thread; None is the end.
        self._inbox: SimpleQueue[list[_Job] | None] = SimpleQueue()
        #: What came with the last batch and had no place in it.
        self._left: list[_Job] = []
        self._thread = threading.Thread(target=self._run, name="storage", daemon=True)
        #: When the batch that is being decided about began, on the monotonic clock.
        self._began_at: float | None = None
        self._died = False

    def start(self) -> None:
        """Begin to take uploads. Raises CannotStart('io_error') when the machine has no thread left for it."""
        start_thread(self._thread)

    async def decide(self, prepare: Prepare) -> CommitResult:
        """Have the upload that `prepare` makes accepted or refused. From its return on it is never lost.

        Raises Rejected, after which nothing is kept unless the code is outcome_unknown. `prepare` is called on the
        thread, also when the caller is cancelled meanwhile.
        """
        decided = self._awaited.begin()
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append((prepare, decided))
        return await decided

    def trouble(self) -> str | None:
        """Why nothing more can be stored, for people; None while all is well. From any thread."""
        if self._died:
            return "What stores the uploads has ended, so this process ends."
        began_at = self._began_at
        return None if began_at is None else said_of(time.monotonic() - began_at)

    def end(self) -> None:
        """Decide about what was handed over, and end. From any thread."""
        self._inbox.put(None)

    def join(self) -> bool:
        """Wait for the end; False when that takes too long. From another thread. Blocks."""
        if self._thread.ident is not None:
            self._thread.join(ENDS_WITHIN_S)
        return not self._thread.is_alive()

    def _hand_over(self) -> None:
        gathered, self._gathered = self._gathered, []
        for start in range(0, len(gathered), MAX_BATCH):
            self._inbox.put(gathered[start:start + MAX_BATCH])
        if self._died:
            self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        """After the thread's death: nothing of what it did not begin is kept."""
        while jobs := self._left or self._more():
            self._left = []
            _settle(jobs, [Rejected("storage_failed")] * len(jobs))

    # --- the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        batch: list[_Job] = []
        try:
            while batch := self._next_batch():
                self._began_at = time.monotonic()
                answers = self._commit([prepare for prepare, _ in batch])
                self._began_at = None
                self._loop.call_soon_threadsafe(_settle, batch, answers)
        finally:
            if batch:
                self._die(batch)

    def _die(self, batch: list[_Job]) -> None:
        self._died = True
        self._loop.call_soon_threadsafe(_settle, batch, [Rejected("outcome_unknown")] * len(batch))
        self._loop.call_soon_threadsafe(self._refuse_waiting)
        self._when_dead()

    def _next_batch(self) -> list[_Job]:
        """What waits, or, when nothing does, what comes next; nothing at the end."""
        batch = self._left or self._inbox.get() or []
        self._left = []
        while batch and (more := self._more()):
            if len(batch) + len(more) > MAX_BATCH:
                self._left = more
                break
            batch += more
        return batch

    def _more(self) -> list[_Job]:
        """What waits; nothing, too, when the end is what comes next."""
        try:
            jobs = self._inbox.get_nowait()
        except Empty:
            return []
        if jobs is None:
            self._inbox.put(None)
        return jobs or []


def _settle(batch: Sequence[_Job], answers: Sequence[Answer]) -> None:
    for (_, decided), answer in zip(batch, answers, strict=True):
        settle(decided, answer)
