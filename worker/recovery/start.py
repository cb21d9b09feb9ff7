"""How a worker begins: it takes its shard, opens or rebuilds the queue, and puts right what a crash left."""

from collections.abc import Callable
from contextlib import closing, nullcontext
from typing import Final, TypeVar

from daemon.config import Config
from daemon.errors import QueueFault
from daemon.log import log
from daemon.process.patience import StartWait
from daemon.recovery import rebuild
from daemon.recovery.downtime import catch_up, note_alive
from daemon.recovery.findings import Finding
from daemon.recovery.upgrade import is_due, nobody_appends
from daemon.spool import Mark, open_spool
from daemon.state.layout import Layout
from daemon.state.reserve import Reserve
from daemon.state.room import NO_ROOM
from daemon.task_queue import Resume, TaskQueue
from daemon.task_queue.doctor import Doctor
from worker.dispatch.marks import mark

Result = TypeVar("Result")

#: So often a step is tried again that failed on a full disk, and nobody can tell why any more.
_TRIES: Final = 10


def begin(layout: Layout, shard: int, reserve: Reserve, config: Config, patience: StartWait) -> Doctor:
    """Open the shard's queue, whatever became of it, ready to be served; on a full disk, with the reserve's room.

    Where even that is too little it waits for room. One of an older version is upgraded when nobody appends. Raises
    QueueFault and OSError when something else is wrong.
    """
    # Before anything else looks into the database.
    was_full = reserve.release_where_full()
    due = _with_room(reserve, patience, was_full, lambda: is_due(layout, shard))
    with nobody_appends(layout, shard, patience) if due else nullcontext():
        return _begin(layout, shard, reserve, config, patience, was_full)


def _begin(
    layout: Layout, shard: int, reserve: Reserve, config: Config, patience: StartWait, was_full: bool,
) -> Doctor:
    supersede = config.delivery.supersedes
    current = rebuild.is_current(layout, shard)
    queue = _with_room(reserve, patience, was_full, lambda: rebuild.open_whole(
        layout, shard, shards=config.queue.shards, supersede=supersede, report=tell))
    try:
        if current:
            _unmark_pushes(layout, queue)
        _with_room(reserve, patience, was_full, lambda: recover(queue, config))
    except QueueFault as fault:
        give_up(queue, fault)
        raise
    return queue


def give_up(queue: Doctor, fault: QueueFault) -> None:
    """Have the next start set a damaged database aside. One that was replaced is another already. Raises OSError."""
    if fault.code == "queue_damaged" and not queue.replaced():
        queue.condemn()


def tell(finding: Finding) -> None:
    """Log what was found to be wrong."""
    log("fsck.finding", finding=finding.name, shard=finding.shard, task_id=finding.task_id,
        detail=finding.detail or None, repaired=finding.repaired)


def _with_room(reserve: Reserve, patience: StartWait, was_full: bool, step: Callable[[], Result]) -> Result:
    """Do a step that may be repeated; when the disk is full, with the reserve's room, or as soon as there is some."""
    unexplained = 0
    while True:
        try:
            return step()
        except QueueFault as fault:
            # Room that comes between SQLite's failure and the look at the disk hides what the matter was.
            may_be_room = was_full and fault.code == "queue_failed" and unexplained < _TRIES
            if not (fault.kind.room_helps or may_be_room):
                raise
            unexplained += may_be_room
            reason = fault.detail
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            reason = f"{error.filename or 'The state'}: {error.strerror}."
        was_full = True
        if not reserve.release():
            patience.wait(reason)


def _unmark_pushes(layout: Layout, queue: Resume) -> None:
    """Take the marks of dead letters from what a worker that died was pushing, and had not settled: it is pushed again.

    Raises QueueFault.
    """
    with closing(open_spool(layout)) as spool:
        for task in queue.left_pushing():
            mark(spool, task, Mark.PENDING)


def recover(queue: TaskQueue, config: Config) -> None:
    """Put right what the last worker left undone. Raises QueueFault."""
    resumed = queue.resume(supersede=config.delivery.supersedes)
    if resumed:
        log("queue.resumed", shard=queue.shard, tasks=resumed)
    catch_up(queue)


def end(queue: Doctor) -> None:
    """Leave the queue so that the next start finds nothing to put right. Raises QueueFault and OSError."""
    note_alive(queue)
    queue.end()
