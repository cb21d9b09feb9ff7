"""`incus-courier status`: what waits where, read from the queue without disturbing anyone.

What it prints is as long for a million instances as for a few: totals of each shard, and the instances with most to do.
All of them are printed page by page as they are read.
"""

import heapq
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final

from daemon.cli.all_shards import existing, shards_of
from daemon.cli.tables import show_table
from daemon.cli.webhooks import notes_on
from daemon.config import Config
from daemon.errors import QueueFault
from daemon.model.task import State
from daemon.model.words import age
from daemon.partials import count
from daemon.process.exit_status import EXIT_FAILED, EXIT_OK
from daemon.process.output import say, say_json
from daemon.state.layout import Layout
from daemon.state.shard_lock import holder
from daemon.task_queue import Operate, Survey, Total, WebhookStanding, open_existing
from daemon.webhooks.view import describe_webhook, overall

#: The columns of the tables, and the states that each of them counts.
_COLUMNS: Final = {
    "pending": frozenset({State.QUEUED, State.PUSHING}), "deferred": frozenset({State.DEFERRED}),
    "held": frozenset({State.HELD}), "failed": frozenset({State.FAILED}), "delivered": frozenset({State.DELIVERED}),
}
_KEEPS_BYTES: Final = frozenset({State.QUEUED, State.PUSHING, State.DEFERRED, State.HELD, State.FAILED})
#: Instances that are read and printed at once when all are printed.
_PAGE: Final = 1000


@dataclass
class Counts:
    """Tasks by column, the bytes that are kept for them, and how long the oldest that is not finished has waited."""

    tasks: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COLUMNS, 0))
    size_bytes: int = 0
    oldest_age_s: float | None = None

    @property
    def unfinished(self) -> int:
        """How many tasks wait for something."""
        return sum(self.tasks.values()) - self.tasks["delivered"]


@dataclass
class InstanceStatus:
    """What waits for one instance."""

    instance: str
    counts: Counts

    def as_json(self) -> dict[str, Any]:
        """The instance as JSON values."""
        return {"instance": self.instance, **asdict(self.counts)}


@dataclass
class ShardStatus:
    """One shard: its worker, what waits in it, and the instances with most to do."""

    shard: int
    #: Process id of the worker; None when there is none.
    worker: int | None
    #: What people asked for, and no worker has done yet.
    commands: int = 0
    #: Why the shard's queue cannot be read, or None.
    fault: str | None = None
    #: How the webhooks stand in it.
    webhooks: list[WebhookStanding] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    instances: list[InstanceStatus] = field(default_factory=list)
    #: Other instances in which something waits.
    more_instances: int = 0

    def as_json(self) -> dict[str, Any]:
        """The shard as JSON values."""
        return {"shard": self.shard, "worker": self.worker, "commands": self.commands, "fault": self.fault,
                **asdict(self.counts), "instances": [instance.as_json() for instance in self.instances],
                "more_instances": self.more_instances}


