"""The service of this machine, as somebody sees it who may read its state (`daemon.model.seat`)."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from heapq import nsmallest
from typing import Any, Final

from daemon import __version__
from daemon.cli.all_shards import AllShards, DamagedRow, open_all
from daemon.cli.filters import read_instance
from daemon.cli.save import save
from daemon.cli.task_commands import ask
from daemon.config import Config
from daemon.config.naming import instance_name, name_of_key
from daemon.errors import QueueFault
from daemon.explain import (
    Explanation,
    ServiceFacts,
    explain_instance,
    explain_task,
    oldest_of,
    read_service,
    tasks_ahead,
)
from daemon.explain.problems import DiskRoom, in_order
from daemon.explain.standing import (
    age_s,
    describe_counts,
    describe_history,
    describe_problem,
    describe_rates,
    describe_remote,
    describe_shard,
    remotes_of,
    sample_of,
)
from daemon.model.seat import BUSIEST, Overview, SearchedTasks, TaskFilter, TaskReply, Values
from daemon.model.task import OUTCOMES, PENDING, State, Task
from daemon.model.upload import Destination
from daemon.model.view import describe, describe_step, describe_whole, when
from daemon.partials import Census, count
from daemon.process.exit_status import Unable
from daemon.spool import open_spool
from daemon.state.history import HistoryFile, Hour, Rates, Series, rates_now, series, with_sample
from daemon.state.layout import Layout
from daemon.task_queue import Command, Operate, Position, Standing, TaskQuestion, Total

#: Between two looks at what has happened, in seconds; and how often is looked whatever the beats say.
_TICK_S: Final = 0.05
_LOOK_S: Final = 1.0
#: Events that are read at once.
_PAGE: Final = 1000
#: Names of instances that are looked through to complete one.
_MOST_NAMES: Final = 1000


class LocalSeat:
    """It. For one thread."""

    def __init__(self, config: Config, shards: AllShards, asked_by: str) -> None:
        """Looks at the shards that are open; `asked_by` is who asks for what is to be done."""
        self._config = config
        self._asked_by = asked_by
        self._layout = Layout(config.state.path)
        self._shards = shards
        self._hour: Hour = {}

    def name_of(self, values: Values) -> str:
        """The instance of a task or an event."""
        return instance_name(Destination(values["remote"], values["project"], values["instance"], "/"), self._config)

    def find(self, task_id: str, wait_s: float = 0.0) -> Values | None:
        """A task with its history; waits for its outcome."""
        until, seen, look_at = time.monotonic() + wait_s, -1, 0.0
        while True:
            beat, now = sum(queue.beat() for queue in self._shards.queues.values()), time.monotonic()
            if beat != seen or now >= min(look_at, until):
                seen, look_at = beat, now + _LOOK_S
                found = self._find(task_id)
                if found is None or found[1].state in OUTCOMES or now >= until:
                    return None if found is None else describe_whole(found[1])
            time.sleep(max(0.0, min(_TICK_S, until - now)))

    def search(
        self, wanted: TaskFilter, after: str | None, limit: int, patience_s: float = 0.0,
    ) -> SearchedTasks:
        """Up to `limit` tasks."""
        to = self._place(wanted)
        question = TaskQuestion(
            states=wanted.states, instance_key=None if to is None else to.instance_key, client=wanted.client,
            path=wanted.path, error=wanted.error, since=wanted.since, until=wanted.until)
        found = self._shards.search(question, after, limit)
        return SearchedTasks(tuple(describe(task) for task in found.tasks), found.next_before)

    def happenings(self, wanted: TaskFilter) -> Iterator[Values | None]:
        """What happens."""
        to = self._place(wanted)
        fits = _fitting(wanted, None if to is None else to.instance_key)
        queues = self._shards.queues
        positions = {shard: queue.position() for shard, queue in queues.items()}
        beats, look_at = dict.fromkeys(queues, -1), 0.0
        while True:
            now = time.monotonic()
            every, look_at = now >= look_at, now + _LOOK_S if now >= look_at else look_at
            for shard, queue in queues.items():
                beat = queue.beat()
                if every or beat != beats[shard]:
                    beats[shard] = beat
                    positions[shard] = yield from _read_on(queue, positions[shard], fits)
            time.sleep(_TICK_S)

    def explain(self, task_id: str | None, instance: str | None) -> Values | None:
        """Why something waits."""
        if task_id is not None:
            told = self._explain_task(task_id)
            return None if told is None else {"id": task_id, **told.as_json()}
        to = read_instance(instance or "", self._config)
        name = instance_name(to, self._config)
        return {"instance": name, **self._explain_instance(to.instance_key, to.shard(self._shards.number)).as_json()}

    def overview(self, most: int = BUSIEST) -> Overview:
        """How the whole stands."""
        now = time.time()
        services = [self._service(shard) for shard in range(self._shards.number)]
        totals = self._totals()
        oldest_at = min((at for queue in self._shards.queues.values() if (at := queue.oldest_at())), default=None)
        room = self._room(totals)
        remotes = remotes_of(services)
        ranked = self._busiest(most)
        explained = [(key, self._explain_instance(key, shard)) for _, key, shard in ranked]
        problems = in_order(
            now=now, services=services, reasons=(), remotes=remotes, room=room, dead=totals[State.FAILED].tasks,
            stuck=[(name_of_key(key, self._config), why) for key, why in explained])
        partials = self._partials()
        rates, hour = self._recent(totals, now)
        whole = {
            "now": when(now), "version": __version__, "rates": describe_rates(rates),
            "counts": describe_counts(totals), "oldest_age_s": age_s(oldest_at, now),
            "disk": {"free_bytes": room.free_bytes, "total_bytes": room.total_bytes,
                     "min_free_bytes": room.min_free_bytes, "spool_bytes": room.spool_bytes},
            "partials": {"number": partials.number, "bytes": partials.present_bytes},
            "shards": [describe_shard(service, now) for service in services],
            "remotes": [describe_remote(remote) for remote in remotes],
            "problems": [describe_problem(problem) for problem in problems],
            "history": describe_history(hour)}
        return Overview(whole, tuple(
            self._row(key, self._shards.queues[shard], why, now)
            for (_, key, shard), (_, why) in zip(ranked, explained, strict=True)))

    def act(self, verb: str, wanted: TaskFilter, *, force: bool, wait: bool) -> list[TaskReply]:
        """Have something done."""
        command = Command(verb=verb, force=force, asked_by=self._asked_by)
        return ask(self._config, self._shards, wanted, command, wait=wait)

    def save(self, task_id: str, sink: int) -> bool:
        """Write a task's bytes."""
        found = self._find(task_id)
        if found is not None:
            with closing(open_spool(self._layout)) as spool:
                save(spool, found[1].upload, sink)
        return found is not None

    def unread(self) -> list[str]:
        """What to say of the shards that cannot be read."""
        return self._shards.unread()

    def names(self, beginning: str) -> list[str]:
        """Instances whose names begin so, of some that have tasks."""
        keys = [key for queue in self._shards.queues.values() for key in queue.instance_keys("", _MOST_NAMES)]
        names = [name_of_key(key, self._config) for key in keys]
        return [name for name in names if name.startswith(beginning)]

    # --- reading -----------------------------------------------------------------------------------------

    def _find(self, task_id: str) -> tuple[int, Task] | None:
        """A task and its shard; None where there is none. Raises Unable where that cannot be known."""
        try:
            found = self._shards.find(task_id)
        except DamagedRow as error:
            raise Unable(f"{task_id}: {error}") from None
        if found is None and self._shards.faults:
            raise Unable("; ".join([f"{task_id}: there is no such task", *self._shards.unread()]))
        return found

    def _place(self, wanted: TaskFilter) -> Destination | None:
        return None if wanted.instance is None else read_instance(wanted.instance, self._config)

    def _explain_task(self, task_id: str) -> Explanation | None:
        found = self._find(task_id)
        if found is None:
            return None
        shard, task = found
        ahead = tasks_ahead(self._shards.queues[shard], task)
        name = instance_name(task.destination, self._config)
        return explain_task(task, time.time(), read_service(self._layout, shard), ahead, name=name)

    def _explain_instance(self, key: str, shard: int) -> Explanation:
        standing, oldest = Standing(instance_key=key, totals={}, oldest_at=None), list[Task]()
        queue, fault = self._shards.queues.get(shard), self._shards.faults.get(shard)
        try:
            if queue is not None:
                [standing] = queue.standings([key])
                oldest = oldest_of(queue, standing)
        except QueueFault as met:
            fault = met
        service = read_service(self._layout, shard, fault=fault)
        return explain_instance(standing, oldest, time.time(), service, name=name_of_key(key, self._config))

    def _service(self, shard: int) -> ServiceFacts:
        return read_service(self._layout, shard, fault=self._shards.faults.get(shard))

    def _totals(self) -> dict[State, Total]:
        found = [queue.totals(frozenset(State)) for queue in self._shards.queues.values()]
        return {state: Total(sum(one[state].tasks for one in found if state in one),
                             sum(one[state].size_bytes for one in found if state in one)) for state in State}

    def _busiest(self, most: int) -> list[tuple[int, str, int]]:
        """The instances with most waiting: how many, negated, which, and in which shard."""
        ranked = [(-waiting, key, shard) for shard, queue in self._shards.queues.items()
                  for key, waiting in queue.ranked(most)[1]]
        return nsmallest(most, ranked)

    def _row(self, key: str, queue: Operate, why: Explanation, now: float) -> dict[str, Any]:
        [standing] = queue.standings([key])
        waiting = sum(total.tasks for state, total in standing.totals.items() if state in PENDING)
        return {"name": name_of_key(key, self._config), "waiting": waiting, "counts": describe_counts(standing.totals),
                "oldest_age_s": age_s(standing.oldest_at, now), "stuck": why.stuck,
                "why": why.summary if why.stuck and why.summary else None}

    def _room(self, totals: Mapping[State, Total]) -> DiskRoom:
        spool_bytes = sum(totals[state].size_bytes for state in PENDING | {State.FAILED})
        least = self._config.limits.min_free_bytes
        try:
            found = os.statvfs(self._layout.spool)
        except OSError:
            return DiskRoom(min_free_bytes=least, spool_bytes=spool_bytes)
        return DiskRoom(free_bytes=found.f_bavail * found.f_frsize, total_bytes=found.f_blocks * found.f_frsize,
                        min_free_bytes=least, spool_bytes=spool_bytes)

    def _partials(self) -> Census:
        with suppress(OSError):
            return count(self._layout)
        return Census()

    def _recent(self, totals: Mapping[State, Total], now: float) -> tuple[Rates | None, Series]:
        """What comes and goes, and the last hour as the service keeps it."""
        counted = [{(one.name, one.labels): one.value for one in queue.counters()}
                   for queue in self._shards.queues.values()]
        sample = sample_of(counted, totals, now)
        kept = HistoryFile(self._layout).read()
        if sample.slot not in self._hour:
            # Where no service keeps it, rates are known from the second slot on.
            self._hour = with_sample(self._hour, sample)
        return rates_now({**self._hour, **kept}, sample), series(kept, now)


