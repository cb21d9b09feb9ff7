"""A backlog from nowhere: many pending tasks, made much faster than uploads are accepted.

Rows go through `put_many` in large transactions. Where bytes are wanted, each task has a real spool file (an
empty body and its trailer), made by the spool itself with its syncs left out: one sync at the end serves all.
Run as `python -m bench.fill`, a process for each shard, so that both cores work.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final

import uuid_utils

from bench.service import ROOT, SHARDS
from daemon import failpoints
from daemon.config import LOCAL
from daemon.model.task import State
from daemon.model.upload import Destination, Upload
from daemon.spool.store import FileSpool
from daemon.state.layout import Layout
from daemon.task_queue import Settlement
from daemon.task_queue.sqlite.queue import SqliteQueue
from tests.support.depot import sealed

#: Uploads in one transaction.
_BATCH: Final = 5000
#: Instances that the pending tasks are for, none of which is there.
INSTANCES: Final = 1000
#: The sha256 of nothing.
_EMPTY: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def fill(state: Path, count: int, *, files: bool) -> None:
    """Put `count` pending tasks into a state, spread over `INSTANCES` instances; with spool files if `files`."""
    layout = Layout(state)
    layout.create()
    for shard in range(SHARDS):
        # All before the first upload: a database that is younger than an upload is taken for one that was lost.
        SqliteQueue(layout, shard, FileSpool(layout)).close()
    fillers = [
        subprocess.Popen([sys.executable, "-P", "-m", "bench.fill", str(state), str(shard), str(count),
                          *(["--files"] if files else [])],
                         cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL)
        for shard in range(SHARDS)]
    codes = [filler.wait() for filler in fillers]
    if any(codes):
        raise RuntimeError(f"filling failed: {codes}")
    os.sync()


def uploads(instance: str, count: int, *, size: int = 0, sha256: str = _EMPTY, directory: str = "") -> (
        Iterator[Upload]):
    """So many uploads to paths of their own in one instance."""
    for _ in range(count):
        task_id = str(uuid_utils.uuid7())
        yield Upload(task_id=task_id, destination=Destination(LOCAL, "default", instance, f"{directory}/{task_id}"),
                     size=size, sha256=sha256, display_name="bench", created_at=time.time())


def with_digest(upload: Upload, sha256: str) -> Upload:
    """The same upload, with bytes of that digest."""
    return replace(upload, sha256=sha256)


def defer(queue: SqliteQueue, instance: str, count: int, *, due_within_s: float) -> None:
    """Add so many deferred tasks of one instance, due one after the other in the time that is given."""
    put_with_files(queue, uploads(instance, count))
    key = Destination(LOCAL, "default", instance, "/").instance_key
    begin = time.time()
    done = 0
    while tasks := queue.claim(key, _BATCH):
        queue.settle([
            Settlement(order=task.order, state=State.DEFERRED, attempts=1, error_code="instance_not_found",
                       error_message="Instance not found", due_at=begin + due_within_s * (done + index) / count)
            for index, task in enumerate(tasks)])
        done += len(tasks)


def put_with_files(queue: SqliteQueue, some: Iterator[Upload]) -> None:
    """Put uploads without bytes, each with its file in the spool."""
    put(queue, _spooled(FileSpool(queue.layout), some))


def put(queue: SqliteQueue, some: Iterator[Upload]) -> None:
    """Put uploads in large transactions."""
    while batch := list(islice(some, _BATCH)):
        queue.put_many(sealed(*batch), supersede=False)


def _fill_shard(state: Path, shard: int, count: int, *, files: bool) -> None:
    layout = Layout(state)
    names = [f"pending-{number}" for number in range(INSTANCES)]
    mine = [Destination(LOCAL, "default", name, "/").shard(SHARDS) == shard for name in names]
    some = (upload for number in range(count) if mine[number % INSTANCES]
            for upload in uploads(names[number % INSTANCES], 1))
    with SqliteQueue(layout, shard) as queue:
        (put_with_files if files else put)(queue, some)


def _spooled(spool: FileSpool, some: Iterator[Upload]) -> Iterator[Upload]:
    """The same uploads, each with its file."""
    failpoints.arm("spool.sync=skip spool.linksync=skip spool.dirsync=skip")
    for upload in some:
        spool.begin().seal(upload).release()
        yield upload
    failpoints.arm("")
    spool.close()


def main() -> None:
    """Fill one shard."""
    parser = argparse.ArgumentParser(prog="python -m bench.fill", description=__doc__)
    parser.add_argument("state", type=Path)
    parser.add_argument("shard", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--files", action="store_true")
    options = parser.parse_args()
    _fill_shard(options.state, options.shard, options.count, files=options.files)


if __name__ == "__main__":
    main()
