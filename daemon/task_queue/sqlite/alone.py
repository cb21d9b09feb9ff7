"""One process at a time opens a database: two that make the same tables at once can lock each other out."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from daemon.state.layout import Layout


@contextmanager
def alone(layout: Layout) -> Iterator[None]:
    """Keep every other process and thread from opening a database. Raises OSError."""
    descriptor = layout.open_made(layout.schema_lock)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
