"""How a worker begins: it takes its shard, opens or rebuilds the queue, and puts right what a crash left."""

import time
from pathlib import Path
from typing import Final

from daemon.config import Config
from daemon.errors import QueueFault
from daemon.layout import Layout
from daemon.logs import log
from daemon.reserve import Reserve
from daemon.task_queue import TaskQueue

#: The kernel's name for the time since its last boot.
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_BOOT_FACT: Final = "boot_id"
_ALIVE_FACT: Final = "alive_at"


def open_queue(layout: Layout, shard: int, reserve: Reserve) -> TaskQueue:
    """Open the shard's queue; on a full disk, with the reserve's room. Raises QueueFault."""
    try:
        return TaskQueue(layout, shard)
    except QueueFault as error:
        if error.code not in {"queue_full", "queue_failed"} or not reserve.release():
            raise
        return TaskQueue(layout, shard)


def recover(queue: TaskQueue, config: Config) -> None:
    """Put right what the last worker left undone. Raises QueueFault."""
    resumed = queue.resume(supersede=config.delivery.on_newer == "supersede")
    if resumed:
        log("queue.resumed", shard=queue.shard, tasks=resumed)
    boot_id = _BOOT_ID.read_text().strip()
    if queue.fact(_BOOT_FACT) not in {None, boot_id}:
        rechecked = queue.recheck_unsynced()
        if rechecked:
            log("queue.rechecked", shard=queue.shard, tasks=rechecked)
    if queue.fact(_BOOT_FACT) != boot_id:
        queue.remember(_BOOT_FACT, boot_id)
    alive_at = queue.fact(_ALIVE_FACT)
    if alive_at is not None:
        queue.add_outage("", max(0.0, time.time() - float(alive_at)))
    note_alive(queue)


def note_alive(queue: TaskQueue) -> None:
    """Write down that a worker runs now: tasks do not age while none does. Raises QueueFault."""
    queue.remember(_ALIVE_FACT, f"{time.time():.3f}")
