"""Acting on many tasks: a preview freezes which, and applying it touches these and no others."""

import threading
import time
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any, Final

from api.acting.actions import ACTIONS
from api.acting.applying import Applier
from api.acting.preview import FILTER, MAX_MEMBERS, SAMPLES, WISH, PreviewWish, choose, read_apply, read_preview
from api.acting.selections import SELECTION_ID, FrozenSelection, KeptSelection, Selections, Step
from api.http.description import LOCATION, Content, Description, Leads, Outcome, Parameter, Where
from api.http.parameters import check_configured, read_query
from api.http.peers import Shares
from api.http.response import REQUESTER, Answer, Receive, Scope, json_answer
from api.live_config import LiveConfig
from api.queries import task_query
from api.queries.reader import Reader
from api.queries.sight import Sight
from api.queries.task_query import Looked
from api.routes.endpoint import Audit, Endpoint, Few, Route, caller_in
from api.routes.json_body import BODY_REFUSALS, read_body, read_object
from api.threads import joined
from daemon.access.caller import Caller
from daemon.access.decide import decide
from daemon.errors import Rejected
from daemon.model.grant import Permission
from daemon.model.schema import TIME, YES_OR_NO, answer, many, one_of, request, saying, text, whole_number
from daemon.model.view import TASK, describe, when

#: Where selections are found.
ADDRESS: Final = "/v1/selections"
#: How long applying one is waited for.
PATIENCE_S: Final = 5.0
#: Previews that one process makes, or has waiting: each may take seconds.
MAX_PREVIEWS: Final = 4
_IN_TIME: Final = "It is being applied: ask for its Location how far that is."
_AGAIN: Final = ("It is not applied to its end: a shard has no worker, or one that is busy. What was asked of it is"
                 " done when it can be; apply the selection again for the rest.")
_NO_PARAMETERS: Final[frozenset[str]] = frozenset()
_NO_STORE: Final = ("Cache-Control", "no-store")

_STATES: Final = ("previewed", "applying", "interrupted", "applied")
_SELECTION: Final = {
    "selection": text("its id", pattern=SELECTION_ID),
    "state": one_of(_STATES, "how it stands; one that is `interrupted` is to be applied again"),
    "action": one_of(ACTIONS),
    "force": YES_OR_NO,
    "filter": FILTER,
    "count": whole_number(0, MAX_MEMBERS, "how many tasks it has"),
    "bytes": whole_number(0, None, "of all of them"),
    "cut": saying(YES_OR_NO, "whether there are more, or looking for them took too long"),
    "changed": whole_number(0, MAX_MEMBERS, "with which it was done"),
    "skipped": whole_number(0, MAX_MEMBERS, "that were in no fitting state any more, or gone"),
    "refused": whole_number(0, MAX_MEMBERS, "for which a right was missing by then, or a newer upload was in the way"),
    "left": whole_number(0, MAX_MEMBERS, "that were not come to yet"),
    "made_at": TIME,
    "expires_at": TIME,
}
#: What `describe_selection` makes.
SELECTION: Final = answer("Selection", _SELECTION)
#: What `preview` answers with.
PREVIEW: Final = answer("Preview", {**_SELECTION, "samples": saying(many(TASK, most=SAMPLES), "some of them")})
#: What `apply` answers with when it takes longer.
UNFINISHED: Final = answer("UnfinishedSelection", {**_SELECTION, "detail": text("why, and what to do")})
_WHERE: Final = replace(LOCATION, meaning="the address of the selection, which shows how far that is")
_GROUP: Final = "Acting on many tasks"
_SHELL: Final = "curl -H 'Content-Type: application/json' http://127.0.0.1:8420/v1/tasks"
_TO_SELECTION: Final = Leads(operation_id="getSelection", given={"selection": "$response.body#/selection"})
_TO_APPLYING: Final = Leads(operation_id="applySelection", body={"selection": "$response.body#/selection"})
#: Codes of what keeps selections, and of the queue.
_REFUSALS: Final = ("selections_unreadable", "queue_unreadable", "no_room", "too_busy")
PREVIEWING: Final = Description(
    operation_id="previewTasks", group=_GROUP, summary="Choose tasks, and see how many they are",
    text="This needs the right `read`, and that of the action. Nothing is done with them: their ids are kept for ten"
    " minutes. [acting.md](acting.md) has more.",
    body=Content(schema=WISH, refuses=(
        *BODY_REFUSALS, "bad_action", "bad_instance", "bad_project", "unknown_remote", "other_cell")),
    outcomes={200: Outcome(
        meaning="They are chosen.", content=Content(schema=PREVIEW), leads=(_TO_APPLYING, _TO_SELECTION))},
    refuses=(*_REFUSALS, "bad_query", "action_not_allowed", "address_not_allowed", "draining", "too_many_selections"),
    example=f"""{_SHELL}:preview \\
     -d '{{"action": "retry", "filter": {{"state": "failed", "instance": "web1"}}}}'""")
