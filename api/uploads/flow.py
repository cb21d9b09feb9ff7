"""Pieces of one body on their way from the event loop to the threads of a pool: in order, and never two at a time.

The client and the disk go on side by side, each at its own pace, until one of them is so far ahead that it has to wait.
Guarantees: memory is bounded; at the end no thread has anything to do with the body any more; who has much to write
lets others have their turn.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Final

from api.threads import joined

#: No more is taken from the client while more than this has yet to be written.
MOST_BYTES: Final = 768 * 1024
#: A thread writes so much, or one batch more, before it looks who else waits for one.
TURN_BYTES: Final = 8 * 2**20


class Flow:
    """One body. What is handed over while a batch is being written is the next batch."""

    def __init__(self, threads: Executor, write: Callable[[Sequence[bytes]], None]) -> None:
        """`write` is called from the threads, until it raises."""
        self._threads = threads
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._lock = threading.Lock()
        self._pieces: list[bytes] = []
        #: What has yet to be written, and what is being written.
        self._unwritten_bytes = 0
        #: Done when nothing has yet to be written, or with what `write` raised.
        self._work = Future[None]()
        self._work.set_result(None)

    async def put(self, pieces: Sequence[bytes]) -> None:
        """Hand over what comes next; wait while too much has yet to be written. Raises what `write` raised."""
        with self._lock:
            if self._work.done():
                self._work.result()
                self._threads.submit(self._run)
                self._work = Future()
            self._pieces += pieces
            self._unwritten_bytes += sum(map(len, pieces))
            is_full = self._unwritten_bytes > MOST_BYTES
            self._room.clear()
        if is_full:
            await self._room.wait()

    async def end(self) -> None:
        """Wait until all is written. Raises what `write` raised; nothing was written after that."""
        await joined(self._work)

    # --- the threads ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Write for one turn."""
        turn_bytes = 0
        try:
            while pieces := self._take():
                self._write(pieces)
                turn_bytes += self._wrote(pieces)
                if turn_bytes >= TURN_BYTES:
                    self._threads.submit(self._run)
                    return
        except BaseException as error:
            # Whoever hands over the next piece, or waits for the end, gets it.
            self._fail(error)
            raise

    def _take(self) -> list[bytes]:
        """What has come; if that is nothing, the work is done."""
        with self._lock:
            pieces, self._pieces = self._pieces, []
            if not pieces:
                self._work.set_result(None)
        return pieces

    def _wrote(self, pieces: Sequence[bytes]) -> int:
        size = sum(map(len, pieces))
        with self._lock:
            was_full = self._unwritten_bytes > MOST_BYTES
            self._unwritten_bytes -= size
            if was_full and self._unwritten_bytes <= MOST_BYTES:
                self._loop.call_soon_threadsafe(self._room.set)
        return size

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._work.set_exception(error)
            self._loop.call_soon_threadsafe(self._room.set)
