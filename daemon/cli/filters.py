"""Which tasks a person means: by ids, or by instance, client, state and age.

What cannot be understood is said, exit code 2.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from daemon.cli.typed import read_age, read_client, read_states
from daemon.config import LOCAL, Config
from daemon.errors import Rejected
from daemon.model.names import printable, split_instance
from daemon.model.task import State
from daemon.model.upload import Destination
from daemon.process.exit_status import Misused

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
        client=None if client is None else read_client(client),
        states=read_states(states),
        older_than_s=None if older_than is None else read_age(older_than))


def must_mean_some(chosen: Chosen) -> None:
    """Raise Misused unless tasks are chosen in one way: changing all of them takes saying so."""
    by_kind = (chosen.instance is not None or chosen.client is not None or chosen.states
               or chosen.older_than_s is not None)
    if bool(chosen.ids) == bool(by_kind):
        raise Misused("Name tasks by their ids (or - to read ids from standard input), or choose them by --instance,"
                      " --client, --state and --older-than; one or the other.")


def read_instance(text: str, config: Config) -> Destination:
    """The instance of `[remote:][project/]instance`; its path does not matter. Raises Misused."""
    try:
        named, project, instance = split_instance(text)
    except Rejected as error:
        raise Misused(f"--instance {printable(text)}: {error.detail} Give [remote:][project/]instance.") from error
    remote = named or LOCAL
    return Destination(remote, project or config.project_of(remote), instance, "/x")


def _read_ids(given: Iterable[str]) -> Iterable[str]:
    for text in given:
        yield from sys.stdin.read().split() if text == STDIN else [text]
