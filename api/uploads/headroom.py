"""Room on the disk for what is let in: the disk is asked once for all uploads of some milliseconds.

Guarantees: no more is promised than there is, by all API processes together. What was on its way when the disk was
asked, and all that was let in since, by whichever process, counts as if nothing of it had been written before. So an
answer of before promises too little rather than too much, and before anybody is refused the disk is asked anew. What
others write there is noticed when it is asked.
"""

import time
from collections.abc import Callable
from typing import Final

from daemon.partials import Census
from daemon.process.shared_counts import Column, SharedCounts

#: Seconds for which an answer is used.
ANSWER_S: Final = 0.01
#: What was let in is counted modulo this: a cell that only grows would be full some day, by what was but announced.
_WRAPS_AT: Final = 2**62


class Headroom:
    """What is free, and what is on its way. Asked on the event loop only."""

    def __init__(
        self, counts: SharedCounts, free_bytes: Callable[[], int], clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`free_bytes` asks the disk."""
        self._unwritten = counts.tally(Column.UNWRITTEN_BYTES)
        self._let_in = counts.tally(Column.LET_IN_BYTES)
        self._clock = clock
        self.free_bytes = free_bytes
        #: What was free when the disk was asked last, less what was on its way; and what had been let in by then.
        self._left_then = 0
        self._let_in_then = 0
        #: For how long that is used, and the resumable uploads that were known then: what they lack stands apart.
        self._until = 0.0
        self._partials: Census | None = None

    @property
    def unwritten_bytes(self) -> int:
        """What is on its way to the disk, of all processes."""
        return self._unwritten.total

    def owe(self, size: int) -> None:
        """Count `size` bytes more as being on their way."""
        self._unwritten.add(size)
        # Last: who asks the disk in between counts them twice, and not never.
        self._let_in.add(size if self._let_in.own < _WRAPS_AT else size - _WRAPS_AT)

    def settle(self, size: int) -> None:
        """Count `size` bytes fewer: they are written, or come no more."""
        self._unwritten.add(-size)

    def suffices(self, min_free_bytes: int, partials: Census) -> bool:
        """True when so much is left once all that is on its way is written, that of resumable uploads, too.

        Raises as `free_bytes` does.
        """
        if (partials is self._partials and self._clock() < self._until
                and self._left_bytes(partials) >= min_free_bytes):
            return True
        self._ask(partials)
        return self._left_bytes(partials) >= min_free_bytes

    def _left_bytes(self, partials: Census) -> int:
        let_in_since = (self._let_in.total - self._let_in_then) % _WRAPS_AT
        return self._left_then - let_in_since - partials.owed_bytes

    def _ask(self, partials: Census) -> None:
        now = self._clock()
        # In this order: what is let in meanwhile is counted, and what is not on its way any more is written.
        let_in = self._let_in.total
        unwritten = self._unwritten.total
        self._left_then = self.free_bytes() - unwritten
        self._let_in_then = let_in
        self._until = now + ANSWER_S
        self._partials = partials
