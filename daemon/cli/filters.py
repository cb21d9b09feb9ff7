"""Which tasks a person means: by ids, or by instance, client, state and age.

What cannot be understood is said, exit code 2.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from daemon.config import LOCAL, Config
from daemon.errors import Rejected
from daemon.model.names import is_client, printable, split_instance
from daemon.model.task import State
from daemon.model.upload import Destination, is_task_id
from daemon.process.exit_status import Misused

_AGE: Final = re.compile(r"(?P<number>[0-9]{1,9})(?P<unit>[smhd])")
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
#: Stands for the ids on standard input.
STDIN: Final = "-"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The tasks that are meant."""

    ids: tuple[str, ...] = ()
    instance: Destination | None = None
    client: str | None = None
    states: frozenset[State] = frozenset()
    #: Only tasks accepted so many seconds ago, or earlier.
    older_than_s: float | None = None

    @property
    def instance_key(self) -> str | None:
        """The instance as the queue knows it."""
        return None if self.instance is None else self.instance.instance_key


def choose(
    config: Config, *, ids: Sequence[str] = (), instance: str | None = None, client: str | None = None,
    states: Sequence[str] = (), older_than: str | None = None,
) -> Chosen:
    """Understand what was typed. Raises Misused."""
    return Chosen(
        ids=tuple(dict.fromkeys(_read_ids(ids))),
        instance=None if instance is None else read_instance(instance, config),
        client=None if client is None else _read_client(client),
        states=frozenset(_read_state(name) for text in states for name in text.split(",")),
        older_than_s=None if older_than is None else read_age(older_than))


def must_mean_some(chosen: Chosen) -> None:
    """Raise Misused unless tasks are chosen in one way: changing all of them takes saying so."""
    by_kind = (chosen.instance is not None or chosen.client is not None or chosen.states
               or chosen.older_than_s is not None)
    if bool(chosen.ids) == bool(by_kind):
        raise Misused("Name tasks by their ids (or - to read ids from standard input), or choose them by --instance,"
                      " --client, --state and --older-than; one or the other.")


def read_age(text: str, option: str = "--older-than") -> float:
    """The seconds of `90s`, `15m`, `2h` or `3d`. Raises Misused naming the option."""
    found = _AGE.fullmatch(text)
    if not found:
        raise Misused(f"{option} {printable(text)}: give a number and a unit, for example 90s, 15m, 2h or 3d")
    return float(int(found["number"]) * _UNIT_S[found["unit"]])


def read_instance(text: str, config: Config) -> Destination:
    """The instance of `[remote:][project/]instance`; its path does not matter. Raises Misused."""
    try:
        named, project, instance = split_instance(text)
    except Rejected as error:
        raise Misused(f"--instance {printable(text)}: {error.detail} Give [remote:][project/]instance.") from error
    remote = named or LOCAL
    return Destination(remote, project or config.project_of(remote), instance, "/x")


def check_id(text: str) -> str | None:
    """Why `text` cannot be a task's id, or None."""
    return None if is_task_id(text) else "this is not the id of a task"


def _read_client(text: str) -> str:
    if not is_client(text):
        raise Misused(f"--client {printable(text)}: this cannot be the name of a client")
    return text


def _read_state(text: str) -> State:
    known = {state.label: state for state in State}
    if text not in known:
        raise Misused(f"--state {printable(text)}: there is no such state; the states are {', '.join(known)}")
    return known[text]


def _read_ids(given: Iterable[str]) -> Iterable[str]:
    for text in given:
        yield from sys.stdin.read().split() if text == STDIN else [text]
