"""Changing the number of shards: the tasks move to the shards that serve their instances from now on.

Whoever finds that its configuration and the number in force differ tries to do it. It needs every old and every
new shard's lock, and that nobody appends; until then it waits, and says for what. Spool files do not move. What
has begun is finished first, by whoever comes next, whatever its own configuration: the file with the number says so.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from daemon.errors import CannotStart
from daemon.lease import Lease, Leases
from daemon.log import log
from daemon.process import sd_notify
from daemon.process.patience import RETRY_S, StartWait, go_on
from daemon.recovery import rebuild
from daemon.recovery.downtime import catch_up
from daemon.recovery.findings import Finding
from daemon.state import shard_count
from daemon.state.append_lease import acquire_alone
from daemon.state.layout import Layout, sync_directory
from daemon.state.quarantine import retire
from daemon.state.reserve import Reserve
from daemon.state.shard_count import ShardCount
from daemon.state.shard_lock import ShardLock, pid_in
from daemon.task_queue.sqlite import notes
from daemon.task_queue.sqlite.doctor import SqliteDoctor
from daemon.task_queue.sqlite.versions import is_older
from daemon.webhooks.telling import Hook, tell_all


def take_shard(
    layout: Layout, leases: Leases, shard: int, shards: int, patience: StartWait, *, supersede: bool,
    report: Callable[[Finding], None], webhooks: Sequence[Hook] = (),
) -> Lease:
    """Take the lease of a shard under `shards` shards; move the queue to that number first if it has another.

    Waits for as long as processes with another configuration run. Raises CannotStart as `Leases.lease`, QueueFault and
    OSError.
    """
    while True:
        if shard_count.establish(layout, shards).serves(shards):
            lease = _try_lease(layout, leases, shard)
            if lease is not None and shard_count.establish(layout, shards).serves(shards):
                return lease
            if lease is not None:
                lease.release()
            continue
        reason = migrate(layout, shards, supersede=supersede, report=report, webhooks=webhooks)
        if reason is not None:
            patience.wait(reason)


def _try_lease(layout: Layout, leases: Leases, shard: int) -> Lease | None:
    """The shard's lease; None when it is only held for a moment, by a migration that begins or has just ended."""
    try:
        return leases.lease(shard)
    except CannotStart as error:
        with _alone(layout) as holder:
            if holder is None or error.code != "shard_taken":
                raise
        time.sleep(RETRY_S)
        return None


def migrate(
    layout: Layout, shards: int, *, supersede: bool, report: Callable[[Finding], None], webhooks: Sequence[Hook] = (),
) -> str | None:
    """Move the queue to `shards` shards, if that is possible now: None when it is done, else what must happen first.

    What `webhooks` have not been told yet is put into their outboxes first; these move, too.
    """
    with _alone(layout) as holder:
        if holder is not None:
            return f"Process {holder} moves the queue to another number of shards, or waits to."
        found = shard_count.establish(layout, shards)
        while not found.serves(shards):
            target = found.moving_to or shards
            with ExitStack() as held:
                reason = _take_everything(layout, max(found.in_force, target), held)
                if reason is not None:
                    return f"The queue is to be moved from {found.in_force} shards to {target}: {reason}"
                _move(layout, found, target, supersede=supersede, report=report, webhooks=webhooks)
            found = ShardCount(target)
        return None


def upgrade(
    layout: Layout, shards: int, *, supersede: bool, report: Callable[[Finding], None],
) -> str | None:
    """Bring databases of an older version up to date, if that is possible now: None when it is done, else why not."""
    older = [shard for shard in range(shards) if is_older(layout, shard)]
    with ExitStack() as held:
        reason = _take_everything(layout, shards, held) if older else None
        for shard in older if reason is None else ():
            with rebuild.open_whole(layout, shard, shards=shards, supersede=supersede, report=report) as queue:
                queue.compact()
            notes.note_closed(layout, shard)
        return reason


def gather(
    layout: Layout, shards: int, *, supersede: bool, report: Callable[[Finding], None], webhooks: Sequence[Hook] = (),
) -> str | None:
    """Move tasks that are in other shards than theirs, if that is possible now: None when it is done, else why not.

    `webhooks` as for `migrate`.
    """
    with ExitStack() as held:
        reason = _take_everything(layout, shards, held)
        if reason is None:
            _move(layout, ShardCount(shards), shards, supersede=supersede, report=report, webhooks=webhooks)
        return reason


