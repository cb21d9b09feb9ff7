"""How the part of the service stands that has a task: read from the state directory, whoever asks."""

import os
from contextlib import suppress

from daemon.errors import CannotStart, QueueFault
from daemon.explain.facts import ServiceFacts
from daemon.state import activity, shard_count
from daemon.state.layout import Layout
from daemon.state.shard_lock import holder


def read_service(layout: Layout, shard: int, *, fault: QueueFault | None = None) -> ServiceFacts:
    """What is known of a shard: a few small files are read. `fault` is why its queue cannot be read, if it cannot."""
    code, message = _moving(layout) or ((fault.code, fault.detail) if fault is not None else (None, None))
    try:
        worker = holder(layout, shard)
    except OSError as error:
        return ServiceFacts(shard=shard, worker=None, code=code or "io_error",
                            message=message or f"{error.filename}: {error.strerror}")
    told = activity.last(layout, shard)
    if worker is None:
        return ServiceFacts(shard=shard, worker=None, last_at=told.at if told else None, code=code, message=message)
    since = None
    with suppress(OSError):
        # It writes its number there when it begins.
        since = os.lstat(layout.lock(shard)).st_mtime
    mine = told if told is not None and worker in {0, told.pid} else None
    return ServiceFacts(shard=shard, worker=worker, worker_since=since, activity=mine, code=code, message=message)


def _moving(layout: Layout) -> tuple[str, str] | None:
    try:
        found = shard_count.read(layout)
    except CannotStart as error:
        return error.code, error.detail
    except OSError as error:
        return "io_error", f"{error.filename}: {error.strerror}"
    if found is None or found.moving_to is None:
        return None
    return "queue_moving", f"from {found.in_force} to {found.moving_to} shards"
