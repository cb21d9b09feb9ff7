"""The storage path without HTTP, and what a disk can do at best: the peers of the API.

Sixteen threads, as many as the API has for its spool, store 1 KiB uploads one after the other, each waiting until
its own is durable: through spool and queue with the API's own group commit, with one commit for each, or as bare
files.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import uuid_utils

from api.uploads.group_commit import CommitResult, Committer, Ticket
from bench.service import SHARDS
from daemon.config import LOCAL
from daemon.model.upload import Destination, Upload
from daemon.spool import Sealed
from daemon.spool.store import FileSpool
from daemon.state.layout import Layout
from daemon.task_queue.sqlite.queue import SqliteQueue

THREADS: Final = 16
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


class _Decided(Future[CommitResult]):
    """A future that a thread waits for, in the place of one that an event loop waits for."""

    def get_loop(self) -> "_Decided":
        return self

    def call_soon_threadsafe(self, call: Callable[..., object], *arguments: object) -> None:
        call(*arguments)


class Storage:
    """Spool and queue of one state, used as the API uses them."""

    def __init__(self, state: Path, instances: Sequence[str]) -> None:
        self._layout = Layout(state)
        self._layout.create()
        self._spool = FileSpool(self._layout)
        self._destinations = [Destination(LOCAL, "default", name, "/") for name in instances]
        self._body = os.urandom(1024)

    def _seal(self, number: int) -> Sealed:
        task_id = str(uuid_utils.uuid7())
        to = self._destinations[number % len(self._destinations)]
        incoming = self._spool.begin()
        incoming.write(self._body)
        return incoming.seal(Upload(
            task_id=task_id, destination=Destination(to.remote, to.project, to.instance, f"/{task_id}"),
            size=incoming.size, sha256=incoming.hexdigest(), display_name="bench", created_at=time.time()))

    def grouped(self, seconds: float) -> Stored:
        """Store with the API's group commit."""
        committers = [Committer(self._layout, shard, self._spool, supersede=lambda: True, receiving=lambda: THREADS,
                                when_dead=_nobody_is_told)
                      for shard in range(SHARDS)]
        for committer in committers:
            committer.start()

        def store(number: int) -> None:
            sealed = self._seal(number)
            decided = _Decided()
            ticket = Ticket(cast(Any, decided))
            committers[sealed.upload.destination.shard(SHARDS)].hand_over(sealed, ticket)
            decided.result()

        try:
            return in_threads(store, seconds)
        finally:
            for committer in committers:
                committer.close()

    def one_by_one(self, seconds: float) -> Stored:
        """Store with one commit for each upload."""
        queues = [SqliteQueue(self._layout, shard) for shard in range(SHARDS)]

        def store(number: int) -> None:
            sealed = self._seal(number)
            queues[sealed.upload.destination.shard(SHARDS)].put_many([sealed.upload], supersede=True)
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
    latencies: list[list[float]] = [[] for _ in range(THREADS)]
    mistakes: list[BaseException] = []
    began = time.perf_counter()

    def work(thread: int) -> None:
        number = thread
        try:
            while (start := time.perf_counter()) < began + seconds:
                store(number)
                latencies[thread].append((time.perf_counter() - start) * 1000)
                number += THREADS
        except BaseException as mistake:
            mistakes.append(mistake)
            raise

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if mistakes:
        raise mistakes[0]
    together = sorted(latency for some in latencies for latency in some)
    return Stored(len(together), time.perf_counter() - began, together)


def _nobody_is_told() -> None:
    """What a committer calls when it dies: the thread that waits for it would wait for ever, but it has a traceback."""
