"""Recovery while a worker works: queue and spool are compared, and the database is read through, at low cost.

Slices of the comparison run in the main loop and take at most a tenth of its time. Every file and row is looked
at once after the start and then every few hours; uploads whose API died before their row was written are looked
for every few seconds, where something came into the spool.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from daemon.config import Config
from daemon.errors import QueueFault
from daemon.log import log
from daemon.model.upload import first_id_of
from daemon.recovery.compare import Comparison
from daemon.recovery.findings import Finding
from daemon.spool import CheckedSpool
from daemon.state.append_lease import last_acquired_at
from daemon.state.layout import Layout
from daemon.task_queue.doctor import Doctor
from worker.recovery.start import tell

#: A slice is followed by a pause of so many times its own length.
_PAUSE_RATIO: Final = 9.0
#: The shortest pause, so that an idle worker does not wake up for every bucket.
_MIN_PAUSE_S: Final = 0.02
#: Between two looks for uploads that have no row.
_LOOK_EVERY_S: Final = 15.0
#: Who appends has changed: a look so long after.
_LOOK_AFTER_S: Final = 1.0
#: A look goes back so much further than the last one: writers may take so long to decide.
_LOOK_BACK_S: Final = 60.0
#: Between two comparisons of everything.
_ALL_EVERY_S: Final = 6 * 3600.0
#: After a comparison that failed.
_AGAIN_S: Final = 60.0
#: The database is read through so long after the start, and then as often as everything is compared.
_READ_AFTER_S: Final = 60.0
#: Between two looks at what others have done: to the database, to the files that ask for something.
_LOOK_AROUND_S: Final = 1.0


@dataclass(frozen=True)
class ReadThrough:
    """A message: the whole database was read; `damage` says what is wrong with it."""

    damage: str | None


class Recovery:
    """What a worker does about damage that it did not meet at its start. Only the main loop uses it."""

    def __init__(
        self, layout: Layout, queue: Doctor, spool: CheckedSpool, config: Config, report: Callable[[ReadThrough], None],
    ) -> None:
        self._layout = layout
        self._queue = queue
        self._spool = spool
        self.configure(config)
        self._report = report
        self._findings = 0
        #: What could not be put right, as of the last comparison of everything and the looks since: it is told once.
        self._told: set[Finding] = set()
        self._slices: Iterator[None] = iter(())
        now = time.monotonic()
        self._slice_at = now
        self._around_at = now
        self._look_at = now
        self._all_at = now
        self._read_at = now + _READ_AFTER_S
        self._reading = False
        self._lease_at = last_acquired_at(layout)
        #: Seconds since the epoch; buckets that did not change since were looked at.
        self._looked_at = time.time()

    def configure(self, config: Config) -> None:
        """Use another configuration from now on. A comparison that has begun ends as it began."""
        self._comparison = Comparison(
            self._queue, self._spool, shards=config.queue.shards, supersede=config.delivery.supersedes,
            report=self._tell)

    def turn(self) -> None:
        """Do one slice of what is due. Raises QueueFault('queue_damaged') when the worker must start anew."""
        now = time.monotonic()
        if now >= self._around_at:
            self._around_at = now + _LOOK_AROUND_S
            self._look_around()
        if now >= self._read_at and not self._reading:
            self._read_at = now + _ALL_EVERY_S
            self._begin_reading()
        if now >= self._slice_at:
            busy = self._slice(now)
            ended = time.monotonic()
            pause_s = max(_MIN_PAUSE_S, (ended - now) * _PAUSE_RATIO)
            self._slice_at = ended + pause_s if busy else min(self._look_at, self._all_at)

    def next_in_s(self) -> float:
        """In how many seconds there is something to do again."""
        return max(0.0, self._slice_at - time.monotonic())

    def _look_around(self) -> None:
        if self._queue.replaced():
            raise QueueFault("queue_damaged", "The database was removed or replaced under its worker.")
        self._queue.require_form()
        if self._queue.is_suspected():
            self._read_at = 0.0
        lease_at = last_acquired_at(self._layout)
        if lease_at != self._lease_at:
            self._lease_at = lease_at
            self._look_at = min(self._look_at, time.monotonic() + _LOOK_AFTER_S)
            self._slice_at = min(self._slice_at, self._look_at)
        if self._queue.met_damage():
            self._all_at = self._slice_at = 0.0

    def _tell(self, finding: Finding) -> None:
        self._findings += 1
        if finding.name == "bucket_unreadable":
            self._all_at = min(self._all_at, time.monotonic() + _AGAIN_S)
        if finding not in self._told:
            tell(finding)
        if not finding.repaired:
            self._told.add(finding)

    # --- comparing ---------------------------------------------------------------------------------------

    def _slice(self, now: float) -> bool:
        """Do one slice of what was begun, or begin with what is due; return False when nothing is."""
        try:
            next(self._slices)
        except StopIteration:
            return self._plan(now)
        except (QueueFault, OSError):
            self._slices = iter(())
            self._all_at = min(self._all_at, now + _AGAIN_S)
            raise
        return True

    def _plan(self, now: float) -> bool:
        if now >= self._all_at:
            self._all_at = now + _ALL_EVERY_S
            self._slices = self._compare_all()
        elif now >= self._look_at:
            self._look_at = now + _LOOK_EVERY_S
            self._slices = self._look()
        else:
            return False
        return True

    def _compare_all(self) -> Iterator[None]:
        began, looked_at = time.monotonic(), time.time()
        self._findings = 0
        self._told.clear()
        yield from self._comparison.everything()
        self._looked_at = looked_at
        self._look_at = time.monotonic() + _LOOK_EVERY_S
        log("fsck.done", shard=self._queue.shard, findings=self._findings,
            duration_ms=round((time.monotonic() - began) * 1000))

    def _look(self) -> Iterator[None]:
        """Look for uploads that came since the last look, or shortly before, and have no row."""
        looked_at, since = time.time(), self._looked_at - _LOOK_BACK_S
        for bucket in self._comparison.buckets():
            if self._comparison.changed_at(bucket) >= since:
                yield from self._comparison.files(bucket, first_id_of(since))
        self._looked_at = looked_at

    # --- reading the database through --------------------------------------------------------------------

    def _begin_reading(self) -> None:
        self._reading = True
        threading.Thread(target=self._read, name="read-through", daemon=True).start()

    def _read(self) -> None:
        damage = None
        try:
            damage = self._queue.damage()
        except QueueFault as fault:
            log("worker.waiting", code=fault.code, detail=f"the database could not be read through: {fault.detail}")
        self._report(ReadThrough(damage))

    def read_through(self, message: ReadThrough) -> None:
        """Take note of what a reading found. Raises QueueFault('queue_damaged')."""
        self._reading = False
        if message.damage is not None:
            raise QueueFault("queue_damaged", f"The queue's database: {message.damage}.")
        self._queue.clear_suspicion()
