"""The barrier: spooled bytes go only after what was delivered from them is on the disk.

A file that was renamed into place may still be in the page cache alone. One sync of the machine serves every
delivery before it; where that may not reach (another machine, a virtual one), the bytes are kept for `delivery.keep_s`.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from daemon import failpoints
from daemon.model.task import State, Task
from daemon.process.thread_pools import begin_pool
from daemon.spool import Remove


@dataclass(frozen=True)
class Unspooled:
    """A message: the bytes of these tasks are gone. `reason` says why those of others are not."""

    orders: tuple[int, ...]
    reason: str | None = None


def ready_to_go(tasks: Iterable[Task], *, now: float, keep_s: float) -> list[Task]:
    """The finished tasks whose bytes may go after a sync: all but fresh deliveries to a machine elsewhere."""
    return [task for task in tasks if not _is_elsewhere(task) or now - task.updated_at >= keep_s]


def _is_elsewhere(task: Task) -> bool:
    return task.state is State.DELIVERED and bool(task.history) and task.history[-1].elsewhere


class Barrier:
    """Syncs, then removes spooled bytes, one batch at a time, in a thread of its own."""

    def __init__(self, spool: Remove, report: Callable[[Unspooled], None]) -> None:
        self._spool = spool
        self._report = report
        self._thread = begin_pool(1, "barrier")
        self.busy = False

    def pass_through(self, tasks: list[Task]) -> None:
        """Begin with a batch, oldest first; an Unspooled message follows. Only while not `busy`."""
        self.busy = True
        # A mistake is told, as that of any thread is.
        self._thread.submit(self._pass, tasks).add_done_callback(lambda passed: passed.result())

    def _pass(self, tasks: list[Task]) -> None:
        try:
            if failpoints.reach("barrier.sync"):
                os.sync()
            failed = self._spool.remove(task.upload for task in tasks)
        except OSError as error:
            self._report(Unspooled((), error.strerror or str(error)))
            return
        gone = tuple(task.order for task in tasks if task.task_id not in failed)
        self._report(Unspooled(gone, next(iter(failed.values()), None)))

    def done(self) -> None:
        """Take note that a batch is through."""
        self.busy = False
