"""What a shard's queue has to know of the time when nobody served it: the machine's restarts, the worker's absence."""

import re
import time
from typing import Final

from daemon.log import log
from daemon.state.boot import boot_id
from daemon.task_queue import Remember, TaskQueue

_BOOT_FACT: Final = "boot_id"
_ALIVE_FACT: Final = "alive_at"
#: Seconds since the epoch, up to the year 2286.
_TIME: Final = re.compile(r"\d{1,10}(\.\d+)?", re.ASCII)
#: So many pushes into one instance can have been under way.
_MOST_BEGUN: Final = 64


def catch_up(queue: TaskQueue) -> None:
    """Have deliveries from before a restart of the machine looked at again, and no task age by the time between.

    Only for the holder of the shard's lock; safe to repeat. Raises QueueFault.
    """
    current = boot_id()
    known = queue.fact(_BOOT_FACT)
    if known is not None and (current is None or known != current):
        queue.suspect_claims(_MOST_BEGUN)
        queue.leave_numbers_out()
        rechecked = queue.recheck_unsynced()
        if rechecked:
            log("queue.rechecked", shard=queue.shard, tasks=rechecked)
    if known != current:
        queue.remember(_BOOT_FACT, current or "")
    alive_at = _time_in(queue.fact(_ALIVE_FACT))
    if alive_at is not None:
        queue.add_outages({"": max(0.0, time.time() - alive_at)})
    note_alive(queue)


def _time_in(fact: str | None) -> float | None:
    """The time that a fact says; None where it says none. It is read from a file that others may have written."""
    found = _TIME.fullmatch(fact) if isinstance(fact, str) else None
    return float(found[0]) if found else None


def note_alive(queue: Remember) -> None:
    """Write down that the shard is served now: tasks do not age while it is not. Raises QueueFault."""
    queue.remember(_ALIVE_FACT, f"{time.time():.3f}")
