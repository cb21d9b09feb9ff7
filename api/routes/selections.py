"""Acting on many tasks: a preview freezes which, and applying it touches these and no others."""

import threading
import time
from concurrent.futures import Executor
from typing import Any, Final

from api.acting.applying import Applier
from api.acting.preview import PreviewWish, choose, read_apply, read_preview
from api.acting.selections import FrozenSelection, KeptSelection, Selections, Step
from api.http.parameters import check_configured, read_query
from api.http.peers import Shares
from api.http.response import REQUESTER, Answer, Receive, Scope, json_answer
from api.live_config import LiveConfig
from api.queries import task_query
from api.queries.reader import Reader
from api.queries.sight import Sight
from api.routes.endpoint import Audit, Endpoint, Few, Route
from api.routes.json_body import read_body, read_object
from api.threads import joined
from daemon.access.caller import Caller
from daemon.access.decide import decide
from daemon.errors import Rejected
from daemon.model.grant import Permission
from daemon.model.view import describe, when

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
        return [
            Route(f"{task_query.ADDRESS}:preview", Few(Endpoint({"POST": self.preview}, audit=audit), at_once)),
            Route(f"{task_query.ADDRESS}:apply", Few(Endpoint({"POST": self.apply}, audit=audit), at_once)),
            Route(f"{ADDRESS}/{{selection}}", Endpoint({"GET": self.get}, audit=audit)),
        ]

    async def preview(self, scope: Scope, receive: Receive) -> Answer:
        """POST /v1/tasks:preview: choose tasks."""
        given = await self._read(scope, receive)
        wish = read_preview(given, self._live.config)
        caller = _caller(scope)
        for permission in (Permission.READ, wish.action.permission):
            if (code := decide(caller, permission)) is not None:
                raise Rejected(code)
        instance = wish.question.instance
        if instance is not None and Sight(caller).reaches(instance.instance_key):
            check_configured(instance.remote, self._live.config)
        if self._previews >= MAX_PREVIEWS:
            raise Rejected("too_busy")
        self._previews += 1
        try:
            return await joined(self._threads.submit(self._choose, wish, caller))
        finally:
            self._previews -= 1

    def _choose(self, wish: PreviewWish, caller: Caller) -> Answer:
        # Who filters by states of which none fits has chosen nothing.
        tasks = self._reader.newest(wish.question, Sight(caller)) if wish.question.states else iter(())
        chosen = choose(tasks, self._reader.shards, ended=self._ended.is_set)
        if self._ended.is_set():
            raise Rejected("draining")
        selection = self._selections.put(FrozenSelection(
            id="", owner=caller.name, root=caller.root, action=wish.action.verb, force=wish.force,
            states=sorted(wish.states), made_at=time.time(), filter=wish.filter, members={},
            size_bytes=chosen.size_bytes, cut=chosen.cut), chosen.members)
        described = describe_selection(self._selections.find(selection.id, caller.name))
        return json_answer(200, {**described, "samples": [describe(task) for task in chosen.samples]}, _NO_STORE)

    async def apply(self, scope: Scope, receive: Receive) -> Answer:
        """POST /v1/tasks:apply: do what a preview showed."""
        selection = read_apply(await self._read(scope, receive))
        return _answer(await self._applier.apply(selection, scope["state"][REQUESTER], PATIENCE_S))

    async def get(self, scope: Scope, receive: Receive) -> Answer:
        """GET how a selection stands."""
        read_query(scope["query_string"], _NO_PARAMETERS)
        found = await self._applier.find(scope["path_params"]["selection"], _caller(scope).name)
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


def _caller(scope: Scope) -> Caller:
    caller: Caller = scope["state"][REQUESTER].caller
    return caller
