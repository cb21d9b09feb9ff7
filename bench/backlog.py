"""Whether a long backlog, or a dead instance, makes anything slower."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from bench import containers, fill, load
from bench.accept import INSTANCES
from bench.containers import Container
from bench.delivery import make_small
from bench.figures import Figure, Goal, Section, alternate, median
from bench.machine import peak_rss_bytes
from bench.plan import Plan
from bench.prepared import Prepared
from bench.queue_cost import Cost, Probe, lifetime
from bench.service import SHARDS, Service
from daemon.config import LOCAL
from daemon.model.upload import Destination
from daemon.task_queue.sqlite.queue import SqliteQueue

TITLE: Final = "Flat cost: a long backlog and a dead instance"
_SMALL: Final = 1000
_DUE_WITHIN_S: Final = 600.0
_RUN_S: Final = 10.0
METHOD: Final = f"""\
Three states: a small backlog of {_SMALL:,} tasks, a large one, and many deferred tasks of one instance that is not
there, due one after the other within {_DUE_WITHIN_S:.0f} s. Pending tasks are spread over {fill.INSTANCES:,} instances.
They are put in large transactions; their spool files are real (no bytes, and the
trailer) but made without a sync each. *Accepted* is the load of the first table on each state, without workers. *Put*,
*claim* and *settle* are calls of the queue with 16, 64 and 16 tasks. *Start* is from starting one of two workers,
which deliver into directories, until it says that its first file is delivered; its memory is the peak of the
{_RUN_S:.0f} s after that. *Delivered to other instances* is as in the table of deliveries, into two containers.
*From put to cleared*: each task is put, claimed, settled, unspooled and cleared, with 10,000 finished rows kept; the
last tenth of the tasks beside the first.
"""
_DEAD: Final = "dead-instance"
_FLAT: Final = (Goal("ratio", "<=", 1.5),)
_OTHERS: Final = 500
_STARTS: Final = 3

Result = TypeVar("Result")


def run(plan: Plan) -> Section:
    """Measure it."""
    scratch = plan.directory("backlog")
    small, large, dead = (scratch / name for name in ("small", "large", "dead"))
    notes = []
    others: list[Figure] = []
    _defer(dead, plan.deferred)
    reason = containers.reason_against()
    if reason is None:
        others += _delivering(plan, scratch, dead)
    else:
        notes.append(f"Delivery to other instances: {reason}")
    fill.fill(small, _SMALL, files=True)
    fill.fill(large, plan.pending, files=True)
    states = {f"{_SMALL:,} pending": small, f"{plan.pending:,} pending": large, f"{plan.deferred:,} deferred": dead}
    figures = [*_accepting(plan, states), *_queueing(plan, states), *_starting(small, large, plan), *others]
    aged = lifetime(scratch / "life", plan.lifetime)
    figures.append(Figure(what=f"one task from put to cleared, after {plan.lifetime:,} tasks", value=aged.last_us,
                          unit="µs", peer="the first tasks", peer_value=aged.first_us, goals=_FLAT))
    notes.append(f"After {plan.lifetime:,} tasks the database had {aged.database_bytes / 2**20:.0f} MiB; its"
                 f" write-ahead log never more than {aged.wal_peak_bytes / 2**20:.1f} MiB.")
    return Section(title=TITLE, method=METHOD, figures=figures, notes=notes)


def _defer(state: Path, count: int) -> None:
    service = Service(state, target="incus")
    shard = Destination(LOCAL, "default", _DEAD, "/").shard(SHARDS)
    with SqliteQueue(service.layout, shard) as queue:
        fill.defer(queue, _DEAD, count, due_within_s=_DUE_WITHIN_S)


def _accepting(plan: Plan, states: dict[str, Path]) -> Iterator[Figure]:
    with ExitStack() as running:
        ports = {}
        for name, state in states.items():
            service = running.enter_context(Service(state, target="directory"))
            service.start_api()
            ports[name] = service.port
            load.run(service.port, seconds=1, instances=INSTANCES)
        found = alternate(plan.rounds, {
            name: partial(load.run, port, seconds=plan.load_s, instances=INSTANCES) for name, port in ports.items()})
    costs = {name: 1e6 / median([one.rate for one in some]) for name, some in found.items()}
    yield from _beside_the_first("accepting one upload", costs)


def _queueing(plan: Plan, states: dict[str, Path]) -> Iterator[Figure]:
    shard = Destination(LOCAL, "default", _DEAD, "/").shard(SHARDS)
    probes = {name: Probe(Service(state, target="directory").layout, shard) for name, state in states.items()}
    for probe in probes.values():
        probe.measure()
    found = alternate(plan.rounds * 3, {name: probe.measure for name, probe in probes.items()})
    for probe in probes.values():
        probe.close()
    steps: dict[str, Callable[[Cost], float]] = {
        "putting one task": lambda cost: cost.put, "claiming one task": lambda cost: cost.claim,
        "settling one task": lambda cost: cost.settle}
    for what, of in steps.items():
        yield from _beside_the_first(what, {name: median([of(one) for one in some]) for name, some in found.items()})


def _beside_the_first(what: str, costs: dict[str, float]) -> Iterator[Figure]:
    (peer, beside), *others = costs.items()
    for name, cost in others:
        yield Figure(what=f"{what}, {name}", value=cost, unit="µs", peer=peer, peer_value=beside, goals=_FLAT)


def _starting(small: Path, large: Path, plan: Plan) -> Iterator[Figure]:
    found = alternate(_STARTS, {"small": partial(_start, small), "large": partial(_start, large)})
    firsts, peaks = ({name: median([one[index] for one in some]) for name, some in found.items()} for index in (0, 1))
    peer = f"{_SMALL:,} pending"
    yield Figure(what=f"start to first delivery, {plan.pending:,} pending", value=firsts["large"], unit="s", peer=peer,
                 peer_value=firsts["small"], goals=[Goal("value", "<=", 3)])
    yield Figure(what=f"memory of the worker, {plan.pending:,} pending", value=peaks["large"], unit="MiB", peer=peer,
                 peer_value=peaks["small"], goals=[Goal("value", "<", 250)])


def _start(state: Path) -> tuple[float, float]:
    """Seconds from a worker's start to its first delivery, and MiB of memory it had at most."""
    # What the worker of the last round has left of a small backlog may be nothing.
    fill.fill(state, _SMALL, files=True)
    with Service(state, target="directory") as service:
        worker = service.start_worker(0, wait=False)
        worker.wait_for("push.delivered")
        first_s = time.perf_counter() - worker.started_at
        time.sleep(_RUN_S)
        return first_s, peak_rss_bytes(worker.pid) / 2**20


