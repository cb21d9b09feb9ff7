"""How the whole, and an instance, look to people and programs. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from api.overview.fresh import Latest
from api.overview.instances import BOUNDS_S, MOST, InstanceRow, Page
from api.overview.surveyor import Whole
from daemon import __version__
from daemon.config import Config
from daemon.config.naming import name_of_key
from daemon.explain import EXPLANATION
from daemon.explain.problems import MOST as MOST_PROBLEMS
from daemon.explain.problems import late
from daemon.explain.standing import (
    age_s,
    describe_counts,
    describe_history,
    describe_problem,
    describe_rates,
    describe_remote,
    describe_shard,
)
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
from daemon.model.view import when
from daemon.state.history import SLOTS, STEP_S

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
        "rates": describe_rates(whole.rates),
        "counts": describe_counts(whole.counts), "oldest_age_s": age_s(whole.oldest_at, whole.at),
        "disk": {"free_bytes": whole.room.free_bytes, "total_bytes": whole.room.total_bytes,
                 "min_free_bytes": whole.room.min_free_bytes, "spool_bytes": whole.room.spool_bytes},
        "partials": {"number": whole.partials.number, "bytes": whole.partials.present_bytes},
        "shards": [describe_shard(service, whole.at) for service in whole.services],
        "remotes": [describe_remote(remote) for remote in whole.remotes],
        "problems": [describe_problem(one) for one in (late(whole.problems) if found.late else whole.problems)],
        "history": describe_history(whole.series),
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
        "counts": describe_counts(row.standing.totals), "waiting": row.waiting, "ages": list(row.ages),
        "oldest_age_s": age_s(row.standing.oldest_at, now), "stuck": why.stuck,
        "why": why.summary if why.stuck and why.summary else None,
    }
