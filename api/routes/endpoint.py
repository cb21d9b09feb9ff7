"""An address: the handler of each of its methods, how a refusal looks there, and who is told of one."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Protocol, runtime_checkable

from starlette.routing import Route as Route
from starlette.routing import Router

from api.http.description import Handler
from api.http.peers import Shares
from api.http.problem import REDIRECT, problem
from api.http.refusal_log import RefusalLog
from api.http.response import PEER, REQUESTER, Answer, App, Receive, Scope, Send, StreamedAnswer, send_answer
from api.routes.entrance import tell_refused
from api.uploads.body import ClientGone
from daemon.access.caller import Caller
from daemon.config.cells import OtherCell
from daemon.errors import CourierError, Rejected

Audit = Callable[[Scope, Rejected], None]
Refuse = Callable[[CourierError], Answer]

#: The statuses of refusals for want of rights.
REFUSALS_OF_RIGHTS: Final = frozenset({401, 403, 429})

_READING: Final = frozenset({"GET", "HEAD"})


def caller_in(scope: Scope) -> Caller:
    """Who sent the request."""
    caller: Caller = scope["state"][REQUESTER].caller
    return caller


def _private(answer: Answer | StreamedAnswer) -> Answer | StreamedAnswer:
    """The answer as no cache keeps it, unless it says for itself how it may be kept: it is for who asked alone."""
    if any(name == "Cache-Control" for name, _ in answer.headers):
        return answer
    return replace(answer, headers=(*answer.headers, ("Cache-Control", "no-store")))


def find_way(routes: Sequence[Route], otherwise: App) -> App:
    """The app that hands each request to the address that it is for. Nothing else of Starlette is used."""
    search = Router(routes, redirect_slashes=False, default=otherwise)
    # An address without parameters, and one way for all methods, is one text: whoever has it need not search.
    first = [next(other for other in routes if other.path_regex.match(route.path))
             for route in routes if not route.param_convertors]
    known = {route.path: route.app for route in first if not (route.methods or route.param_convertors)}

    async def go(scope: Scope, receive: Receive, send: Send) -> None:
        await known.get(scope["path"], search)(scope, receive, send)

    return go


def auditing(refusals: RefusalLog) -> Audit:
    """Log the refusals for want of rights."""
    def audit(scope: Scope, error: Rejected) -> None:
        if error.kind.status in REFUSALS_OF_RIGHTS:
            tell_refused(refusals, scope, error.code, caller_in(scope))

    return audit


@dataclass(frozen=True)
class Endpoint:
    """One address: the handler of each method, and how a refusal looks there."""

    methods: Mapping[str, Handler]
    refuse: Refuse = problem
    #: The answer to any other method, when it is not a problem.
    other_method: Answer | None = None
    #: Told of each refusal.
    audit: Audit | None = None
    #: Whether a client can go on with the same request at another cell.
    redirects: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        answer: Answer | StreamedAnswer | None = self._mistake
        try:
            answer = await self._answer(scope, receive)
        except Rejected as error:
            answer = self._refusal(error, scope)
            if self.audit is not None:
                self.audit(scope, error)
        except (ClientGone, asyncio.CancelledError) as gone:
            answer = None
            if isinstance(gone, asyncio.CancelledError):
                raise
        finally:
            if answer is not None:
                await send_answer(send, _private(answer) if scope["method"] in _READING else answer)

    def _refusal(self, error: Rejected, scope: Scope) -> Answer:
        if not (self.redirects and isinstance(error, OtherCell) and error.redirects):
            return self.refuse(error)
        query = scope["query_string"].decode("latin-1")
        there = f"{error.address}{scope['path']}{'?' if query else ''}{query}"
        return problem(error, status=REDIRECT).plus(("Location", there))

    @cached_property
    def _mistake(self) -> Answer:
        """What is sent when the handler makes a mistake of ours; the server logs the mistake."""
        return self.refuse(CourierError("internal"))

    async def _answer(self, scope: Scope, receive: Receive) -> Answer | StreamedAnswer:
        method = scope["method"]
        handler = self.methods.get("GET" if method == "HEAD" else method)
        if handler is not None:
            return await handler(scope, receive)
        other = self.other_method or self.refuse(Rejected("method_not_allowed"))
        allowed = ", ".join([*self.methods, *(["HEAD"] if "GET" in self.methods else [])])
        return other.plus(("Allow", allowed)) if allowed else other


@runtime_checkable
class Around(Protocol):
    """An app that hands requests of one address to others, and says to which."""

    inside: Sequence[App]


class Few:
    """An app of large answers: each is in memory until its client has read it, so only a few are made at once."""

    def __init__(self, app: App, shares: Shares) -> None:
        self._app = app
        self.inside: Sequence[App] = (app,)
        self._shares = shares

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or send it away."""
        peer = scope["state"][PEER]
        if not self._shares.take(peer):
            await send_answer(send, problem(Rejected("too_busy")))
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._shares.give_back(peer)
