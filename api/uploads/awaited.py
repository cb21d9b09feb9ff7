"""Decisions that are waited for, each for so long at most. To be used on the event loop's thread."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from api.uploads.group_commit import Answer, CommitResult
from daemon.errors import Rejected
from daemon.task_queue import BUSY_TIMEOUT_S

#: A batch that takes longer hangs: however busy a disk is, it has brought a few small files to rest by then, and who
#: waits for a lock of the queue has given up.
HANGS_S: Final = 2.5 * BUSY_TIMEOUT_S
#: Longest wait for a decision. The queue gives up earlier on a lock that it cannot get, and says so.
DECIDED_WITHIN_S: Final = 60.0
#: How often somebody looks whether that is over.
LOOKS_EVERY_S: Final = 1.0

Decided = asyncio.Future[CommitResult]


class Awaited:
    """Tells in the end who waits for a decision that nobody knows.

    One timer looks after all of them: one for each upload would cost more than handing it over.
    """

    def __init__(self, why: Callable[[], str | None]) -> None:
        """`why` says for people what holds up the decisions."""
        self._why = why
        self._loop = asyncio.get_running_loop()
        #: When who waits is told; the oldest first. Some of them are decided already.
        self._until: deque[tuple[float, Decided]] = deque()

    def begin(self) -> Decided:
        """What to wait for."""
        decided: Decided = self._loop.create_future()
        self._until.append((self._loop.time() + DECIDED_WITHIN_S, decided))
        if len(self._until) == 1:
            self._watch()
        return decided

    def _watch(self) -> None:
        self._loop.call_later(min(LOOKS_EVERY_S, DECIDED_WITHIN_S), self._give_up_waiting)

    def _give_up_waiting(self) -> None:
        """Tell those who have waited for too long; forget those who have their answer."""
        now = self._loop.time()
        while self._until:
            until, decided = self._until[0]
            if not decided.done():
                if now < until:
                    self._watch()
                    return
                decided.set_exception(Rejected("outcome_unknown", self._why() or "The disk is too slow."))
            self._until.popleft()


def said_of(hangs_s: float) -> str | None:
    """What is said of a disk from which an answer has been missing for so long; None while that is usual."""
    return f"The disk has not answered for {hangs_s:.0f} seconds." if hangs_s > HANGS_S else None


def settle(decided: Decided, answer: Answer) -> None:
    """Tell who waits, if somebody does."""
    if decided.done():
        return
    if isinstance(answer, CommitResult):
        decided.set_result(answer)
    else:
        decided.set_exception(answer)
