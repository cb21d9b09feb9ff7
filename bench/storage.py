"""The storage path without HTTP, and what a disk can do at best: the peers of the API.

Sixteen clients store 1 KiB uploads one after the other, each waiting until its own is durable: through spool and queue
with the API's own group commit, or, in threads, with one commit for each, or as bare files.
"""

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import uuid_utils

from api.uploads import storage as storage_of_api
from bench.service import SHARDS
from daemon.config import LOCAL
from daemon.model.upload import Destination, Upload
from daemon.spool import Incoming
from daemon.spool.store import FileSpool
from daemon.state.layout import Layout
from daemon.task_queue.sqlite.queue import SqliteQueue

CLIENTS: Final = 16
_PIECE: Final = 2**20


@dataclass(frozen=True)
class Stored:
    """What one run found."""

    uploads: int
    seconds: float
    #: Sorted.
    latencies_ms: Sequence[float]

    @property
    def rate(self) -> float:
        """Uploads a second."""
        return self.uploads / self.seconds


class Storage:
    """Spool and queue of one state, used as the API uses them."""

    def __init__(self, state: Path, instances: Sequence[str]) -> None:
        self._layout = Layout(state)
        self._layout.create()
        self._spool = FileSpool(self._layout)
        self._destinations = [Destination(LOCAL, "default", name, "/") for name in instances]
        self._body = os.urandom(1024)

    def _prepare(self, number: int) -> tuple[Incoming, Upload]:
        task_id = str(uuid_utils.uuid7())
        to = self._destinations[number % len(self._destinations)]
        incoming = self._spool.begin()
        incoming.write(self._body)
        return incoming, Upload(
            task_id=task_id, destination=Destination(to.remote, to.project, to.instance, f"/{task_id}"),
            size=incoming.size, sha256=incoming.hexdigest(), display_name="bench", created_at=time.time())

    def grouped(self, seconds: float) -> Stored:
        """Store with the API's own threads and group commit."""
        return asyncio.run(self._grouped(seconds))

    async def _grouped(self, seconds: float) -> Stored:
        storage = storage_of_api.Storage(
            self._layout, SHARDS, self._spool, supersede=lambda: True, when_dead=_nobody_is_told)
        storage.start()
        latencies: list[float] = []
        began = time.perf_counter()

        async def store_on(number: int) -> None:
            while (start := time.perf_counter()) < began + seconds:
                to = self._destinations[number % len(self._destinations)]
                await storage.decide(to, partial(self._prepare, number))
                latencies.append((time.perf_counter() - start) * 1000)
                number += CLIENTS

        await asyncio.gather(*map(store_on, range(CLIENTS)))
        taken_s = time.perf_counter() - began
        await asyncio.to_thread(storage.close)
        return Stored(len(latencies), taken_s, sorted(latencies))

    def one_by_one(self, seconds: float) -> Stored:
        """Store with one commit for each upload."""
        queues = [SqliteQueue(self._layout, shard) for shard in range(SHARDS)]

        def store(number: int) -> None:
            incoming, upload = self._prepare(number)
            sealed = incoming.seal(upload)
            queues[sealed.upload.destination.shard(SHARDS)].put_many([sealed], supersede=True)
            sealed.release()

        try:
            return in_threads(store, seconds)
        finally:
            for queue in queues:
                queue.close()


def bare_files(directory: Path, seconds: float) -> Stored:
    """Write 1 KiB files and fsync each, nothing else."""
    directory.mkdir(exist_ok=True)
    run_id = os.urandom(4).hex()
    body = os.urandom(1024)

    def store(number: int) -> None:
        descriptor = os.open(directory / f"{run_id}-{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        os.write(descriptor, body)
        os.fsync(descriptor)
        os.close(descriptor)

    return in_threads(store, seconds)


def bare_write_s(source: Path, target: Path) -> float:
    """Seconds for writing the bytes of a file to another one, fsync included."""
    began = time.perf_counter()
    with source.open("rb", buffering=0) as read, target.open("wb", buffering=0) as written:
        buffer = memoryview(bytearray(_PIECE))
        while filled := read.readinto(buffer):
            written.write(buffer[:filled])
        os.fsync(written.fileno())
    return time.perf_counter() - began


def sha256_s(source: Path) -> float:
    """Seconds for reading a file and hashing it."""
    began = time.perf_counter()
    with source.open("rb", buffering=0) as read:
        hashlib.file_digest(read, "sha256")
    return time.perf_counter() - began


def in_threads(store: Callable[[int], None], seconds: float) -> Stored:
    """Call `store` with ever new numbers from all threads for so long."""
    latencies: list[list[float]] = [[] for _ in range(CLIENTS)]
    mistakes: list[BaseException] = []
    began = time.perf_counter()

    def work(thread: int) -> None:
        number = thread
        try:
            while (start := time.perf_counter()) < began + seconds:
                store(number)
                latencies[thread].append((time.perf_counter() - start) * 1000)
                number += CLIENTS
        except BaseException as mistake:
            mistakes.append(mistake)
            raise

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if mistakes:
        raise mistakes[0]
    together = sorted(latency for some in latencies for latency in some)
    return Stored(len(together), time.perf_counter() - began, together)


def _nobody_is_told() -> None:
    """What the thread calls when it dies: whoever waits is told anyway."""
