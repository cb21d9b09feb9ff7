"""Questions about tasks: one, or a page of them, over all shards."""

import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from api.http.description import NumberParameter, Parameter, names
from api.http.parameters import read_instance, read_query
from api.http.response import json_bytes
from daemon.config import Config
from daemon.errors import Rejected
from daemon.model.glob import MAX_GLOB, check_path_glob
from daemon.model.names import (
    CONTROL,
    INSTANCE,
    INSTANCE_RULE,
    MAX_CLIENT,
    PROJECT,
    PROJECT_RULE,
    REMOTE,
    check_project,
    is_client,
    printable,
)
from daemon.model.schema import TIME, answer, many, one_of, or_null, text
from daemon.model.task import State, Task
from daemon.model.upload import END_OF_TIME_S, TASK_ID, Destination, Upload, is_task_id
from daemon.model.view import TASK, describe, describe_whole

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
#: A page of tasks ends once it has so many bytes, though more tasks were asked for: their paths may be long.
MAX_PAGE_BYTES: Final = 2**20
#: Where tasks are found.
ADDRESS: Final = "/v1/tasks"

#: A page ends after so long, with what was found, and leads on to where it was not looked yet.
LOOKING_S: Final = 0.5
_CODE: Final = re.compile("[a-z_]{1,64}")
_STATES: Final = {state.label: state for state in State}
_LIMIT: Final = NumberParameter("limit", MAX_LIMIT, DEFAULT_LIMIT, "how many at most")
#: The parameters that choose tasks, also those whose events are told.
FILTERS: Final = (
    Parameter(name="state", meaning="in these states", schema=many(one_of(_STATES), least=1), commas=True),
    Parameter(name="instance", meaning="of this instance, or `remote:instance`",
              schema=text(INSTANCE_RULE, pattern=f"(?:{REMOTE}:)?{INSTANCE}"),
              refuses=("bad_query", "bad_instance", "unknown_remote")),
    Parameter(name="project", meaning="the project of `instance`, with which it goes", without="the remote's `project`",
              schema=text(PROJECT_RULE, pattern=PROJECT), refuses=("bad_project",)),
    Parameter(name="client", meaning="sent by this identity", schema=text(least=1, most=MAX_CLIENT)),
)
#: Those by which tasks are looked for besides.
SEARCHES: Final = (
    Parameter(name="path", meaning="with this in their path; or a glob of paths, where it begins with `/` and ends with"
              " `*`", schema=text(pattern=r"[^\x00-\x1f\x7f-\x9f]+", most=MAX_GLOB)),
    Parameter(name="error", meaning="with this code of their error", schema=text(pattern=_CODE.pattern)),
    Parameter(name="since", meaning="accepted from then on; with its zone", schema=TIME),
    Parameter(name="until", meaning="accepted before then; with its zone", schema=TIME),
)
#: The parameters of GET /v1/tasks.
PAGE_PARAMETERS: Final = (*FILTERS, *SEARCHES, _LIMIT, Parameter(
    name="after", meaning="older than this task: `next` of the page before has it", schema=text(pattern=TASK_ID)))
PARAMETERS: Final = names(PAGE_PARAMETERS)

#: What `describe_page` makes.
PAGE: Final = answer("TaskPage", {
    "tasks": many(TASK),
    "next": or_null(text("the address of the next page, if there may be one; also where this one is empty because"
                         " looking for more would have taken too long")),
})


@dataclass(frozen=True, kw_only=True)
class Question:
    """Which tasks are wanted."""

    states: frozenset[State] = frozenset()
    #: The instance whose tasks are wanted; its path does not matter.
    instance: Destination | None = None
    #: The client whose tasks are wanted.
    client: str | None = None
    #: What their paths have, the code of their error, and when they were accepted: as in `TaskQuestion`.
    path: str | None = None
    error: str | None = None
    since: float | None = None
    until: float | None = None
    limit: int = DEFAULT_LIMIT
    #: The id of the last task of the page before.
    after: str | None = None
    #: The parameters as they were given.
    parameters: tuple[tuple[str, str], ...] = ()

    @property
    def instance_key(self) -> str | None:
        """The instance as the queue knows it."""
        return None if self.instance is None else self.instance.instance_key

    def shards(self, number: int) -> range:
        """Which of `number` shards can hold such tasks."""
        if self.instance is None:
            return range(number)
        shard = self.instance.shard(number)
        return range(shard, shard + 1)

    def next_address(self, last: str) -> str:
        """Where the next page is, when this one ended with the task `last`."""
        kept = [(name, value) for name, value in self.parameters if name != "after"]
        return f"{ADDRESS}?{urlencode([*kept, ('after', last)])}"


