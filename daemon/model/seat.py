"""What commands ask of a service, whichever way they reach it: plain values, and the ways' common promise.

Tasks, events, explanations and overviews are JSON values as docs/api.md has them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from daemon.model.task import State

#: The values of a JSON object.
Values = Mapping[str, Any]
#: Instances that an overview shows.
BUSIEST: Final = 20


@dataclass(frozen=True, kw_only=True)
class TaskFilter:
    """Which tasks are meant. All of what it says has to be so; what is empty or None does not matter."""

    task_ids: tuple[str, ...] = ()
    #: `[remote:][project/]instance`.
    instance: str | None = None
    #: Sent by this client.
    client: str | None = None
    states: frozenset[State] = frozenset()
    #: The path has this in it, or is so where it is a glob (`daemon.task_queue.TaskQuestion`).
    path: str | None = None
    #: The code of their error.
    error: str | None = None
    #: Accepted from then on, and before then, in seconds since the epoch.
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True)
class SearchedTasks:
    """Some of the tasks that are meant, newest first."""

    tasks: tuple[Values, ...]
    #: All from this id on were looked at: go on after it. None: there are no more.
    after: str | None


@dataclass(frozen=True, kw_only=True)
class TaskReply:
    """What became of what was asked of one task, or of all that are meant (in one shard, where that is known)."""

    #: "done", "refused" or "asked": it is kept, and not done yet.
    outcome: str
    shard: int | None = None
    #: None where many are meant.
    task_id: str | None = None
    #: Of one task, once it is done; None: its row is gone.
    state: str | None = None
    #: Why it was refused, or is not done yet.
    reason: str | None = None
    changed: int = 0
    refused: int = 0

    def as_json(self) -> dict[str, Any]:
        """The reply as JSON values, without what does not apply."""
        values = {"id": self.task_id, "shard": self.shard, "outcome": self.outcome, "state": self.state,
                  "reason": self.reason}
        if self.task_id is None:
            values |= {"changed": self.changed, "refused": self.refused}
        return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True)
class Overview:
    """How the whole stands, and the instances with most waiting."""

    whole: Values
    instances: tuple[Values, ...]


class Seat(Protocol):
    """A service, as somebody sees it who looks after it. What cannot be asked raises Unable or CourierError."""

    def name_of(self, values: Values) -> str:
        """The instance of a task or an event, as commands take it: `[remote:][project/]instance`."""

    def find(self, task_id: str, wait_s: float = 0.0) -> Values | None:
        """A task with its history, or None where there is none; waits for its outcome, about so long at most."""

    def search(
        self, wanted: TaskFilter, after: str | None, limit: int, patience_s: float = 0.0,
    ) -> SearchedTasks:
        """Up to `limit` tasks with ids under `after`; maybe fewer, or none, though there are more.

        A service that is away is asked again for so long.
        """

    def happenings(self, wanted: TaskFilter) -> Iterator[Values | None]:
        """What happens to tasks from now on, without end; None where something may have been missed.

        Of the filter ids, instance, client and states count.
        """

    def explain(self, task_id: str | None, instance: str | None) -> Values | None:
        """Why a task, or what waits for an instance, is not delivered yet, with its name; None: it is unknown."""

    def overview(self, most: int = BUSIEST) -> Overview:
        """How the whole stands now, with the `most` instances that have most waiting."""

    def act(self, verb: str, wanted: TaskFilter, *, force: bool, wait: bool) -> Iterable[TaskReply]:
        """Have something done with the tasks that are meant, and tell what became of it.

        `verb` is one of `daemon.model.verbs`. With `force` also where a newer upload to the same path exists; without
        `wait` a worker's answer is not waited for, where that can be chosen. Of the filter its ids count (which may be
        none), else instance, client, states and `until`.
        """

    def save(self, task_id: str, sink: int) -> bool:
        """Write a task's bytes, checked, to the descriptor `sink`; False where there is no such task."""

    def names(self, beginning: str) -> list[str]:
        """Instances whose names begin so, as commands take them; some of them where there are many."""

    def unread(self) -> list[str]:
        """What to say of parts of the service that nothing is known of."""


def instance_words(values: Values) -> str:
    """An instance by its parts, without the remote and the project that go without saying. Pure."""
    remote = "" if values["remote"] == "local" else f"{values['remote']}:"
    project = "" if values["project"] == "default" else f"{values['project']}/"
    return f"{remote}{project}{values['instance']}"
