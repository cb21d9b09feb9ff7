"""Choosing tasks to act on: what a request asks for, and which tasks that is now."""

import time
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field, replace
from typing import Any, Final

from api.acting.actions import ACTIONS, TaskAction, check_force
from api.queries.task_query import FILTERS, SEARCHES, Looked, Question, question_of, read_time
from daemon.config import Config
from daemon.errors import Rejected
from daemon.model.names import printable
from daemon.model.schema import TIME, YES_OR_NO, many, one_of, request, saying, text
from daemon.model.task import State, Task
from daemon.model.upload import TASK_ID, first_id_of, is_task_id

#: Tasks of one selection.
MAX_MEMBERS: Final = 100_000
#: Looking for them ends after so long, with those that were found.
MAX_LOOKING_S: Final = 60.0
#: Ids that a filter may name: no more fit into a body.
MAX_IDS: Final = 400
#: Tasks that a preview shows.
SAMPLES: Final = 5
#: After so many tasks the other threads are let go on for a moment.
_BREATH_TASKS: Final = 256
_BREATH_S: Final = 0.0005
_STATE: Final = "|".join(state.label for state in State)
_STATES: Final = text("with commas in between", pattern=f"(?:{_STATE})(?:,(?:{_STATE}))*")
#: Which tasks; all of what it says has to be so.
FILTER: Final = request("TaskFilter", {
    **{parameter.name: saying(parameter.schema, parameter.meaning) for parameter in (*FILTERS, *SEARCHES)},
    "state": {"anyOf": [_STATES, many(_STATES, least=1)], "description": "in these states"},
    "before": saying(TIME, "accepted before then; with its zone"),
    "ids": saying(many(text(pattern=TASK_ID), least=1, most=MAX_IDS), "these tasks; goes with `state` alone"),
}, dependentRequired={"project": ["instance"]}, dependentSchemas={"ids": {"propertyNames": {"enum": ["ids", "state"]}}})
#: What `read_preview` reads.
WISH: Final = request("PreviewWish", {
    "action": one_of(ACTIONS, "what is to be done with them"),
    "filter": FILTER,
    "force": saying(YES_OR_NO, "for `retry` and `release`: also where a newer upload to the same path exists"),
}, required=["action", "filter"])


@dataclass(frozen=True, kw_only=True)
class PreviewWish:
    """What somebody wants to see before it is done."""

    action: TaskAction
    force: bool
    #: Which tasks are asked for; its states are those that fit the action.
    question: Question
    #: As it was given.
    filter: dict[str, Any]
    #: The tasks that are named; None: the question finds them.
    ids: frozenset[str] | None = None

    @property
    def states(self) -> frozenset[State]:
        """The states in which the tasks are acted on, also where they have moved on meanwhile."""
        return self.action.states | (self.question.states & self.action.forgets)


@dataclass(kw_only=True)
class Choice:
    """The tasks that were found."""

    #: Their ids, by shard, oldest first: of one path the newest is to come last, also where that is forced.
    members: dict[int, list[str]] = field(default_factory=dict)
    size_bytes: int = 0
    samples: list[Task] = field(default_factory=list)
    cut: bool = False


def read_preview(given: dict[str, Any], config: Config) -> PreviewWish:
    """What a body asks for. Raises Rejected."""
    _check_keys(given, WISH["properties"].keys(), "")
    action = ACTIONS.get(given["action"]) if isinstance(given.get("action"), str) else None
    if action is None:
        raise Rejected("bad_action", f"`action` is one of: {', '.join(ACTIONS)}.")
    force = given.get("force", False)
    if not isinstance(force, bool):
        raise Rejected("bad_action", "`force` is true or false.")
    chosen = given.get("filter")
    if not isinstance(chosen, dict):
        raise Rejected("bad_action", "`filter` has to be there: an object, which is empty for all tasks.")
    _check_keys(chosen, FILTER["properties"].keys(), "filter.")
    check_force(action, force=force)
    others = {key: value for key, value in chosen.items() if key != "ids"}
    return PreviewWish(action=action, force=force, question=_question(others, action, config), filter=chosen,
                       ids=_read_ids(chosen) if "ids" in chosen else None)


def read_apply(given: dict[str, Any]) -> str:
    """The id of the selection that a body wants applied. Raises Rejected."""
    _check_keys(given, {"selection"}, "")
    selection = given.get("selection")
    if not isinstance(selection, str):
        raise Rejected("bad_action", "`selection` has to be there: the id that a preview gave.")
    return selection


def _read_ids(chosen: dict[str, Any]) -> frozenset[str]:
    """The ids that a filter names. Raises Rejected."""
    ids = chosen["ids"]
    if not chosen.keys() <= {"ids", "state"}:
        raise Rejected("bad_action", "`filter.ids` goes with `filter.state` alone.")
    if not _is_list(ids) or len(ids) > MAX_IDS or not all(map(is_task_id, ids)):
        raise Rejected("bad_action", f"`filter.ids` is a list of 1 to {MAX_IDS} ids of tasks.")
    return frozenset(ids)


def choose(tasks: Iterable[Looked], shards: int, *, ended: Callable[[], bool] = lambda: False) -> Choice:
    """Take tasks, which come newest first, up to a number and for a bounded time, or until `ended`.

    May raise what reading them raises.
    """
    chosen, until = Choice(), time.monotonic() + MAX_LOOKING_S
    count = 0
    for task in tasks:
        if count == MAX_MEMBERS or time.monotonic() > until or ended():
            chosen.cut = True
            break
        if isinstance(task, str):
            # So far it was looked: others were passed over.
            continue
        chosen.members.setdefault(task.destination.shard(shards), []).append(task.task_id)
        chosen.size_bytes += task.upload.size
        if len(chosen.samples) < SAMPLES:
            chosen.samples.append(task)
        if count % _BREATH_TASKS == 0:
            time.sleep(_BREATH_S)
        count += 1
    for members in chosen.members.values():
        members.reverse()
    return chosen


def _check_keys(given: dict[str, Any], known: Set[str], where: str) -> None:
    unknown = given.keys() - known
    if unknown:
        raise Rejected("bad_action", f"There is no key '{where}{printable(min(unknown))}' here.")


def _question(chosen: dict[str, Any], action: TaskAction, config: Config) -> Question:
    """The question of a filter. Raises Rejected."""
    texts = {key: ",".join(value) if key == "state" and _is_list(value) else value for key, value in chosen.items()}
    for key, value in texts.items():
        if not isinstance(value, str):
            raise Rejected("bad_action", f"`filter.{key}` has to be a text{' or a list of texts' * (key == 'state')}.")
    before = texts.pop("before", None)
    try:
        question = question_of(texts, config)
        accepted_before = read_time("filter.before", before)
    except Rejected as error:
        raise Rejected("bad_action", error.detail) if error.code == "bad_query" else error from error
    fitting = question.states & (action.states | action.forgets) if question.states else action.states
    return replace(question, states=fitting, after=None if accepted_before is None else first_id_of(accepted_before))


def _is_list(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)

