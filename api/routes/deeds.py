"""The address of what people did to tasks: the audit list."""

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any, Final
from urllib.parse import urlencode

from api.http.description import Content, Description, NumberParameter, Outcome, Parameter, names
from api.http.parameters import read_query
from api.http.peers import Shares
from api.http.response import Answer, Receive, Scope, json_answer
from api.queries.reader import Reader
from api.queries.sight import Sight
from api.routes.endpoint import Audit, Endpoint, Few, Route, caller_in
from api.threads import joined
from daemon.access.decide import decide
from daemon.errors import Rejected
from daemon.model.action_id import ACTION_ID, is_action_id
from daemon.model.grant import Permission
from daemon.model.schema import TIME, answer, many, or_null, saying, text, whole_number
from daemon.model.view import when, when_or_none
from daemon.task_queue import ActionRecord

#: Where it is found.
ADDRESS: Final = "/v1/actions"
DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
_LIMIT: Final = NumberParameter("limit", MAX_LIMIT, DEFAULT_LIMIT, "how many at most")
_PAGE: Final = (_LIMIT, Parameter(
    name="after", meaning="older than this one: `next` of the page before has it", schema=text(pattern=ACTION_ID)))
_DEED: Final = answer("ActionRecord", {
    "action_id": text("stable; later ones sort after earlier ones", pattern=ACTION_ID),
    "at": saying(TIME, "when it was asked for"),
    "by": text("who asked for it"),
    "verb": text("what was asked for"),
    "what": saying(answer(None, {
        "task_id": text("one task"), "selection": text("the tasks of a selection"),
        "filter": {"type": "object", "description": "all that it means"}}, maybe=("task_id", "selection", "filter")),
        "one of these: with what it was to be done"),
    "tasks": whole_number(0, None, "how many tasks it is about, as far as they are known"),
    "changed": whole_number(0, None, "with which it was done"),
    "refused": whole_number(0, None, "with which it could not be done"),
    "done_at": or_null(saying(TIME, "when all of it was done with; null: it is not yet")),
})
#: What `describe_deeds` makes.
DEEDS: Final = answer("ActionRecords", {
    "actions": many(_DEED, most=MAX_LIMIT), "next": or_null(text("the address of the next page, if there may be one"))})
LISTING: Final = Description(
    operation_id="listActions", group="Acting on tasks", summary="See what people did to tasks, newest first",
    text="This needs the right `read`. Whoever may see all tasks is told of what all did, others of what they asked for"
    " themselves.", parameters=_PAGE,
    outcomes={200: Outcome(meaning="A page of them.", content=Content(schema=DEEDS))},
    refuses=("action_not_allowed", "address_not_allowed", "too_busy", "queue_unreadable", "no_room"),
    example=f"curl 'http://127.0.0.1:8420{ADDRESS}?limit=10'")


class DeedRoutes:
    """What the address does."""

    def __init__(self, reader: Reader, threads: Executor) -> None:
        self._reader = reader
        self._threads = threads

    def routes(self, pages: Shares, audit: Audit) -> list[Route]:
        """The address; `pages` has the pages that wait to be read in all API processes."""
        return [Route(ADDRESS, Few(Endpoint({"GET": LISTING.by(self.get_page)}, audit=audit), pages))]

    async def get_page(self, scope: Scope, receive: Receive) -> Answer:
        """GET a page of them."""
        parameters = read_query(scope["query_string"], names(_PAGE))
        limit, after = _LIMIT.read(parameters), parameters.get("after")
        if after is not None and not is_action_id(after):
            raise Rejected("bad_query", "`after` is not the id of an action.")
        caller = caller_in(scope)
        if (code := decide(caller, Permission.READ)) is not None:
            raise Rejected(code)
        by = None if Sight(caller).of_all else caller.name
        found = await joined(self._threads.submit(self._reader.actions, after, limit, by))
        return json_answer(200, describe_deeds(found, limit))


def describe_deeds(found: Sequence[ActionRecord], limit: int) -> dict[str, Any]:
    """A page of what people did, with the address of the next one if there may be one. Pure."""
    full = len(found) == limit
    following = f"{ADDRESS}?{urlencode({'limit': limit, 'after': found[-1].action_id})}" if full else None
    return {"actions": [_deed(one) for one in found], "next": following}


def _deed(one: ActionRecord) -> dict[str, Any]:
    return {
        "action_id": one.action_id, "at": when(one.at), "by": one.by, "verb": one.verb, "what": one.what,
        "tasks": one.tasks, "changed": one.changed, "refused": one.refused,
        "done_at": when_or_none(one.done_at)}