def read_question(query: bytes, config: Config) -> Question:
    """Read the parameters of GET /v1/tasks. Raises Rejected."""
    return question_of(read_query(query, PARAMETERS), config)


def question_of(parameters: dict[str, str], config: Config) -> Question:
    """What parameters ask for, each of which is known. Raises Rejected."""
    after = parameters.get("after")
    if after is not None and not is_task_id(after):
        raise Rejected("bad_query", "`after` is not the id of a task.")
    return Question(
        states=read_states(parameters.get("state")), instance=read_place(parameters, config),
        client=read_client(parameters.get("client")),
        path=read_path(parameters.get("path")), error=read_code(parameters.get("error")),
        since=read_time("since", parameters.get("since")), until=read_time("until", parameters.get("until")),
        limit=_LIMIT.read(parameters), after=after, parameters=tuple(parameters.items()))


#: A task that was found; or the id down to which none was: what was looked at may be much more than what is found.
Looked = Task | str


def merge(walks: Iterable[Iterable[Looked]]) -> Iterator[Looked]:
    """What was found in several places, each newest first, newest first. What is not looked at yet is older."""
    return heapq.merge(*walks, key=lambda one: one if isinstance(one, str) else one.task_id, reverse=True)


def describe_page(
    looked: Iterable[Looked], question: Question, *, is_over: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """The first page of what was found for a client, with the address of the next one if there may be one.

    It ends at the limit of the question, with the task with which it has MAX_PAGE_BYTES, or when its time `is_over`:
    perhaps without a task.
    """
    page: list[dict[str, Any]] = []
    size_bytes = 0
    for one in looked:
        if isinstance(one, str):
            if is_over():
                return {"tasks": page, "next": question.next_address(one)}
            continue
        page.append(describe(one))
        size_bytes += len(json_bytes(page[-1]))
        if len(page) == question.limit or size_bytes >= MAX_PAGE_BYTES:
            return {"tasks": page, "next": question.next_address(one.task_id)}
    return {"tasks": page, "next": None}


def describe_new(upload: Upload, task_id: str) -> dict[str, Any]:
    """A task that was just made for `upload`, for its client."""
    task = Task(order=0, upload=replace(upload, task_id=task_id), state=State.QUEUED, updated_at=upload.created_at)
    return describe_whole(task)


def read_client(text: str | None) -> str | None:
    """The client that a parameter names. Raises Rejected."""
    if text is not None and not is_client(text):
        raise Rejected("bad_query", "`client` cannot be the name of a client.")
    return text


def read_path(text: str | None) -> str | None:
    """What paths are to have, or a glob of them. Raises Rejected."""
    if text is None:
        return None
    if not text or len(text) > MAX_GLOB or CONTROL.search(text) or any("\ud800" <= c <= "\udfff" for c in text):
        raise Rejected("bad_query", f"`path` is 1 to {MAX_GLOB} characters of a path, or a glob.")
    if text.startswith("/") and text.endswith("*"):
        try:
            check_path_glob(text)
        except ValueError as error:
            raise Rejected("bad_query", f"`path`: {printable(str(error), MAX_GLOB)}") from error
    return text


def read_code(text: str | None) -> str | None:
    """The code of an error that a parameter names, whether there is one or not. Raises Rejected."""
    if text is not None and not _CODE.fullmatch(text):
        raise Rejected("bad_query", "`error` is the code of an error, for example instance_not_found.")
    return text


def read_time(name: str, text: str | None) -> float | None:
    """The time that a parameter says, in seconds since the epoch. Raises Rejected."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        seconds = found.timestamp() if found.tzinfo is not None else -1.0
    except (ValueError, OverflowError):
        seconds = -1.0
    if not 0 <= seconds < END_OF_TIME_S:
        raise Rejected("bad_query", f"`{name}` is a time with its zone, for example 2030-01-31T12:00:00Z.")
    return seconds


def read_states(text: str | None) -> frozenset[State]:
    """The states that a parameter names, none for no parameter. Raises Rejected."""
    if text is None:
        return frozenset()
    names = text.split(",")
    unknown = [name for name in names if name not in _STATES]
    if unknown:
        known = ", ".join(_STATES)
        raise Rejected("bad_query", f"There is no state {printable(unknown[0])!r}; the states are {known}.")
    return frozenset(_STATES[name] for name in names)


def read_place(parameters: Mapping[str, str], config: Config) -> Destination | None:
    """The instance that `instance` and `project` name; its path does not matter. Raises Rejected."""
    given = parameters.get("instance")
    if given is None:
        if "project" in parameters:
            raise Rejected("bad_query", "`project` goes with `instance`.")
        return None
    remote, instance = read_instance(given)
    return Destination(remote, check_project(parameters.get("project", config.project_of(remote))), instance, "/")
