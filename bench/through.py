"""From the first byte at the socket until the last file is in its container, while uploads come in."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from bench import containers, durable, go_peer, load
from bench.containers import Container
from bench.figures import Figure, Goal, Section, alternate, median
from bench.go_peer import GoPeer
from bench.inotify import IN_CLOSE_WRITE, IN_MOVED_TO, Watch
from bench.load import Load
from bench.machine import cpu_times
from bench.plan import Plan
from bench.prepared import wait_until_idle
from bench.service import Service
from worker.targets.incus.endpoints import find_endpoint

TITLE: Final = "From the socket to the container, under load"
METHOD: Final = """\
The load of the first table, for twice as long, into one directory in each of 4 containers; the whole service in its
default configuration accepts and delivers at the same time. The time runs from the first byte until the last file has
its name in its container, which inotify(7) tells on the host. Beside it, in alternating rounds, the plain Go server
of the table above with one worker and with four, which write each file through Incus's files API and remove it from
the spool; a file counts once it is written. *CPU* is user and system time of all API processes and workers until they
are idle. *Alone* is the same load on a service whose Incus is away.
"""
_CONTAINERS: Final = 4
_PARTS: Final = ("api", "worker")
_ROUNDS: Final = 3
_WARM_UP_S: Final = 0.5
_LOOK_EVERY_S: Final = 0.02
_DELIVERY_S: Final = 600.0
#: The workers of the Go server, and the least ratio to it.
_PEERS: Final = {1: 3.0, 4: 2.0}


@dataclass(frozen=True)
class Through:
    """What one round found."""

    load: Load
    #: From the first byte until the last file.
    seconds: float
    machine_share: float
    #: Milliseconds of CPU for one file, by the part of the service that used it.
    cpu_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Files a second."""
        return self.load.uploads / self.seconds


def run(plan: Plan) -> Section:
    """Measure it."""
    endpoint = find_endpoint()
    reason = containers.reason_against()
    if reason is not None or endpoint is None:
        return Section(title=TITLE, method=METHOD, notes=[reason or "Not measured: there is no Incus."])
    scratch = plan.directory("through")
    no_go = go_peer.reason_against()
    with ExitStack() as running:
        there = running.enter_context(containers.containers(_CONTAINERS))
        alone = running.enter_context(durable.away(scratch / "away"))
        service = running.enter_context(Service(scratch / "state", target="incus"))
        for each in (alone, service):
            each.serve()
        sides: dict[str, Callable[[float], Through]] = {
            "alone": partial(_accept, alone, there), "ours": partial(_serve, service, there)}
        for workers in _PEERS if no_go is None else ():
            peer = running.enter_context(GoPeer(scratch / f"peer-{workers}", workers=workers, endpoint=endpoint))
            sides[_peer(workers)] = partial(_deliver, peer.port, there, IN_CLOSE_WRITE)
        for measure in sides.values():
            measure(_WARM_UP_S)
        found = alternate(min(_ROUNDS, plan.rounds), {
            name: partial(measure, 2 * plan.load_s) for name, measure in sides.items()})
    return Section(title=TITLE, method=METHOD, figures=[*_beside_peers(found), *_own(found["alone"], found["ours"])],
                   notes=[*([no_go] if no_go else []), _note(found["ours"])])


def _peer(workers: int) -> str:
    return f"{go_peer.NAME}, {workers} worker{'s' if workers > 1 else ''}"


def _accept(service: Service, there: Sequence[Container], seconds: float) -> Through:
    """Uploads that nobody delivers."""
    os.sync()
    cpu = cpu_times()
    found = load.run(service.port, seconds=seconds, instances=[target.name for target in there])
    return Through(found, found.seconds, cpu_times().share_since(cpu))


def _serve(service: Service, there: Sequence[Container], seconds: float) -> Through:
    """Uploads that the service delivers, with the CPU that they cost it until it has nothing left to do."""
    before = {part: service.cpu_s(part) for part in _PARTS}
    found = _deliver(service.port, there, IN_MOVED_TO, seconds)
    wait_until_idle(service.layout, {target.key for target in there})
    return replace(found, cpu_ms={
        part: 1000 * (service.cpu_s(part) - used_s) / found.load.uploads for part, used_s in before.items()})


def _deliver(port: int, there: Sequence[Container], mask: int, seconds: float) -> Through:
    """Put load on a server that delivers. Raises TimeoutError when not all of it arrives."""
    name = f"through-{os.urandom(4).hex()}"
    places = [target.make_directory(name) for target in there]
    os.sync()
    with Watch(mask, *places) as watch, ThreadPoolExecutor(1) as beside:
        cpu = cpu_times()
        running = beside.submit(load.run, port, seconds=seconds, instances=[target.name for target in there],
                                directory=f"/root/{name}")
        arrived = 0
        last_at = time.perf_counter()
        deadline = last_at + seconds + _DELIVERY_S
        while not running.done() or arrived < running.result().uploads:
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{arrived} files have arrived in {_DELIVERY_S:.0f} s")
            time.sleep(_LOOK_EVERY_S)
            if came := watch.take():
                arrived, last_at = arrived + came, time.perf_counter()
        found = running.result()
        return Through(found, last_at - found.began, cpu_times().share_since(cpu))


def _beside_peers(found: Mapping[str, Sequence[Through]]) -> Iterator[Figure]:
    for workers, goal in _PEERS.items():
        if _peer(workers) in found:
            ours, peers = (median([one.rate for one in found[name]]) for name in ("ours", _peer(workers)))
            yield Figure(what="from the socket to the container", value=ours, unit="files/s", peer=_peer(workers),
                         peer_value=peers, goals=[Goal("ratio", ">=", goal)])


def _own(alone: Sequence[Through], ours: Sequence[Through]) -> Iterator[Figure]:
    yield Figure(what="CPU of API and workers for one file", value=median([sum(one.cpu_ms.values()) for one in ours]),
                 unit="ms", goals=[Goal("value", "<=", 1.3)])
    yield Figure(what="accepted while workers deliver", value=median([one.load.rate for one in ours]), unit="/s",
                 peer="alone", peer_value=median([one.load.rate for one in alone]), goals=[Goal("ratio", ">=", 0.6)])


def _note(ours: Sequence[Through]) -> str:
    api, worker = (median([one.cpu_ms[part] for one in ours]) for part in _PARTS)
    return (f"Of the CPU for one file the API used {api:.2f} ms, the workers {worker:.2f} ms; the machine was"
            f" {median([one.machine_share for one in ours]):.0%} busy.")
