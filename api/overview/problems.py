"""What needs a person, most urgent first: what an administrator reads at two in the morning. Pure.

What stops everything comes before what stops a remote, an instance, a task; and what is stopped before what soon will be.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from daemon.errors import ERRORS, CourierError

#: No more of them are told, and no more instances among them.
MOST: Final = 32
MOST_INSTANCES: Final = 16
#: Less room than so many times what has to stay free is nearly none.
NEARLY_FULL: Final = 4
#: A worker writes down every second what it does: one that has not for so long stands still.
SILENT_S: Final = 15.0

_GIB: Final = 2**30


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that needs a person."""

    #: Stable, for programs: of the table of errors, or one of `HINTS`.
    code: str
    #: What is wrong, and what to do about it: sentences.
    message: str
    hint: str
    #: The instance that it is about, as `tasks --instance` takes it; None: it is about more.
    instance: str | None = None


#: What to do where the table of errors has no row.
HINTS: Final = {
    "not_answering": "See whether the disk hangs; what is shown is of before.",
    "worker_silent": "See the journal of the worker, and whether the disk hangs.",
    "disk_nearly_full": "Make room for the state directory, deliver or delete what waits, or lower"
                        " limits.min_free_bytes.",
    "dead_letters": "See the tasks in the state failed: each says why. Mend that, then retry or delete them.",
    "instance_stuck": "See what its oldest task waits for.",
}


@dataclass(frozen=True, kw_only=True)
class Room:
    """Room on the disk, in bytes; None where it cannot be told."""

    free_bytes: int | None = None
    total_bytes: int | None = None
    #: Below that nothing is taken in.
    min_free_bytes: int = 0
    #: Bytes of uploads that are kept.
    spool_bytes: int = 0


def problem_of(error: CourierError) -> Problem:
    """What an error of the table is for a person."""
    return Problem(code=error.code, message=error.detail, hint=error.kind.hint)


def hint_for(code: str | None) -> str:
    """What is to be done about a code, of whichever table."""
    return ERRORS[code].hint if code in ERRORS else HINTS[code or "instance_stuck"]


def in_order(
    *, reasons: Iterable[CourierError], silent: Iterable[tuple[int, float]], away: Iterable[Problem], room: Room,
    stuck: Iterable[Problem], dead: int,
) -> list[Problem]:
    """All that needs a person: why nothing is taken or delivered, workers that are `silent` (since so many seconds),
    remotes that are `away`, too little room, instances that are `stuck`, those that hold up most first, dead letters.
    """
    found: list[Iterable[Problem]] = [
        map(problem_of, reasons), _silent(silent), away, _room(room), islice(stuck, MOST_INSTANCES), _dead(dead)]
    return _once(problem for some in found for problem in some)


def _once(problems: Iterable[Problem]) -> list[Problem]:
    """Each of them once, and not too many: of two with the same words the first."""
    return list(islice(dict.fromkeys(problems), MOST))


def _silent(shards: Iterable[tuple[int, float]]) -> Iterator[Problem]:
    for shard, silent_s in shards:
        yield Problem(code="worker_silent", message=f"The worker of shard {shard} has not moved for {silent_s:.0f} s.",
                      hint=HINTS["worker_silent"])


def _room(room: Room) -> Iterator[Problem]:
    free, least = room.free_bytes, room.min_free_bytes
    if free is not None and least <= free < NEARLY_FULL * least:
        yield Problem(
            code="disk_nearly_full", hint=HINTS["disk_nearly_full"],
            message=f"{free / _GIB:.2f} GiB are free, and uploads are refused below {least / _GIB:.2f} GiB.")


def _dead(dead: int) -> Iterator[Problem]:
    if dead:
        message = "One upload is a dead letter." if dead == 1 else f"{dead:,} uploads are dead letters."
        yield Problem(code="dead_letters", message=message, hint=HINTS["dead_letters"])


def late(problems: Sequence[Problem]) -> list[Problem]:
    """What was found before the disk ceased to answer, which goes first."""
    return [Problem(code="not_answering", message="The disk does not answer.", hint=HINTS["not_answering"]),
            *problems][:MOST]