APPLYING: Final = Description(
    operation_id="applySelection", group=_GROUP, summary="Do with the tasks of a selection what its preview showed",
    text="No others are touched. Rights and states of now count. To ask again is safe.",
    body=Content(schema=request("Apply", {"selection": _SELECTION["selection"]}, required=["selection"]), refuses=(
        *BODY_REFUSALS, "bad_action")), outcomes={
        200: Outcome(meaning="All of it is done.", content=Content(schema=SELECTION), leads=(_TO_SELECTION,)),
        202: Outcome(meaning="It is not done to its end yet.", content=Content(schema=UNFINISHED), headers=(_WHERE,),
                     leads=(_TO_SELECTION,))},
    refuses=(*_REFUSALS, "bad_query", "selection_not_found", "commands_full"),
    example=f"""{_SHELL}:apply -d '{{"selection": "'$SELECTION'"}}'""")
SHOWING: Final = Description(
    operation_id="getSelection", group=_GROUP, summary="How a selection stands",
    text="For everybody but who made it, it does not exist.", parameters=(
        Parameter(name="selection", meaning="its id", schema=text(pattern=SELECTION_ID), place=Where.PATH,
                  required=True, refuses=("selection_not_found",)),),
    outcomes={200: Outcome(meaning="As it is now.", content=Content(schema=SELECTION))},
    refuses=("bad_query", "selections_unreadable", "no_room"),
    example="curl http://127.0.0.1:8420/v1/selections/$SELECTION")


