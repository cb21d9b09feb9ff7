"""What was typed, understood without a configuration. What cannot be understood is Misused: exit code 2."""

import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from daemon.errors import Rejected
from daemon.model.glob import MAX_GLOB, check_path_glob
from daemon.model.names import CONTROL, is_client, printable, split_instance
from daemon.model.seat import TaskFilter
from daemon.model.task import State
from daemon.model.upload import END_OF_TIME_S, is_task_id
from daemon.process.exit_status import Misused

#: Stands for the ids on standard input.
STDIN: Final = "-"
_AGE: Final = re.compile(r"(?P<number>[0-9]{1,9})(?P<unit>[smhd])")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_CODE: Final = re.compile("[a-z_]{1,64}")


def read_filter(
    *, ids: Sequence[str] = (), instance: str | None = None, client: str | None = None, states: Sequence[str] = (),
    path: str | None = None, error: str | None = None, since: str | None = None, until: str | None = None,
    older_than: str | None = None, now: float | None = None,
) -> TaskFilter:
    """Which tasks are meant; `now` is in seconds since the epoch. Raises Misused."""
    moment = time.time() if now is None else now
    ends = [None if until is None else read_time(until, "--until", moment),
            None if older_than is None else moment - read_age(older_than)]
    return TaskFilter(
        task_ids=tuple(dict.fromkeys(map(read_id, ids))), instance=None if instance is None else check_named(instance),
        client=None if client is None else read_client(client), states=read_states(states),
        path=None if path is None else _read_path(path), error=None if error is None else _read_code(error),
        since=None if since is None else read_time(since, "--since", moment),
        until=min((end for end in ends if end is not None), default=None))


def read_chosen(
    *, ids: Sequence[str] = (), instance: str | None = None, client: str | None = None, states: Sequence[str] = (),
    older_than: str | None = None,
) -> TaskFilter:
    """The tasks that something is to be done with; what is no id is left for each to be told of.

    Raises Misused unless they are chosen in one way: changing all of them takes saying so.
    """
    by_kind = read_filter(instance=instance, client=client, states=states, older_than=older_than)
    chosen = replace(by_kind, task_ids=tuple(dict.fromkeys(read_ids(ids))))
    if bool(ids) == (by_kind != TaskFilter()):
        raise Misused("Name tasks by their ids (or - to read ids from standard input), or choose them by --instance,"
                      " --client, --state and --older-than; one or the other.")
    return chosen


def read_ids(given: Iterable[str]) -> Iterator[str]:
    """The words that stand for ids; - stands for those on standard input."""
    for text in given:
        yield from sys.stdin.read().split() if text == STDIN else [text]


def read_age(text: str, option: str = "--older-than") -> float:
    """The seconds of `90s`, `15m`, `2h` or `3d`. Raises Misused naming the option."""
    found = _AGE.fullmatch(text)
    if not found:
        raise Misused(f"{option} {printable(text)}: give a number and a unit, for example 90s, 15m, 2h or 3d")
    return float(int(found["number"]) * _UNIT_S[found["unit"]])


def read_time(text: str, option: str, now: float) -> float:
    """The seconds since the epoch of a date, a time, or an age before `now`; without a zone it is of this machine."""
    if _AGE.fullmatch(text):
        return max(0.0, now - read_age(text, option))
    try:
        seconds = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        seconds = -1.0
    if not 0 <= seconds < END_OF_TIME_S:
        raise Misused(f"{option} {printable(text)}: give a time, for example 2030-01-31, 2030-01-31T12:00:00Z, or 2h")
    return seconds


def read_id(text: str) -> str:
    """The id of a task. Raises Misused."""
    wrong = check_id(text)
    if wrong:
        raise Misused(f"{printable(text)}: {wrong}")
    return text


def check_id(text: str) -> str | None:
    """Why `text` cannot be a task's id, or None."""
    return None if is_task_id(text) else "this is not the id of a task"


def check_named(text: str) -> str:
    """An instance, as it was typed. Raises Misused."""
    try:
        split_instance(text)
    except Rejected as error:
        raise Misused(f"{printable(text)}: {error.detail} Give [remote:][project/]instance.") from None
    return text


def read_client(text: str) -> str:
    """The name of a client. Raises Misused."""
    if not is_client(text):
        raise Misused(f"--client {printable(text)}: this cannot be the name of a client")
    return text


def read_states(texts: Sequence[str]) -> frozenset[State]:
    """States, each text with commas in between. Raises Misused."""
    return frozenset(_read_state(name) for text in texts for name in text.split(","))


def _read_state(text: str) -> State:
    known = {state.label: state for state in State}
    if text not in known:
        raise Misused(f"--state {printable(text)}: there is no such state; the states are {', '.join(known)}")
    return known[text]


def _read_path(text: str) -> str:
    if not text or len(text) > MAX_GLOB or CONTROL.search(text) or any("\ud800" <= c <= "\udfff" for c in text):
        raise Misused(f"--path {printable(text)}: give 1 to {MAX_GLOB} characters of a path, or a glob")
    if text.startswith("/") and text.endswith("*"):
        try:
            check_path_glob(text)
        except ValueError as error:
            raise Misused(f"--path {printable(text)}: {error}") from None
    return text


def _read_code(text: str) -> str:
    if not _CODE.fullmatch(text):
        raise Misused(f"--error {printable(text)}: give the code of an error, for example instance_not_found")
    return text
