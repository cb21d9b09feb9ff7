"""What is found out at most once a second, for all who ask meanwhile."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from api.threads import OneAtATime, joined
from daemon.errors import Rejected

#: What was found out holds for so long.
MAX_AGE_S: Final = 1.0
#: Whoever asks is answered within so many seconds, with what was known before if need be, which must not be older.
ANSWERS_WITHIN_S: Final = 5.0
OLDEST_S: Final = 60.0

Result = TypeVar("Result")


@dataclass(frozen=True)
class Latest(Generic[Result]):
    """What was found out."""

    value: Result
    #: When looking for it began, on the monotonic clock.
    at: float
    #: True when the disk has not answered since, for longer than anybody is to wait.
    late: bool = False


class Fresh(Generic[Result]):
    """Finds something out, in a thread, once for all who ask. To be used on the event loop."""

    def __init__(self, look: Callable[[], Result], threads: Executor) -> None:
        self._look = look
        self._threads = threads
        self._looking = OneAtATime[Latest[Result]]()
        self._began = 0.0
        self._last: Latest[Result] | None = None

    async def get(self) -> Latest[Result]:
        """What is so now, or was a second ago; what was so before where the disk does not answer.

        Raises what looking raises, and Rejected('queue_unreadable') when nothing is known.
        """
        now = time.monotonic()
        if self._last is not None and now - self._last.at < MAX_AGE_S:
            return self._last
        if self._looking.running is None:
            self._began = now
        looking = self._looking.under_way(self._find)
        # Who comes when it hangs already does not wait as long again.
        done, _ = await asyncio.wait([looking], timeout=max(0.0, self._began + ANSWERS_WITHIN_S - time.monotonic()))
        if done:
            return looking.result()
        if self._last is not None and now - self._last.at < OLDEST_S:
            return Latest(self._last.value, self._last.at, late=True)
        raise Rejected("queue_unreadable", f"The disk has not answered for {ANSWERS_WITHIN_S:.0f} seconds.")

    async def _find(self) -> Latest[Result]:
        value = await joined(self._threads.submit(self._look))
        self._last = Latest(value, self._began)
        return self._last