@contextmanager
def _alone(layout: Layout) -> Iterator[int | None]:
    """Only one process at a time tries to take every lock. None when it is this one, else the other's id."""
    descriptor = layout.open_made(layout.migration_lock)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield pid_in(descriptor)
    else:
        os.pwrite(descriptor, f"{os.getpid()}\n".ljust(16).encode(), 0)
        yield None
    finally:
        os.close(descriptor)


def _take_everything(layout: Layout, shards: int, held: ExitStack) -> str | None:
    """Take every lock, to be released by `held`; return who holds one of them, if that fails."""
    appending = acquire_alone(layout)
    if appending is None:
        return "an API process, or a command, still appends to it."
    held.callback(os.close, appending)
    for shard in range(shards):
        lock = ShardLock(layout, shard)
        try:
            lock.acquire()
        except CannotStart as error:
            return error.detail
        held.callback(lock.release)
    return None


def _move(
    layout: Layout, found: ShardCount, new: int, *, supersede: bool, report: Callable[[Finding], None],
    webhooks: Sequence[Hook],
) -> None:
    began, old = time.monotonic(), found.in_force
    for shard in range(max(old, new)):
        Reserve(layout, shard, 0).release_where_full()
    with ExitStack() as opened:
        # Each is made whole under the old number first: every upload gets its row where it was, in its order.
        sources = [opened.enter_context(rebuild.open_whole(
            layout, shard, shards=old, supersede=supersede, report=report, moving=found.moving_to is not None))
            for shard in range(old)]
        homes = {shard: opened.enter_context(SqliteDoctor(layout, shard, upgrade=go_on)) for shard in range(old, new)}
        homes |= {queue.shard: queue for queue in sources}
        for queue in homes.values():
            catch_up(queue)
        if found.moving_to is None:
            # Later the events are those of the copying.
            for queue in sources:
                tell_all(queue, webhooks)
        shard_count.record(layout, ShardCount(old, moving_to=new))
        progress = _Progress()
        for source in sources:
            moving = source.homes(new)
            for home, instance_keys in moving.items():
                source.copy_to(homes[home], instance_keys, progress.add)
            source.forget_moved([key for keys in moving.values() for key in keys], progress.tell)
        for source in sources:
            if source.shard >= new:
                source.move_outbox(homes[source.shard % new])
                source.hand_over(homes[source.shard % new])
        _keep_disabled(list(homes.values()))
        for queue in homes.values():
            queue.begin_epoch()
            queue.note_complete()
            queue.compact()
        emptied = [queue.shard for queue in sources if queue.shard >= new and queue.is_empty()]
    shard_count.record(layout, ShardCount(new))
    for shard in homes:
        notes.note_closed(layout, shard)
    for shard in emptied:
        _remove(layout, shard)
    sync_directory(layout.queue)
    log("queue.resharded", old=old, new=new, tasks=progress.rows, duration_ms=round((time.monotonic() - began) * 1000))


def _keep_disabled(queues: Sequence[SqliteDoctor]) -> None:
    """What is disabled in one shard is in all of them."""
    standings = {queue.shard: {found.name: found for found in queue.webhook_standings()} for queue in queues}
    disabled = {name: found.disabled_why for each in standings.values() for name, found in each.items()
                if found.disabled_at is not None}
    for queue in queues:
        for name, why in disabled.items():
            known = standings[queue.shard].get(name)
            if known is None or known.disabled_at is None:
                queue.disable(name, why or "")


def _remove(layout: Layout, shard: int) -> None:
    """Remove the directory of a shard that has no tasks any more; what in it cannot be removed is set aside."""
    try:
        shutil.rmtree(layout.shard(shard))
    except OSError:
        # Another user's directory, say: whoever needs the number again finds its name free.
        retire(layout, layout.shard(shard))


class _Progress:
    """Tells the service manager that the start goes on."""

    def __init__(self) -> None:
        self.rows = 0

    def add(self, rows: int) -> None:
        """So many more rows are copied."""
        self.rows += rows
        self.tell(rows)

    def tell(self, _rows: int) -> None:
        """Something was done."""
        go_on()
        sd_notify.status(f"moves the queue to another number of shards: {self.rows} tasks so far")
