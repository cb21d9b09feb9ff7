"""What needs a person, most urgent first: what an administrator reads at two in the morning. Pure.

What stops everything comes before what stops a remote, an instance, a task; what is told once is not told again for
each that suffers from it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from daemon.errors import ERRORS, CourierError
from daemon.explain.explanation import Explanation
from daemon.explain.facts import ServiceFacts
from daemon.explain.words import service_trouble
from daemon.model.words import amount
from daemon.state.activity import RemoteStanding

#: No more of them are told, and no more instances among them.
MOST: Final = 32
MOST_INSTANCES: Final = 16
#: Less room than so many times what has to stay free is nearly none.
NEARLY_FULL: Final = 4
#: What to do about what is no error of the table.
HINTS: Final = {
    "not_answering": "See whether the disk hangs; what is shown is of before.",
    "disk_nearly_full": "Make room for the state directory, deliver or delete what waits, or lower"
                        " limits.min_free_bytes.",
    "instance_stuck": "See what its oldest task waits for.",
    "dead_letters": "Each says why, in the list of tasks that failed. Mend that, then retry or delete them.",
}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that needs a person."""

    #: Stable, for programs: of the table of errors, or of `HINTS`.
    code: str
    #: What is wrong, and what to do about it.
    message: str
    hint: str
    #: The instance that it is about, as `tasks --instance` takes it; None: it is about more.
    instance: str | None = None


@dataclass(frozen=True, kw_only=True)
class DiskRoom:
    """Room on the disk, in bytes; None where it cannot be told."""

    free_bytes: int | None = None
    total_bytes: int | None = None
    #: Below that nothing is taken in.
    min_free_bytes: int = 0
    #: Bytes of uploads that are kept.
    spool_bytes: int = 0


def in_order(
    *, now: float, services: Iterable[ServiceFacts], reasons: Iterable[CourierError], remotes: Iterable[RemoteStanding],
    room: DiskRoom, stuck: Sequence[tuple[str, Explanation]], dead: int,
) -> list[Problem]:
    """All that needs a person.

    First the shards that deliver nothing, and the `reasons` why nothing is taken in; then remotes that are away, too
    little room, the instances that are `stuck`, by name, those that hold up most first; and how many tasks are `dead`.
    """
    shards = list(_shards(services, now))
    away = list(_away(remotes))
    told = {problem.code for problem in (*shards, *away)}
    others = [Problem(code=reason.code, message=reason.detail, hint=reason.kind.hint) for reason in reasons
              if reason.code not in told]
    instances = islice((_stuck(name, why) for name, why in stuck if why.stuck and why.code not in told), MOST_INSTANCES)
    found = (*shards, *others, *away, *_room(room), *instances, *_dead(dead))
    return list(islice(dict.fromkeys(found), MOST))


def late(problems: Sequence[Problem]) -> list[Problem]:
    """What was found before the disk ceased to answer, which goes first."""
    return [Problem(code="not_answering", message="The disk does not answer.", hint=HINTS["not_answering"]),
            *problems][:MOST]


def _shards(services: Iterable[ServiceFacts], now: float) -> Iterator[Problem]:
    for service in services:
        trouble = service_trouble(service, now)
        if trouble is not None and trouble.stuck:
            yield Problem(code=trouble.code or "no_worker", message=trouble.summary, hint=trouble.hint or "")


def _away(remotes: Iterable[RemoteStanding]) -> Iterator[Problem]:
    for remote in remotes:
        kind = ERRORS.get(remote.code or "", ERRORS["incus_unreachable"])
        if not remote.up:
            yield Problem(code=kind.code, message=f"The remote {remote.remote} is away. {kind.title}", hint=kind.hint)


def _room(room: DiskRoom) -> Iterator[Problem]:
    free, least = room.free_bytes, room.min_free_bytes
    if free is not None and least <= free < NEARLY_FULL * least:
        yield Problem(code="disk_nearly_full", hint=HINTS["disk_nearly_full"],
                      message=f"{amount(free)} are free, and uploads are refused below {amount(least)}.")


def _stuck(name: str, why: Explanation) -> Problem:
    code = why.code or "instance_stuck"
    return Problem(code=code, message=why.summary, hint=why.hint or HINTS["instance_stuck"], instance=name)


def _dead(dead: int) -> Iterator[Problem]:
    if dead:
        message = "One upload is a dead letter." if dead == 1 else f"{dead:,} uploads are dead letters."
        yield Problem(code="dead_letters", message=message, hint=HINTS["dead_letters"])
