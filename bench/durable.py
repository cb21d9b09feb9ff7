"""Uploads per second until each is durable, and their CPU, beside a plain Go server."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bench import go_peer, load
from bench.figures import Figure, Goal, Section, alternate, median
from bench.go_peer import GoPeer
from bench.load import Load
from bench.machine import cpu_times
from bench.plan import Plan
from bench.service import Service

TITLE: Final = "Accepting small uploads, beside a plain Go server"
METHOD: Final = """\
The load of the first table on the whole service in its default configuration (`incus-courier serve`, the info log as
JSON in a file), whose Incus is away: its socket is not there. Beside it, in alternating rounds, a plain Go server
(`bench/peer`): a handler that writes a file, syncs it, renames it, syncs the directory, appends a line to a task log
and syncs that, then puts the task into a channel that nobody empties. *One path* is the same destination for all
uploads: the service lets each supersede the one before. *CPU* is user and system time of all API processes.
"""
_INSTANCES: Final = [f"durable-{number}" for number in range(8)]


@dataclass(frozen=True)
class Way:
    """One way to put load on both."""

    what: str
    connections: int
    one_path: bool
    #: The least ratio to the peer.
    goal: float


_WAYS: Final = (
    Way("16 connections", 16, False, 1.0),
    Way("64 connections", 64, False, 1.2),
    Way("one path again and again, 16 connections", 16, True, 1.0),
)


@dataclass(frozen=True)
class Accepted:
    """What one round found."""

    load: Load
    #: Milliseconds of CPU for one upload.
    cpu_ms: float
    machine_share: float


def run(plan: Plan) -> Section:
    """Measure it."""
    scratch = plan.directory("durable")
    reason = go_peer.reason_against()
    with ExitStack() as running:
        service = running.enter_context(away(scratch / "state"))
        service.serve()
        sides: dict[str, Callable[[float, Way], Accepted]] = {
            "ours": partial(_accept, service.port, partial(service.cpu_s, "api"))}
        if reason is None:
            peer = running.enter_context(GoPeer(scratch / "peer"))
            sides["peer"] = partial(_accept, peer.port, peer.cpu_s)
        for accept in sides.values():
            accept(1.0, _WAYS[0])
        found = [alternate(plan.rounds, {name: partial(accept, plan.load_s, way) for name, accept in sides.items()})
                 for way in (_WAYS if reason is None else _WAYS[:1])]
    notes = [reason] if reason else []
    return Section(title=TITLE, method=METHOD, figures=[*_rates(found), _cpu(found[0])],
                   notes=[*notes, _note(found[0]["ours"])])


def away(state: Path) -> Service:
    """The service, to be started; its Incus is away."""
    return Service(state, target="incus", settings={"incus": f'endpoint = "{state / "nobody-listens"}"'})


def _accept(port: int, cpu_s: Callable[[], float], seconds: float, way: Way) -> Accepted:
    used_s, cpu = cpu_s(), cpu_times()
    found = load.run(port, seconds=seconds, instances=_INSTANCES[:1] if way.one_path else _INSTANCES,
                     connections=way.connections, one_path=way.one_path)
    return Accepted(found, 1000 * (cpu_s() - used_s) / found.uploads, cpu_times().share_since(cpu))


def _rates(found: Sequence[dict[str, list[Accepted]]]) -> Iterator[Figure]:
    for way, sides in zip(_WAYS, found, strict=False):
        if "peer" in sides:
            ours, peer = (median([one.load.rate for one in sides[name]]) for name in ("ours", "peer"))
            yield Figure(what=f"accepted, {way.what}", value=ours, unit="/s", peer=go_peer.NAME, peer_value=peer,
                         goals=[Goal("ratio", ">=", way.goal)])


def _cpu(sides: dict[str, list[Accepted]]) -> Figure:
    costs = {name: median([one.cpu_ms for one in some]) for name, some in sides.items()}
    return Figure(what="CPU for one upload, 16 connections", value=costs["ours"], unit="ms",
                  peer=go_peer.NAME if "peer" in costs else "", peer_value=costs.get("peer"),
                  goals=[Goal("value", "<=", 0.6)])


def _note(ours: Sequence[Accepted]) -> str:
    load_share = median([one.load.cpu_s / one.load.seconds for one in ours])
    return (f"At 16 connections the service kept the machine {median([one.machine_share for one in ours]):.0%} busy;"
            f" the load used {load_share:.0%} of a core.")
