"""Pieces of one body on their way from the event loop to the threads of a pool: in order, and never two at a time.

The client and the disk go on side by side, each at its own pace, until one of them is so far ahead that it has to wait.
Guarantees: memory is bounded; at the end no thread has anything to do with the body any more; a body that has always
more to be written keeps no thread from the others.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Final

from api.threads import joined

#: No more is taken from the client while more than this is not written.
MOST_BYTES: Final = 768 * 1024
#: For so long a thread writes for one body, or until the next batch is written; then it is the turn of whoever waits.
TURN_S: Final = 0.01


class Flow:
    """One body. What is handed over while a batch is being written is the next batch."""

    def __init__(self, threads: Executor, write: Callable[[Sequence[bytes]], None], *, turn_s: float = TURN_S) -> None:
        """`write` is called from the threads, until it raises."""
        self._threads = threads
        self._write = write
        self._turn_s = turn_s
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._lock = threading.Lock()
        self._pieces: list[bytes] = []
        #: Of what was handed over so much is not written, with the batch under way.
        self.unwritten_bytes = 0
        #: Done while nothing is to be written; with the error, once `write` has raised one.
        self._work = Future[None]()
        self._work.set_result(None)

    async def put(self, pieces: Sequence[bytes]) -> None:
        """Hand over what comes next; come back when more may be read.

        Raises what `write` raised, as soon as that is known, and what keeps the pool from taking work.
        """
        with self._lock:
            if self._work.done():
                self._work.result()
                self._threads.submit(self._run)
                self._work = Future()
            self._pieces += pieces
            self.unwritten_bytes += sum(map(len, pieces))
            self._room.clear()
            is_full = self._is_full
        if is_full:
            await self._room.wait()
            if self._work.done():
                self._work.result()

    async def end(self) -> None:
        """Wait until all is written. Raises what `write` raised; nothing was written after that."""
        await joined(self._work)

    @property
    def _is_full(self) -> bool:
        return self.unwritten_bytes > MOST_BYTES

    # --- the threads ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Write for one turn."""
        until = time.monotonic() + self._turn_s
        try:
            while pieces := self._take():
                self._write(pieces)
                self._wrote(pieces)
                if time.monotonic() >= until and self._stand_in_line():
                    return
        except BaseException as error:
            # Whoever hands over the next piece, or waits for room or for the end, gets it.
            self._fail(error)
            raise

    def _take(self) -> list[bytes]:
        """What has come; if that is nothing, the work is done."""
        with self._lock:
            pieces, self._pieces = self._pieces, []
            if not pieces:
                self._work.set_result(None)
        return pieces

    def _wrote(self, pieces: Sequence[bytes]) -> None:
        with self._lock:
            was_full = self._is_full
            self.unwritten_bytes -= sum(map(len, pieces))
            if was_full and not self._is_full:
                self._loop.call_soon_threadsafe(self._room.set)

    def _stand_in_line(self) -> bool:
        """Have the next turn after those who wait for a thread; False when the pool takes no work any more."""
        try:
            self._threads.submit(self._run)
        except (RuntimeError, MemoryError):
            # What was handed over is written all the same.
            return False
        return True

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._work.set_exception(error)
            self._loop.call_soon_threadsafe(self._room.set)
