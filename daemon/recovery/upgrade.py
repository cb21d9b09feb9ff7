"""A state that an older version of this program left: when it may be brought up to date, and what is left over then.

A worker upgrades its own shard's database as it opens it: it holds the shard's lock. Whoever appends, of whatever
version, holds the lease, so that a worker that has it alone disturbs nobody. An API of this version takes no lease
while one of the databases is older.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from daemon import failpoints
from daemon.log import log
from daemon.process.patience import StartWait
from daemon.state.append_lease import acquire_alone
from daemon.state.layout import Layout, sync_directory
from daemon.task_queue.sqlite.versions import is_older


def is_due(layout: Layout, shard: int) -> bool:
    """True when the shard's database is of an older version. Raises QueueFault."""
    return is_older(layout, shard)


@contextmanager
def nobody_appends(layout: Layout, shard: int, patience: StartWait) -> Iterator[None]:
    """Keep every appender out while the shard's database is upgraded; wait until the last of them has ended.

    For the holder of the shard's lock. Raises OSError.
    """
    while (lease := acquire_alone(layout)) is None:
        patience.wait(f"The database of shard {shard} is of an older version: it is brought up to date when no API"
                      " process and no command appends to the queue, and no other shard is being brought up to date.")
    try:
        yield
    finally:
        os.close(lease)


def remove_common_keys(layout: Layout, shards: int) -> None:
    """Remove the database in which version 1 kept the keys of all shards, once each shard has those of its tasks."""
    if not layout.common_keys.exists() or any(is_older(layout, shard) for shard in range(shards)):
        return
    try:
        failpoints.reach("keys.remove")
        shutil.rmtree(layout.common_keys)
        sync_directory(layout.queue)
    except FileNotFoundError:
        # The worker of another shard was quicker.
        return
    except OSError as error:
        log("keys.kept", path=str(layout.common_keys), detail=error.strerror)
