"""Clocks that run while something has to be waited for: in that time nothing ages that waits for it.

A remote that is away has one, and so has an instance that is stopped or whose agent is not up. Only the main loop
uses them. What they show is written into the queue in steps, so that it outlives the worker.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from daemon.model.upload import Destination
from daemon.task_queue import Clocks

#: How often the clocks are written down.
_NOTE_EVERY_S: Final = 5.0
#: Clocks that are written down at once, in one turn of the main loop.
_AT_ONCE: Final = 1000


class Outages:
    """The clocks of one shard, by the names in `Destination.clocks`."""

    def __init__(self, queue: Clocks, now: Callable[[], float] = time.monotonic) -> None:
        self._queue = queue
        self._now = now
        #: Running clocks, and what they showed when they were last looked at.
        self._since: dict[str, float] = {}
        #: Seconds that are not written down yet.
        self._owed: dict[str, float] = {}
        #: Clocks that are still to be written down in this round.
        self._unwritten: deque[str] = deque()
        self._note_at = 0.0

    def begin(self, clock: str) -> None:
        """Start a clock, if it does not run already."""
        self._since.setdefault(clock, self._now())

    def end(self, clock: str) -> None:
        """Stop a clock, if it runs."""
        self._read(clock)
        self._since.pop(clock, None)

    def seconds(self, destination: Destination) -> float:
        """For how long the destination has had to be waited for, in all. Raises QueueFault."""
        return self._queue.outage_s(destination) + sum(map(self._shown, destination.clocks))

    def tend(self) -> None:
        """Write down what some clocks show, when it is time for that.

        Raises QueueFault; what could not be written is owed, and is written in the next round.
        """
        now = self._now()
        if now >= self._note_at and not self._unwritten:
            self._unwritten.extend(self._since | self._owed)
            self._note_at = now + _NOTE_EVERY_S
        if self._unwritten:
            self._write_down([self._unwritten.popleft() for _ in range(min(len(self._unwritten), _AT_ONCE))])

    def _write_down(self, clocks: Sequence[str]) -> None:
        for clock in clocks:
            self._read(clock)
        shown = {clock: self._owed[clock] for clock in clocks if clock in self._owed}
        self._queue.add_outages(shown)
        for clock in shown:
            del self._owed[clock]

    def _read(self, clock: str) -> None:
        if clock in self._since:
            self._owed[clock] = self._shown(clock)
            self._since[clock] = self._now()

    def _shown(self, clock: str) -> float:
        """The seconds that are not written down yet."""
        now = self._now()
        return self._owed.get(clock, 0.0) + now - self._since.get(clock, now)