def _delivering(plan: Plan, scratch: Path, dead: Path) -> Iterator[Figure]:
    source = make_small(scratch / "file", 1)[0]
    with containers.containers(2) as there, _prepared(dead) as with_dead, _prepared(scratch / "plain") as without:

        def compare(targets: list[Container], count: int) -> dict[str, list[float]]:
            return alternate(plan.rounds, {
                "without": lambda: _deliver_s(without, targets, count, source),
                "with": lambda: _deliver_s(with_dead, targets, count, source)})

        compare(there, 5)
        one, many = compare(there[:1], 1), compare(there, _OTHERS)
    peer = "without the dead instance"
    yield Figure(what=f"one file to another instance, {plan.deferred:,} deferred", value=1000 * median(one["with"]),
                 unit="ms", peer=peer, peer_value=1000 * median(one["without"]), goals=[Goal("ratio", "<=", 1.3)])
    yield Figure(what=f"{2 * _OTHERS:,} files to other instances, {plan.deferred:,} deferred",
                 value=median(many["with"]), unit="s", peer=peer, peer_value=median(many["without"]), goals=_FLAT)


@contextmanager
def _prepared(state: Path) -> Iterator[Prepared]:
    with Service(state, target="incus") as service:
        prepared = Prepared(service, service.start_workers())
        prepared.freeze()
        yield prepared


def _deliver_s(prepared: Prepared, targets: list[Container], count: int, source: Path) -> float:
    """One delivery; these workers stand still before and after it."""
    prepared.thaw()
    seconds = prepared.deliver(targets, count, source).seconds
    prepared.freeze()
    return seconds
