"""Work that is prepared while the workers stand still, and set free at one moment."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bench import fill
from bench.containers import Container
from bench.inotify import IN_MOVED_TO, Watch
from bench.machine import cpu_times, process_cpu_s
from bench.service import SHARDS, Child, Service, wait_until
from daemon import failpoints
from daemon.model.task import PENDING
from daemon.model.upload import Upload
from daemon.spool.store import FileSpool
from daemon.state.doorbell import ring
from daemon.state.layout import Layout
from daemon.task_queue.sqlite.queue import SqliteQueue
from tests.support.depot import sealed

_PIECE: Final = 2**20
_IDLE_S: Final = 120.0
_DELIVERY_S: Final = 300.0


@dataclass(frozen=True)
class Delivered:
    """What one delivery found."""

    seconds: float
    #: The share of all cores that was in use meanwhile, 0 to 1.
    machine_share: float
    #: How many cores the workers used.
    worker_cores: float


class Prepared:
    """The workers of a service, and the tasks that are put before them."""

    def __init__(self, service: Service, workers: Sequence[Child]) -> None:
        """`workers` are those of shard 0 and so on."""
        self._service = service
        self._workers = workers

    def deliver(self, targets: Sequence[Container], count: int, source: Path) -> Delivered:
        """Have `count` copies of a file delivered to each of the containers.

        Their tasks are in the queue and on the disk before, with the workers stopped where they idle (SIGSTOP); the
        time is from their release until the last file has its name.
        """
        name = f"delivered-{os.urandom(4).hex()}"
        wait_until_idle(self._service.layout, {target.key for target in targets})
        self.freeze()
        places = [target.make_directory(name) for target in targets]
        uploads = [upload for target in targets for upload in self._spooled(target.name, count, source, name)]
        for shard in range(SHARDS):
            with SqliteQueue(self._service.layout, shard) as queue:
                queue.put_many(sealed(*(upload for upload in uploads if upload.destination.shard(SHARDS) == shard)),
                               supersede=False)
        os.sync()
        with Watch(IN_MOVED_TO, *places) as watch:
            cpu, used_s = cpu_times(), self._used_s()
            began = time.perf_counter()
            self.thaw()
            for shard in range(SHARDS):
                ring(self._service.layout, shard)
            seconds = watch.wait(count * len(targets), _DELIVERY_S) - began
            return Delivered(seconds, cpu_times().share_since(cpu), (self._used_s() - used_s) / seconds)

    def _used_s(self) -> float:
        return sum(process_cpu_s(worker.pid) for worker in self._workers)

    def _spooled(self, instance: str, count: int, source: Path, directory: str) -> list[Upload]:
        failpoints.arm("spool.sync=skip spool.linksync=skip spool.dirsync=skip")
        spool = FileSpool(self._service.layout)
        size = source.stat().st_size
        made = []
        for plain in fill.uploads(instance, count, size=size, directory=f"/root/{directory}"):
            incoming = spool.begin()
            with source.open("rb") as file:
                while piece := file.read(_PIECE):
                    incoming.write(piece)
            made.append(fill.with_digest(plain, incoming.hexdigest()))
            incoming.seal(made[-1]).release()
        spool.close()
        failpoints.arm("")
        return made

    def freeze(self) -> None:
        """Stop the workers, none of them in the middle of a transaction."""
        for shard, worker in enumerate(self._workers):
            with SqliteQueue(self._service.layout, shard) as queue, queue.write(queue.quick, "queue.claim"):
                worker.freeze()

    def thaw(self) -> None:
        """Let them go on."""
        for worker in self._workers:
            worker.thaw()


def wait_until_idle(layout: Layout, keys: set[str]) -> None:
    """Wait until workers have nothing left to do for these instances. Raises TimeoutError."""
    for shard in range(SHARDS):
        with SqliteQueue(layout, shard) as queue:
            wait_until(partial(_is_idle, queue, keys), _IDLE_S, "the workers to become idle")


def _is_idle(queue: SqliteQueue, keys: set[str]) -> bool:
    waiting = any(standing.totals.keys() & PENDING for standing in queue.standings(sorted(keys)))
    return not waiting and not queue.unspoolable(1)