@dataclass
class PartialsStatus:
    """Resumable uploads that are not finished."""

    number: int = 0
    #: Bytes that are here.
    size_bytes: int = 0
    #: How long the one has been silent to which nothing was added for longest; None when there is none.
    oldest_age_s: float | None = None
    #: Why they cannot be counted, or None.
    fault: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What there is of them as JSON values."""
        return asdict(self)


def status(config: Config, *, limit: int, every: bool, as_json: bool) -> int:
    """Print how the service stands, with the `limit` instances that have most to do, or with every one.

    Returns EXIT_FAILED when something needs a person. Raises CannotStart when there is no state.
    """
    layout = existing(config)
    look = partial(_print_every, as_json=as_json) if every else partial(_find_busiest, limit=limit)
    shards = [_read_shard(layout, shard, look) for shard in shards_of(layout, config)]
    keep_busiest(shards, limit)
    hooks = overall(config.webhooks, [shard.webhooks for shard in shards])
    problems = list(problems_of(shards))
    partials = _read_partials(layout)
    if as_json:
        say_json({"shards": [shard.as_json() for shard in shards], "partials": partials.as_json(),
                  "webhooks": [describe_webhook(hook) for hook in hooks], "problems": problems})
    else:
        _print(shards, [*notes_on(hooks), *_notes_on_partials(partials)], problems)
    return EXIT_FAILED if problems else EXIT_OK


# --- reading -----------------------------------------------------------------------------------------------


def _read_shard(layout: Layout, shard: int, look: Callable[[ShardStatus, Survey], None]) -> ShardStatus:
    found = ShardStatus(shard, None)
    try:
        found.worker = holder(layout, shard)
        queue = open_existing(layout, shard)
        if queue is not None:
            with closing(queue):
                _read_totals(found, queue)
                look(found, queue)
    except QueueFault as fault:
        found.fault = fault.detail
    except OSError as error:
        found.fault = f"{error.filename}: {error.strerror}"
    return found


def _read_partials(layout: Layout) -> PartialsStatus:
    try:
        census = count(layout)
    except FileNotFoundError:
        # No version that knows them has started here yet.
        return PartialsStatus()
    except OSError as error:
        return PartialsStatus(fault=f"{error.filename}: {error.strerror}")
    oldest_age_s = None if census.oldest_at is None else _age_s(census.oldest_at)
    return PartialsStatus(census.number, census.present_bytes, oldest_age_s)


def _age_s(since: float) -> float:
    return round(max(0.0, time.time() - since), 1)


def _read_totals(found: ShardStatus, queue: Operate) -> None:
    found.commands = queue.pending_commands()
    found.webhooks = queue.webhook_standings()
    found.counts = _counts(queue.totals(frozenset().union(*_COLUMNS.values())), queue.oldest_at())


def _find_busiest(found: ShardStatus, queue: Survey, *, limit: int) -> None:
    instances, keys = queue.busiest(limit)
    found.instances = _standing(queue, keys)
    found.more_instances = instances - len(keys)


def _print_every(found: ShardStatus, queue: Operate, *, as_json: bool) -> None:
    after = ""
    while keys := queue.instance_keys(after, _PAGE):
        page = _standing(queue, keys)
        if as_json:
            for instance in page:
                say_json({"shard": found.shard, **instance.as_json()})
        else:
            _show_instances((found.shard, instance) for instance in page)
        after = keys[-1]


def _standing(queue: Survey, keys: list[str]) -> list[InstanceStatus]:
    return [InstanceStatus(standing.instance_key, _counts(standing.totals, standing.oldest_at))
            for standing in queue.standings(keys)]


def _counts(totals: Mapping[State, Total], oldest_at: float | None) -> Counts:
    return Counts(
        tasks={column: sum(totals[state].tasks for state in states & totals.keys())
               for column, states in _COLUMNS.items()},
        size_bytes=sum(total.size_bytes for state, total in totals.items() if state in _KEEPS_BYTES),
        oldest_age_s=None if oldest_at is None else _age_s(oldest_at))


def keep_busiest(shards: list[ShardStatus], limit: int) -> None:
    """Keep the `limit` instances of all shards that have most to do; of the others their number."""
    kept = heapq.nlargest(limit, (instance for shard in shards for instance in shard.instances),
                          key=lambda instance: instance.counts.unfinished)
    names = {instance.instance for instance in kept}
    for shard in shards:
        listed = [instance for instance in shard.instances if instance.instance in names]
        shard.more_instances += len(shard.instances) - len(listed)
        shard.instances = listed


def problems_of(shards: list[ShardStatus]) -> Iterator[str]:
    """What needs a person."""
    for shard in shards:
        if shard.worker is None:
            yield f"shard {shard.shard} has no worker"
        if shard.fault is not None:
            yield f"shard {shard.shard} cannot be read: {shard.fault}"
    dead = sum(shard.counts.tasks["failed"] for shard in shards)
    if dead:
        yield f"{dead} dead letters; see: incus-courier tasks list --state failed"


def _notes_on_partials(partials: PartialsStatus) -> Iterator[str]:
    if partials.number:
        yield (f"{partials.number} resumable uploads are not finished: {partials.size_bytes} bytes, one silent for"
               f" {age(partials.oldest_age_s or 0.0)}")
    if partials.fault is not None:
        yield f"The resumable uploads cannot be counted: {partials.fault}"


# --- printing ----------------------------------------------------------------------------------------------


def _print(shards: list[ShardStatus], notes: list[str], problems: list[str]) -> None:
    if any(shard.instances for shard in shards):
        _show_instances((shard.shard, instance) for shard in shards for instance in shard.instances)
        say()
    more = sum(shard.more_instances for shard in shards)
    if more:
        say(f"and {more} more instances in which something waits; see: incus-courier status --all")
        say()
    show_table(("shard", "worker", "commands", *_COLUMNS, "bytes", "oldest"), map(_shard_row, shards))
    for note in notes:
        say(note)
    for problem in problems:
        say(f"! {problem}")


def _show_instances(instances: Iterator[tuple[int, InstanceStatus]]) -> None:
    show_table(("shard", "instance", *_COLUMNS, "bytes", "oldest"),
               ([shard, instance.instance, *_cells(instance.counts)] for shard, instance in instances))


def _shard_row(shard: ShardStatus) -> list[object]:
    return [shard.shard, "none" if shard.worker is None else shard.worker, shard.commands, *_cells(shard.counts)]


def _cells(counts: Counts) -> list[object]:
    oldest = "-" if counts.oldest_age_s is None else age(counts.oldest_age_s)
    return [*counts.tasks.values(), counts.size_bytes, oldest]
