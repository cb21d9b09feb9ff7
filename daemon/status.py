"""`incus-courier status`: what waits where, read from the queue without disturbing anyone."""

import json
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field

from rich.console import Console
from rich.table import Table

from daemon.config import Config
from daemon.exits import EXIT_FAILED, EXIT_OK
from daemon.layout import Layout
from daemon.shard_lock import holder
from daemon.task import State
from daemon.task_queue import TaskQueue

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
    commands: int
    instances: list[InstanceStatus]


def read(config: Config) -> list[ShardStatus]:
    """How every shard stands. Raises QueueFault."""
    layout = Layout(config.state.path)
    return [_read_shard(layout, shard) for shard in range(config.queue.shards)]


def _read_shard(layout: Layout, shard: int) -> ShardStatus:
    worker = holder(layout, shard)
    if not layout.database(shard).exists():
        return ShardStatus(shard, worker, 0, [])
    instances: dict[str, InstanceStatus] = {}
    with TaskQueue(layout, shard) as queue:
        tallies = defaultdict(list)
        for tally in queue.tallies():
            tallies[tally.instance_key].append(tally)
        for key, found in sorted(tallies.items()):
            instance = instances.setdefault(key, InstanceStatus(key))
            for tally in found:
                for column, states in _COLUMNS.items():
                    instance.tasks[column] += tally.tasks if tally.state in states else 0
                instance.size_bytes += tally.size_bytes if tally.state in _KEEPS_BYTES else 0
            oldest_at = queue.oldest_at(key)
            instance.oldest_age_s = None if oldest_at is None else round(max(0.0, time.time() - oldest_at), 1)
        return ShardStatus(shard, worker, queue.pending_commands(), list(instances.values()))


def status(config: Config, *, as_json: bool) -> int:
    """Print how the service stands; return EXIT_FAILED when there are dead letters or a shard has no worker."""
    shards = read(config)
    problems = [f"shard {shard.shard} has no worker" for shard in shards if shard.worker is None]
    dead = sum(instance.tasks["failed"] for shard in shards for instance in shard.instances)
    if dead:
        problems.append(f"{dead} dead letters; see: incus-courier tasks list --state failed")
    if as_json:
        sys.stdout.write(json.dumps({"shards": [asdict(shard) for shard in shards], "problems": problems}) + "\n")
    else:
        _print(shards, problems)
    return EXIT_FAILED if problems else EXIT_OK


def _print(shards: list[ShardStatus], problems: list[str]) -> None:
    console = Console(highlight=False)
    table = Table("shard", "worker", "instance", *_COLUMNS, "bytes", "oldest", box=None)
    for shard in shards:
        worker = "none" if shard.worker is None else str(shard.worker)
        for instance in shard.instances or [InstanceStatus("-")]:
            age = "-" if instance.oldest_age_s is None else f"{instance.oldest_age_s:.0f} s"
            table.add_row(str(shard.shard), worker, instance.instance,
                          *(str(count) for count in instance.tasks.values()), str(instance.size_bytes), age)
    console.print(table)
    for problem in problems:
        console.print(f"! {problem}", markup=False)
