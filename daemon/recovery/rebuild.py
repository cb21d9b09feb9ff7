"""Opening a shard's queue whatever became of its database: whole, damaged, emptied, deleted, without its log.

Only for the holder of the shard's lock; and only while nobody appends if the database is of an older version, which is
upgraded. A damaged one is moved to lost+found in one step, never mended in place; the spool holds every upload that is
not finished, so the rows are made from it again, before anything is delivered. What that loses: attempts and due
times, pending commands, the history of what is finished, and the messages to webhooks that were not sent.
"""

import time
from collections.abc import Callable
from contextlib import closing
from itertools import chain
from typing import Final

from daemon.errors import QueueFault
from daemon.log import log
from daemon.process import sd_notify
from daemon.process.patience import go_on
from daemon.recovery.compare import Comparison
from daemon.recovery.findings import Finding
from daemon.spool import CheckedSpool, Holdings, open_checked
from daemon.state.layout import Layout
from daemon.state.quarantine import clear_name
from daemon.task_queue.sqlite import notes
from daemon.task_queue.sqlite.doctor import SqliteDoctor

#: So often the service manager is told that the start goes on.
_TELL_EVERY_S: Final = 5.0
#: After a worker died, the spool is compared for so long before the queue is served; the rest follows meanwhile.
_UNCLEAN_BUDGET_S: Final = 0.5
#: Rows written in one transaction.
_STEP: Final = 500
#: So many uploads without rows are named one by one.
_NAMED: Final = 20


def is_current(layout: Layout, shard: int) -> bool:
    """False when the shard's database says what was, and not what was done last. To be asked before `open_whole`."""
    return notes.has_log(layout, shard)


def open_whole(
    layout: Layout, shard: int, *, shards: int, supersede: bool, report: Callable[[Finding], None],
    moving: bool = False, damage: str | None = None,
) -> SqliteDoctor:
    """Open the shard's queue so that every upload in its part of the spool has its row; say what was wrong.

    `shards` is the number in force; `moving`: rows have begun to move to another number, so that those which are
    not here may be elsewhere. `damage`: what is wrong with the database, if that is known; it is set aside then.
    Raises QueueFault when not even a new database can be used, and OSError.
    """
    clear_names(layout, shard, report)
    died = notes.was_left_open(layout, shard) and not moving
    log_lost = died and not notes.has_log(layout, shard)
    with closing(open_checked(layout)) as spool:
        queue, replaced = _open_or_replace(layout, shard, spool, report, damage or _noted(layout, shard))
        if died and not replaced:
            # If the log is damaged, what was told is taken back, and its numbers with it.
            queue.leave_numbers_out(in_any_case=True)
        if replaced or not queue.is_complete or died:
            budget_s = None if log_lost or replaced or not queue.is_complete else _UNCLEAN_BUDGET_S
            restored, finished = _compare(queue, spool, shards, supersede=supersede, report=report, budget_s=budget_s)
            if restored and not replaced and (log_lost or not queue.is_complete):
                queue.begin_epoch()
                report(Finding(name="log_lost" if queue.is_complete else "queue_emptied", shard=shard, repaired=True))
            if finished:
                queue.note_complete()
    notes.note_open(layout, shard)
    return queue


def clear_names(layout: Layout, shard: int, report: Callable[[Finding], None]) -> None:
    """Put out of the way, and report, what has the name of something of the shard's. Raises OSError."""
    for path in notes.taken(layout, shard):
        clear_name(layout, path)
        report(Finding(name="name_taken", shard=shard, detail=str(path), repaired=True))


def _open_or_replace(
    layout: Layout, shard: int, spool: Holdings, report: Callable[[Finding], None], reason: str | None,
) -> tuple[SqliteDoctor, bool]:
    """The queue, and whether its database had to be replaced; `reason` says why it has to be."""
    if reason is None:
        try:
            return _open_sound(layout, shard, spool), False
        except QueueFault as fault:
            if fault.code != "queue_damaged":
                raise
            reason = fault.detail
    target = notes.set_aside(layout, shard)
    log("queue.set_aside", shard=shard, path=target, reason=reason)
    report(Finding(name="queue_damaged", shard=shard, detail=f"{target}: {reason}", repaired=True))
    return SqliteDoctor(layout, shard, spool), True


def _noted(layout: Layout, shard: int) -> str | None:
    return "it was found damaged while it was in use" if notes.is_condemned(layout, shard) else None


def _open_sound(layout: Layout, shard: int, spool: Holdings) -> SqliteDoctor:
    """Open the shard's queue and look at as much of its database as takes no time. Raises QueueFault."""
    queue = SqliteDoctor(layout, shard, spool, upgrade=go_on)
    try:
        queue.glance()
    except BaseException:
        queue.close()
        raise
    return queue


def _compare(
    queue: SqliteDoctor, spool: CheckedSpool, shards: int, *, supersede: bool, report: Callable[[Finding], None],
    budget_s: float | None,
) -> tuple[int, bool]:
    """Give every upload of the shard's buckets its row, older ones first; return how many, and whether that is all."""
    missing = unreadable = 0

    def sort_out(finding: Finding) -> None:
        nonlocal missing, unreadable
        missing += finding.name == "row_missing"
        unreadable += finding.name == "bucket_unreadable"
        if finding.name != "row_missing" or missing <= _NAMED:
            report(finding)

    comparison = Comparison(queue, spool, shards=shards, supersede=supersede, report=sort_out, step=_STEP)
    began = told = time.monotonic()
    finished = True
    for _ in chain.from_iterable(comparison.files(bucket) for bucket in comparison.buckets()):
        now = time.monotonic()
        if now - told > _TELL_EVERY_S:
            told = now
            go_on()
            sd_notify.status(f"compares the spool with the queue: {missing} uploads queued again")
        if budget_s is not None and now - began > budget_s:
            finished = False
            break
    if missing or budget_s is None:
        took_ms = round((time.monotonic() - began) * 1000)
        log("queue.rebuilt", shard=queue.shard, tasks=missing, duration_ms=took_ms)
    if missing > _NAMED:
        report(Finding(name="row_missing", shard=queue.shard, detail=f"and {missing - _NAMED} more", repaired=True))
    return missing, finished and not unreadable
