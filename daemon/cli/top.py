"""`incus-courier top`: the overview in a terminal, live; where nobody looks at a terminal it is printed once."""

import sys
from collections.abc import Iterator, Sequence
from typing import Final

from daemon.cli.screen import open_screen
from daemon.cli.tables import aligned
from daemon.errors import CourierError
from daemon.model.seat import Overview, Seat, Values
from daemon.model.task import PENDING, State
from daemon.model.words import age, amount
from daemon.process.exit_status import EXIT_FAILED, EXIT_OK, Unable
from daemon.process.output import say, say_json

_UNKNOWN: Final = "-"
#: The last hour is so many bars wide; each stands for two minutes.
_SPARKS: Final = 30
_BARS: Final = "▁▂▃▄▅▆▇█"
#: Begins the line that says why what is shown is not of now.
_UNASKED: Final = "! Not of now: "
#: Problems that are told; the others are counted.
_MOST_PROBLEMS: Final = 8


def top(seat: Seat, *, every_s: float, as_json: bool) -> int:
    """Show it; on a terminal until Ctrl-C."""
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        _print(seat.overview(), as_json=as_json)
        return EXIT_OK
    # Before the terminal changes: what cannot be shown at all is said on it as it is.
    lines = list(overview_lines(seat.overview()))
    with open_screen() as screen:
        while True:
            screen.show(lines)
            if screen.wait(every_s) == "q":
                return EXIT_OK
            lines = _look(seat, lines)


def _look(seat: Seat, before: Sequence[str]) -> list[str]:
    """How it stands; while that cannot be asked, how it stood, and why."""
    try:
        return list(overview_lines(seat.overview()))
    except (Unable, CourierError) as error:
        first, *others = before
        kept = others[1:] if others and others[0].startswith(_UNASKED) else others
        return [first, f"{_UNASKED}{error}", *kept]


def status(seat: Seat, *, most: int, as_json: bool) -> int:
    """Print it once, with so many instances; EXIT_FAILED when something needs a person."""
    found = seat.overview(most)
    _print(found, as_json=as_json)
    return EXIT_FAILED if found.whole["problems"] else EXIT_OK


def _print(found: Overview, *, as_json: bool) -> None:
    if as_json:
        say_json({**found.whole, "instances": list(found.instances)})
    else:
        for line in overview_lines(found):
            say(line)


def overview_lines(found: Overview) -> Iterator[str]:
    """The overview in lines: what needs a person first. Pure."""
    whole = found.whole
    yield f"incus-courier {whole['version']}  {whole['now']}"
    yield from _problems(whole)
    yield ""
    yield from _flow(whole)
    yield ""
    yield from aligned(("shard", "worker", "lanes", "sessions", "pushing", "fault"), (
        [shard["shard"], "none" if shard["worker"] is None else shard["worker"] or "?",
         *(shard[name] for name in ("lanes", "sessions", "pushing")), shard["fault"] or ""]
        for shard in whole["shards"]))
    if whole["remotes"]:
        yield ""
        yield from aligned(("remote", "stands", "since"), (
            [remote["remote"], "up" if remote["up"] else f"away: {(remote['error'] or {}).get('code', '')}",
             remote["since"]] for remote in whole["remotes"]))
    if found.instances:
        yield ""
        yield from aligned(("instance", "waiting", "deferred", "held", "failed", "oldest", "why"),
                           map(_instance, found.instances))


def _problems(whole: Values) -> Iterator[str]:
    problems = whole["problems"]
    if not problems:
        yield "Nothing needs a person."
    for problem in problems[:_MOST_PROBLEMS]:
        about = f"{problem['instance']}: " if problem["instance"] else ""
        yield f"! {about}{problem['message']}"
        if problem["hint"]:
            yield f"  {problem['hint']}"
    if len(problems) > _MOST_PROBLEMS:
        yield f"! and {len(problems) - _MOST_PROBLEMS} more"


def _flow(whole: Values) -> Iterator[str]:
    rates, counts, disk, partials = whole["rates"], whole["counts"], whole["disk"], whole["partials"]
    hour = whole.get("history") or {}
    waiting = sum(counts[state.label]["tasks"] for state in PENDING)
    for name, now, key in (("in", f"{_rate(rates['uploads_s'])}/s, {_bytes(rates['upload_bytes_s'])}/s", "uploads"),
                           ("out", f"{_rate(rates['deliveries_s'])}/s, {_bytes(rates['delivery_bytes_s'])}/s",
                            "deliveries"),
                           ("waiting", f"{waiting:,}", "waiting"),
                           ("failed", f"{counts[State.FAILED.label]['tasks']:,}", "failed")):
        yield f"{name:8} {now:20} {sparkline(hour.get(key) or (), _SPARKS)}".rstrip()
    yield ""
    yield "   ".join(f"{state.label} {counts[state.label]['tasks']:,}" for state in State)
    oldest = _UNKNOWN if whole["oldest_age_s"] is None else age(whole["oldest_age_s"])
    yield (f"oldest {oldest}   disk {_bytes(disk['free_bytes'])} free of {_bytes(disk['total_bytes'])}"
           f"   spool {_bytes(disk['spool_bytes'])}"
           f"   resumable {partials['number']}, {_bytes(partials['bytes'])}")


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Numbers as bars, oldest first, of which each is the largest of its share; a gap where none is known. Pure."""
    shares = [[value for value in values[len(values) * n // width:len(values) * (n + 1) // width] if value is not None]
              for n in range(width)] if any(value is not None for value in values) else []
    most = max((max(share) for share in shares if share), default=0.0)
    return "".join(_bar(max(share), most) if share else " " for share in shares).rstrip()


def _bar(value: float, most: float) -> str:
    return _BARS[0] if value <= 0 else _BARS[min(len(_BARS) - 1, 1 + int(value / most * (len(_BARS) - 2)))]


def _instance(row: Values) -> list[object]:
    counts = row["counts"]
    oldest = _UNKNOWN if row["oldest_age_s"] is None else age(row["oldest_age_s"])
    return [row["name"], row["waiting"], *(counts[state]["tasks"] for state in ("deferred", "held", "failed")), oldest,
            row["why"] or ""]


def _rate(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.1f}"


def _bytes(value: float | None) -> str:
    return _UNKNOWN if value is None else amount(round(value))