class SelectionRoutes:
    """What the addresses of many tasks do. `threads` are for previews alone."""

    def __init__(
        self, live: LiveConfig, reader: Reader, selections: Selections, applier: Applier, threads: Executor,
    ) -> None:
        self._live = live
        self._reader = reader
        self._selections = selections
        self._applier = applier
        self._threads = threads
        self._previews = 0
        self._ended = threading.Event()

    def routes(self, at_once: Shares, audit: Audit) -> list[Route]:
        """The addresses; `at_once` has the requests that act in all API processes."""
        previewing = Endpoint({"POST": PREVIEWING.by(self.preview)}, audit=audit)
        applying = Endpoint({"POST": APPLYING.by(self.apply)}, audit=audit)
        return [
            Route(f"{task_query.ADDRESS}:preview", Few(previewing, at_once)),
            Route(f"{task_query.ADDRESS}:apply", Few(applying, at_once)),
            Route(f"{ADDRESS}/{{selection}}", Endpoint({"GET": SHOWING.by(self.get)}, audit=audit)),
        ]

    async def preview(self, scope: Scope, receive: Receive) -> Answer:
        """POST /v1/tasks:preview: choose tasks."""
        given = await self._read(scope, receive)
        wish = read_preview(given, self._live.config)
        caller = caller_in(scope)
        for permission in (Permission.READ, wish.action.permission):
            if (code := decide(caller, permission)) is not None:
                raise Rejected(code)
        instance = wish.question.instance
        if instance is not None and Sight(caller).reaches(instance.instance_key):
            check_configured(instance, self._live.config)
        if self._previews >= MAX_PREVIEWS:
            raise Rejected("too_busy")
        self._previews += 1
        try:
            return await joined(self._threads.submit(self._choose, wish, caller))
        finally:
            self._previews -= 1

    def _choose(self, wish: PreviewWish, caller: Caller) -> Answer:
        chosen = choose(self._matching(wish, Sight(caller)), self._reader.shards, ended=self._ended.is_set)
        if self._ended.is_set():
            raise Rejected("draining")
        selection = self._selections.put(FrozenSelection(
            id="", owner=caller.name, root=caller.root, action=wish.action.verb, force=wish.force,
            states=sorted(wish.states), made_at=time.time(), filter=wish.filter, members={},
            size_bytes=chosen.size_bytes, cut=chosen.cut), chosen.members)
        described = describe_selection(self._selections.find(selection.id, caller.name))
        return json_answer(200, {**described, "samples": [describe(task) for task in chosen.samples]}, _NO_STORE)

    def _matching(self, wish: PreviewWish, sight: Sight) -> Iterable[Looked]:
        """The tasks that are meant, and seen, newest first."""
        if not wish.question.states:
            # Who filters by states of which none fits has chosen nothing.
            return ()
        if wish.ids is None:
            return self._reader.newest(wish.question, sight)
        named = [task for shard in range(self._reader.shards) for task in self._reader.find_all(shard, list(wish.ids))]
        return sorted((task for task in named if task.state in wish.question.states and sight.sees(task)),
                      key=lambda task: task.task_id, reverse=True)

    async def apply(self, scope: Scope, receive: Receive) -> Answer:
        """POST /v1/tasks:apply: do what a preview showed."""
        selection = read_apply(await self._read(scope, receive))
        return _answer(await self._applier.apply(selection, scope["state"][REQUESTER], PATIENCE_S))

    async def get(self, scope: Scope, receive: Receive) -> Answer:
        """GET how a selection stands."""
        read_query(scope["query_string"], _NO_PARAMETERS)
        found = await self._applier.find(scope["path_params"]["selection"], caller_in(scope).name)
        return json_answer(200, describe_selection(found), _NO_STORE)

    async def _read(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        read_query(scope["query_string"], _NO_PARAMETERS)
        return read_object(await read_body(scope, receive, self._live.pace()))

    def end(self) -> None:
        """Let previews that are being made come to their end at once."""
        self._ended.set()


def _answer(found: KeptSelection) -> Answer:
    described, where = describe_selection(found), ("Location", f"{ADDRESS}/{found.selection.id}")
    if found.applied:
        return json_answer(200, described, _NO_STORE)
    return json_answer(202, {**described, "detail": _IN_TIME if found.running else _AGAIN}, _NO_STORE, where)


def describe_selection(found: KeptSelection) -> dict[str, Any]:
    """A selection for who made it. Times are RFC 3339, in UTC. Pure."""
    selection, steps = found.selection, list(found.steps.values())
    return {
        "selection": selection.id, "state": state_of(found), "action": selection.action, "force": selection.force,
        "filter": selection.filter, "count": selection.count, "bytes": selection.size_bytes, "cut": selection.cut,
        "changed": sum(step.changed for step in steps), "skipped": sum(step.skipped for step in steps),
        "refused": sum(step.refused for step in steps), "left": selection.count - sum(step.done for step in steps),
        "made_at": when(selection.made_at), "expires_at": when(found.expires_at),
    }


def state_of(found: KeptSelection) -> str:
    """How it stands: `previewed`, `applying`, `interrupted` (to be applied again), or `applied`. Pure."""
    if found.applied:
        return "applied"
    if found.running:
        return "applying"
    return "previewed" if all(step == Step() for step in found.steps.values()) else "interrupted"
