"""How the whole, and an instance, look to people and programs. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from api.overview.fresh import Latest
from api.overview.history import SLOTS, STEP_S
from api.overview.instances import BOUNDS_S, MOST, InstanceRow, Page
from api.overview.problems import MOST as MOST_PROBLEMS
from api.overview.problems import Problem, late
from api.overview.surveyor import Whole
from daemon import __version__
from daemon.config import Config
from daemon.config.naming import name_of_key
from daemon.errors import ERRORS
from daemon.explain import EXPLANATION, ServiceFacts
from daemon.explain.words import service_trouble
from daemon.model.schema import (
    TIME,
    YES_OR_NO,
    Schema,
    answer,
    many,
    number,
    or_null,
    saying,
    text,
    whole_number,
)
from daemon.model.task import State
from daemon.model.view import when, when_or_none
from daemon.state.activity import RemoteStanding
from daemon.task_queue import Total

_TOTAL: Final = answer("TaskTotal", {"tasks": whole_number(0), "bytes": whole_number(0)})
_COUNTS: Final = answer("TaskCounts", {state.label: _TOTAL for state in State})
_RATE: Final = or_null(number(0))
_RATES: Final = ("uploads_s", "deliveries_s", "upload_bytes_s", "delivery_bytes_s")
_PROBLEM: Final = answer("Trouble", {
    "code": text("stable, for programs"), "message": text("what is wrong"), "hint": text("what to do about it"),
    "instance": or_null(text("the instance that it is about: `[remote:][project/]instance`"))})
_SHARD: Final = answer("ShardStanding", {
    "shard": whole_number(0),
    "worker": or_null(whole_number(
        0, None, "the process id of its worker; 0 where it cannot be told, null: none runs")),
    "at": or_null(saying(TIME, "when that told last what it does")),
    "lanes": whole_number(0, None, "instances whose tasks it has in hand"),
    "sessions": whole_number(0, None, "sessions to instances"),
    "pushing": whole_number(0, None, "files that are being pushed, as far as they are named"),
    "fault": or_null(text("why it delivers nothing"))})
_REMOTE: Final = answer("RemoteStanding", {
    "remote": text("its name in the configuration"), "up": YES_OR_NO, "since": TIME,
    "error": or_null(answer("RemoteError", {
        "code": text("stable, for programs"), "message": or_null(text("what it said")),
        "hint": or_null(text("what to do about it"))})),
    "next_try_at": or_null(TIME)})
_SERIES: Final = many(_RATE, most=SLOTS)
#: What `describe_overview` makes.
OVERVIEW: Final = answer("Overview", {
    "now": saying(TIME, "when it was looked"), "version": text("of the service"),
    "rates": saying(answer("Rates", dict.fromkeys(_RATES, _RATE)),
                    "in a second, over the last five to thirty; null while that is not known"),
    "counts": _COUNTS,
    "oldest_age_s": or_null(number(0, "of the oldest task that is not finished, in seconds")),
    "disk": answer("Disk", {
        "free_bytes": or_null(whole_number(0)), "total_bytes": or_null(whole_number(0)),
        "min_free_bytes": whole_number(0, None, "below that nothing is taken in"),
        "spool_bytes": whole_number(0, None, "of uploads that wait, and of dead letters")}),
    "partials": saying(answer("PartialUploads", {"number": whole_number(0), "bytes": whole_number(0)}),
                       "resumable uploads that are not finished"),
    "shards": many(_SHARD),
    "remotes": saying(many(_REMOTE), "those that workers have dealt with"),
    "problems": saying(many(_PROBLEM, most=MOST_PROBLEMS), "what needs a person, most urgent first"),
    "history": saying(answer("History", {
        "step_s": {"const": STEP_S}, "until": TIME, "uploads": saying(_SERIES, "in a second"),
        "deliveries": saying(_SERIES, "in a second"), "waiting": saying(_SERIES, "at the end of each step"),
        "failed": saying(_SERIES, "dead letters at the end of each step")}),
        "the last hour, step by step, oldest first; null where nobody counted"),
})
_ROW: Final[Mapping[str, Schema]] = {
    "name": text("as the commands take it: `[remote:][project/]instance`"),
    "instance": text(), "project": text(), "remote": text(),
    "counts": _COUNTS,
    "waiting": whole_number(0, None, "tasks that wait to be delivered"),
    "ages": saying(many(whole_number(0, MOST), least=len(BOUNDS_S) + 1, most=len(BOUNDS_S) + 1),
                   "how many of them are how old: younger than the first of `bounds_s`, and so on"),
    "oldest_age_s": or_null(number(0, "of its oldest task that is not finished, in seconds")),
    "stuck": saying(YES_OR_NO, "whether something keeps its tasks back that needs a look"),
    "why": or_null(text("what that is, in a sentence or two")),
}
_FRAME: Final[Mapping[str, Schema]] = {
    "now": TIME,
    "bounds_s": saying(many(whole_number(1)), "the ages at which one column ends and the next begins, in seconds"),
    "most": {"const": MOST, "description": "each cell of `ages` is counted so far"},
}
#: What `describe_instances` makes.
INSTANCES: Final = answer("InstancePage", {
    **_FRAME, "instances": many(answer("InstanceRow", _ROW)),
    "more": whole_number(0, None, "how many come behind these, as far as that is known"),
    "next": or_null(text("the address of the next page, if there may be one; also where this one is empty because"
                         " looking for more would have taken too long")),
})
#: What `describe_instance` makes.
INSTANCE: Final = answer("InstanceStanding", {**_FRAME, **_ROW, "explanation": EXPLANATION})


def describe_overview(found: Latest[Whole]) -> dict[str, Any]:
    """The whole, as JSON values. Times are RFC 3339, in UTC."""
    whole = found.value
    return {
        "now": when(whole.at), "version": __version__,
        "rates": {name: None if whole.rates is None else _rounded(getattr(whole.rates, name)) for name in _RATES},
        "counts": _counts(whole.counts), "oldest_age_s": _age(whole.oldest_at, whole.at),
        "disk": {"free_bytes": whole.room.free_bytes, "total_bytes": whole.room.total_bytes,
                 "min_free_bytes": whole.room.min_free_bytes, "spool_bytes": whole.room.spool_bytes},
        "partials": {"number": whole.partials.number, "bytes": whole.partials.present_bytes},
        "shards": [_shard(service, whole.at) for service in whole.services],
        "remotes": [_remote(remote) for remote in whole.remotes],
        "problems": [_problem(one) for one in (late(whole.problems) if found.late else whole.problems)],
        "history": {
            "step_s": STEP_S, "until": when(whole.series.until),
            "uploads": [_rounded(rate) for rate in whole.series.uploads],
            "deliveries": [_rounded(rate) for rate in whole.series.deliveries],
            "waiting": list(whole.series.waiting), "failed": list(whole.series.failed)},
    }


def describe_instances(
    page: Page, rows: list[InstanceRow], now: float, following: str | None, config: Config,
) -> dict[str, Any]:
    """A page of instances; `following` is the address of the next one."""
    return {**_frame(now), "instances": [_row(row, now, config) for row in rows], "more": page.more, "next": following}


def describe_instance(row: InstanceRow, now: float, config: Config) -> dict[str, Any]:
    """One instance by itself."""
    return {**_frame(now), **_row(row, now, config), "explanation": row.explanation.as_json()}


def _frame(now: float) -> dict[str, Any]:
    return {"now": when(now), "bounds_s": list(BOUNDS_S), "most": MOST}


def _row(row: InstanceRow, now: float, config: Config) -> dict[str, Any]:
    key, why = row.standing.instance_key, row.explanation
    remote, project, instance = key.split("/", 2)
    return {
        "name": name_of_key(key, config), "instance": instance, "project": project, "remote": remote,
        "counts": _counts(row.standing.totals), "waiting": row.waiting, "ages": list(row.ages),
        "oldest_age_s": _age(row.standing.oldest_at, now), "stuck": why.stuck,
        "why": why.summary if why.stuck and why.summary else None,
    }


def _counts(totals: Mapping[State, Total]) -> dict[str, Any]:
    found = {state: totals.get(state, Total()) for state in State}
    return {state.label: {"tasks": total.tasks, "bytes": total.size_bytes} for state, total in found.items()}


def _shard(service: ServiceFacts, now: float) -> dict[str, Any]:
    told, trouble = service.activity, service_trouble(service, now)
    at = service.last_at if told is None else told.at
    return {
        "shard": service.shard, "worker": service.worker, "at": when_or_none(at),
        "lanes": told.lanes if told else 0, "sessions": told.sessions if told else 0,
        "pushing": len(told.pushing) if told else 0,
        "fault": trouble.summary if trouble is not None and trouble.stuck else None,
    }


def _remote(remote: RemoteStanding) -> dict[str, Any]:
    kind = ERRORS.get(remote.code or "")
    error = {"code": remote.code, "message": remote.message, "hint": kind.hint if kind else None}
    return {
        "remote": remote.remote, "up": remote.up, "since": when(remote.since), "error": error if remote.code else None,
        "next_try_at": when_or_none(remote.next_try_at)}


def _problem(problem: Problem) -> dict[str, Any]:
    return {"code": problem.code, "message": problem.message, "hint": problem.hint, "instance": problem.instance}


def _age(since: float | None, now: float) -> float | None:
    return None if since is None else round(max(0.0, now - since), 1)


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 3)