Fits = Callable[[Task, State], bool]


def _fitting(wanted: TaskFilter, instance_key: str | None) -> Fits:
    """Whether what happened is wanted: that a task came into a state."""
    ids = frozenset(wanted.task_ids)

    def fits(task: Task, state: State) -> bool:
        return ((not ids or task.task_id in ids) and (not wanted.states or state in wanted.states)
                and instance_key in {None, task.destination.instance_key}
                and wanted.client in {None, task.upload.client})

    return fits


def _read_on(
    queue: Operate, position: Position, fits: Fits,
) -> Generator[Values | None, None, Position]:
    """What happened in a shard since a position; returns where to go on."""
    while True:
        happened = queue.happened(position, _PAGE, tasks=True)
        position = happened.position
        if happened.lost:
            yield None
        for event in happened.events:
            task = happened.tasks.get(event.task_id)
            if task is not None and fits(task, event.state):
                yield describe_step(task, event.state, event.at, event.code)
        if not happened.lost and len(happened.events) < _PAGE:
            return position


@contextmanager
def open_local(config: Config, asked_by: str = "") -> Iterator[LocalSeat]:
    """Look at the state that is configured. Raises CannotStart when there is none."""
    with open_all(config) as shards:
        yield LocalSeat(config, shards, asked_by)
