"""One process at a time opens a database: two that make the same tables at once can lock each other out."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from daemon.state.layout import Layout, touch


@contextmanager
def alone(layout: Layout) -> Iterator[None]:
    """Keep every other process and thread from opening a database. Raises OSError."""
    touch(layout.schema_lock, layout.file_mode)
    descriptor = os.open(layout.schema_lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
