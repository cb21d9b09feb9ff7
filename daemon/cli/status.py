"""`incus-courier status`: what waits where, read from the queue without disturbing anyone."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field

from daemon.cli.all_shards import existing, shards_of
from daemon.cli.format import age
from daemon.cli.tables import show_table
from daemon.config import Config
from daemon.errors import QueueFault
from daemon.model.task import State
from daemon.process.exit_status import EXIT_FAILED, EXIT_OK
from daemon.process.output import say, say_json
from daemon.state.layout import Layout
from daemon.state.shard_lock import holder
from daemon.task_queue import Read, open_existing

#: The columns of the table, and the states that each of them counts.
_COLUMNS = {
    "pending": frozenset({State.QUEUED, State.PUSHING}), "deferred": frozenset({State.DEFERRED}),
    "held": frozenset({State.HELD}), "failed": frozenset({State.FAILED}), "delivered": frozenset({State.DELIVERED}),
}
_KEEPS_BYTES = frozenset({State.QUEUED, State.PUSHING, State.DEFERRED, State.HELD, State.FAILED})


@dataclass
class InstanceStatus:
    """What waits for one instance."""

    instance: str
    tasks: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COLUMNS, 0))
    size_bytes: int = 0
    oldest_age_s: float | None = None


@dataclass
class ShardStatus:
    """One shard: its worker, and the instances that have tasks."""

    shard: int
    #: Process id of the worker; None when there is none.
    worker: int | None
    #: What people asked for, and no worker has done yet.
    commands: int = 0
    #: Why the shard's queue cannot be read, or None.
    fault: str | None = None
    instances: list[InstanceStatus] = field(default_factory=list)


def read(config: Config) -> list[ShardStatus]:
    """How every shard stands. Raises CannotStart when there is no state."""
    layout = existing(config)
    return [_read_shard(layout, shard) for shard in shards_of(layout, config)]


def _read_shard(layout: Layout, shard: int) -> ShardStatus:
    found = ShardStatus(shard, holder(layout, shard))
    try:
        queue = open_existing(layout, shard)
        if queue is not None:
            with closing(queue):
                found.commands = queue.pending_commands()
                found.instances = _read_instances(queue)
    except QueueFault as fault:
        found.fault = fault.detail
    return found


def _read_instances(queue: Read) -> list[InstanceStatus]:
    instances: dict[str, InstanceStatus] = {}
    for tally in queue.tallies():
        instance = instances.setdefault(tally.instance_key, InstanceStatus(tally.instance_key))
        for column, states in _COLUMNS.items():
            instance.tasks[column] += tally.tasks if tally.state in states else 0
        instance.size_bytes += tally.size_bytes if tally.state in _KEEPS_BYTES else 0
    for key, instance in instances.items():
        oldest_at = queue.oldest_at(key)
        instance.oldest_age_s = None if oldest_at is None else round(max(0.0, time.time() - oldest_at), 1)
    return [instances[key] for key in sorted(instances)]


def problems_of(shards: list[ShardStatus]) -> Iterator[str]:
    """What needs a person."""
    for shard in shards:
        if shard.worker is None:
            yield f"shard {shard.shard} has no worker"
        if shard.fault is not None:
            yield f"shard {shard.shard} cannot be read: {shard.fault}"
    dead = sum(instance.tasks["failed"] for shard in shards for instance in shard.instances)
    if dead:
        yield f"{dead} dead letters; see: incus-courier tasks list --state failed"


def status(config: Config, *, as_json: bool) -> int:
    """Print how the service stands; return EXIT_FAILED when something needs a person."""
    shards = read(config)
    problems = list(problems_of(shards))
    if as_json:
        say_json({"shards": [asdict(shard) for shard in shards], "problems": problems})
    else:
        show_table(("shard", "worker", "instance", *_COLUMNS, "bytes", "oldest"), _rows(shards))
        for problem in problems:
            say(f"! {problem}")
    return EXIT_FAILED if problems else EXIT_OK


def _rows(shards: list[ShardStatus]) -> Iterator[list[object]]:
    for shard in shards:
        worker = "none" if shard.worker is None else shard.worker
        for instance in shard.instances or [InstanceStatus("-")]:
            oldest = "-" if instance.oldest_age_s is None else age(instance.oldest_age_s)
            yield [shard.shard, worker, instance.instance, *instance.tasks.values(), instance.size_bytes, oldest]
