"""One process at a time opens a database: two that make the same tables at once can lock each other out."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from daemon.errors import QueueFault
from daemon.state.layout import Layout
from daemon.task_queue.sqlite.connect import BUSY_TIMEOUT_S

#: Between two tries. The others need milliseconds.
_RETRY_S: Final = 0.005


@contextmanager
def alone(layout: Layout) -> Iterator[None]:
    """Keep every other process and thread from opening a database.

    Raises QueueFault('queue_locked') when one of them keeps this one from it for too long, and OSError.
    """
    descriptor = layout.open_made(layout.schema_lock)
    try:
        _lock(descriptor, layout)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, layout: Layout) -> None:
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while not _locks(descriptor):
        if time.monotonic() >= deadline:
            raise QueueFault("queue_locked", f"Another process holds {layout.schema_lock}.")
        time.sleep(_RETRY_S)


def _locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
