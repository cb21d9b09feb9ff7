"""Pools of threads that have all begun: later there may be no room for one more thread, and work must go on.

A pool of the standard library begins its threads one by one, when there is work. If that fails, the work is in its
queue all the same, and is done although whoever handed it over was told otherwise.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

from daemon.errors import CannotStart


def begin_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """A pool whose threads all run. Raises CannotStart('io_error') when one cannot be started; none is left then."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    together = threading.Barrier(threads)
    try:
        # Each waits for the others, so that none does the work of two.
        for begun in [pool.submit(together.wait) for _ in range(threads)]:
            begun.result()
    except (RuntimeError, MemoryError) as error:
        together.abort()
        pool.shutdown()
        raise CannotStart("io_error", f"The machine cannot start {threads} more threads: {error}") from error
    return pool
