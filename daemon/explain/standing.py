"""How the parts of a service stand, as JSON values: for the overview of pages and of terminals alike. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from daemon.errors import ERRORS
from daemon.explain.facts import ServiceFacts
from daemon.explain.problems import Problem
from daemon.explain.words import service_trouble
from daemon.model import counters
from daemon.model.task import PENDING, State
from daemon.model.view import when, when_or_none
from daemon.state.activity import RemoteStanding
from daemon.state.history import STEP_S, Rates, Sample, Series, clock
from daemon.task_queue import Total


def remotes_of(services: Iterable[ServiceFacts]) -> tuple[RemoteStanding, ...]:
    """How each remote stands, in the order of their names: away for all where one worker told so. Pure."""
    found: dict[str, RemoteStanding] = {}
    for service in services:
        for told in service.activity.remotes if service.activity is not None else ():
            known = found.setdefault(told.remote, told)
            if (told.up, told.since) < (known.up, known.since):
                found[told.remote] = told
    return tuple(found[name] for name in sorted(found))


def describe_counts(totals: Mapping[State, Total]) -> dict[str, Any]:
    """How many tasks, and of how many bytes, are in each state."""
    found = {state: totals.get(state, Total()) for state in State}
    return {state.label: {"tasks": total.tasks, "bytes": total.size_bytes} for state, total in found.items()}


def describe_shard(service: ServiceFacts, now: float) -> dict[str, Any]:
    """How a shard is served, at the time `now`."""
    told, trouble = service.activity, service_trouble(service, now)
    at = service.last_at if told is None else told.at
    return {
        "shard": service.shard, "worker": service.worker, "at": when_or_none(at),
        "lanes": told.lanes if told else 0, "sessions": told.sessions if told else 0,
        "pushing": len(told.pushing) if told else 0,
        "fault": trouble.summary if trouble is not None and trouble.stuck else None,
    }


def describe_remote(remote: RemoteStanding) -> dict[str, Any]:
    """How a remote stands."""
    kind = ERRORS.get(remote.code or "")
    error = {"code": remote.code, "message": remote.message, "hint": kind.hint if kind else None}
    return {
        "remote": remote.remote, "up": remote.up, "since": when(remote.since), "error": error if remote.code else None,
        "next_try_at": when_or_none(remote.next_try_at)}


def describe_problem(problem: Problem) -> dict[str, Any]:
    """What needs a person."""
    return {"code": problem.code, "message": problem.message, "hint": problem.hint, "instance": problem.instance}


def sample_of(
    shards: Sequence[Mapping[counters.Key, float]], totals: Mapping[State, Total], now: float,
) -> Sample:
    """What had been counted in all shards by now, for the last hour's numbers."""
    def counted(key: counters.Key) -> float:
        return sum(shard.get(key, 0.0) for shard in shards)

    def tasks(*states: State) -> int:
        return sum(totals[state].tasks for state in states if state in totals)

    return Sample(
        at=now, tick=clock(), uploads=counted(counters.UPLOADS), upload_bytes=counted(counters.UPLOAD_BYTES),
        deliveries=counted(counters.finished(State.DELIVERED)), delivery_bytes=counted(counters.DELIVERED_BYTES),
        waiting=tasks(*PENDING), failed=tasks(State.FAILED))


def describe_rates(rates: Rates | None) -> dict[str, float | None]:
    """What comes and goes in a second; None where that is not known."""
    names = [field.name for field in fields(Rates)]
    return {name: None if rates is None else _rounded(getattr(rates, name)) for name in names}


def describe_history(found: Series) -> dict[str, Any]:
    """The last hour, oldest first."""
    return {
        "step_s": STEP_S, "until": when(found.until), "uploads": [_rounded(rate) for rate in found.uploads],
        "deliveries": [_rounded(rate) for rate in found.deliveries], "waiting": list(found.waiting),
        "failed": list(found.failed)}


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 3)


def age_s(since: float | None, now: float) -> float | None:
    """How old something is, in seconds; None where there is none."""
    return None if since is None else round(max(0.0, now - since), 1)
