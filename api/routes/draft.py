"""Resumable uploads by the IETF's draft, interop numbers 5 and 6.

An upload to a file's address is resumable when its head says so, whether it is a PUT or a POST. Its client is told
by a head before the answer (104) where it can go on: at an address of its own, written relative to the file's, so that
a proxy may put any path in front of both. The answer to its end is that of any upload to that address.
"""

import time
from collections.abc import Sequence
from typing import Any, Final

from api.following.outcomes import Outcomes
from api.http.parameters import Headers, collect, read_query
from api.http.problem import RESUMABLE, problem
from api.http.response import ASKER, PEER, REQUESTER, TEXT, Answer, App, Receive, Scope, Send, json_answer, send_answer
from api.live_config import LiveConfig
from api.queries import task_query
from api.resumable import draft_headers
from api.resumable.draft_headers import INTEROP
from api.resumable.engine import Resumable
from api.resumable.parts import part_bytes, refuse_digests, whole_digests
from api.resumable.values import Progress
from api.routes.described import PUTTING
from api.routes.draft_described import ADDING, BEGINNING, ENDING, LIMITS, LOOKING
from api.routes.endpoint import Audit, Endpoint, Route
from api.routes.forms import Describe
from api.routes.resumable import NO_STORE, added, looked, wait
from api.uploads.receive import Accepted, traced
from api.uploads.request import read_put
from daemon.errors import CourierError, Rejected

_NO_PARAMETERS: Final[frozenset[str]] = frozenset()
_TOO_LARGE: Final = 413


class DraftRoutes:
    """What the addresses do for those who speak the draft.

    An upload is complete when its last part says so, or when all bytes of an announced length are there: nothing could
    come after them, and tus-js-client (4.3.1, in node) says of the last part of a file that more comes.
    """

    def __init__(self, live: LiveConfig, engine: Resumable, outcomes: Outcomes, describe: Describe) -> None:
        self._live = live
        self._engine = engine
        self._outcomes = outcomes
        self._describe = describe

    def routes(self, audit: Audit) -> list[Route]:
        """The addresses of unfinished uploads."""
        methods = {
            "GET": LOOKING.by(self.get), "PATCH": ADDING.by(self.patch), "DELETE": ENDING.by(self.delete)}
        return [Route(RESUMABLE + "{upload_id}", Endpoint(methods, self.problem, audit=audit))]

    def at_file(self, otherwise: App) -> App:
        """The address of a file, where all but the draft's own requests are for `otherwise`."""
        methods = {"PUT": PUTTING.by(self.create), "POST": BEGINNING.by(self.create)}
        created = Endpoint(methods, self.problem, redirects=True)
        return _FileAddress(otherwise, created, Endpoint({"OPTIONS": LIMITS.by(self.options)}))

    def problem(self, error: CourierError) -> Answer:
        """The refusal with the draft's own type and headers, where it has them."""
        answer = problem(error, kind_of=draft_headers.PROBLEM_TYPES.get(error.code))
        if error.code == "wrong_offset":
            return answer.plus(("Upload-Complete", "?0"))
        return answer.plus(self._limit(None)) if answer.status == _TOO_LARGE else answer

    async def options(self, scope: Scope, receive: Receive) -> Answer:
        """OPTIONS at a file's address: that parts are taken, and how much."""
        return Answer(204, TEXT, b"", (
            ("Allow", "OPTIONS, POST, PUT"), ("Accept-Patch", draft_headers.PART.decode()),
            self._limit(None)))

    async def create(self, scope: Scope, receive: Receive) -> Answer:
        """PUT or POST a file, or its beginning."""
        headers, state, parts = collect(scope["headers"]), scope["state"], scope["path_params"]
        interop, complete = draft_headers.require_interop(headers), draft_headers.read_complete(headers)
        request = read_put(parts["instance"], parts["path"], scope["query_string"], headers, self._live.config)
        length = part_bytes(headers)
        whole = draft_headers.whole_length(headers, offset=0, body_bytes=length, complete=complete)
        progress = await self._engine.create(
            request._replace(length=whole, digests=request.digests if complete else whole_digests(headers)), "",
            state[REQUESTER], state[PEER])
        location = ("Location", _location(scope["path"], progress.upload_id))
        if draft_headers.takes_interim(headers):
            await state[ASKER].inform(draft_headers.RESUMPTION_SUPPORTED, (INTEROP, interop.decode()), location,
                                      self._limit(progress.expires_at))
        if not progress.complete:
            progress = await self._engine.append(
                progress.upload_id, 0, receive, state[REQUESTER], state[PEER], content_length=length,
                final=complete or None)
        if progress.complete:
            return await self._ended(scope, receive, progress)
        return self._answer(201, progress, location)

    async def get(self, scope: Scope, receive: Receive) -> Answer:
        """HEAD or GET: how an upload stands."""
        self._read(scope)
        return await looked(self._look(scope))

    async def _look(self, scope: Scope) -> Answer:
        progress = await self._engine.look(scope["path_params"]["upload_id"], scope["state"][REQUESTER])
        return self._answer(204, progress)

    async def patch(self, scope: Scope, receive: Receive) -> Answer:
        """PATCH: take a part."""
        return await added(self._add(scope, receive))

    async def _add(self, scope: Scope, receive: Receive) -> Answer:
        headers, state = self._read(scope), scope["state"]
        interop, complete = draft_headers.require_interop(headers), draft_headers.read_complete(headers)
        draft_headers.check_part(headers, interop)
        refuse_digests(headers)
        offset, length = draft_headers.read_offset(headers), part_bytes(headers)
        whole = draft_headers.whole_length(headers, offset=offset, body_bytes=length, complete=complete)
        progress = await self._engine.append(
            scope["path_params"]["upload_id"], offset, receive, state[REQUESTER], state[PEER], content_length=length,
            length=whole, final=complete or None)
        if progress.complete:
            return await self._ended(scope, receive, progress)
        return self._answer(204, progress)

    async def delete(self, scope: Scope, receive: Receive) -> Answer:
        """DELETE: end an upload."""
        self._read(scope)
        await self._engine.end(scope["path_params"]["upload_id"], scope["state"][REQUESTER])
        return Answer(204, TEXT, b"", (NO_STORE,))

    def _read(self, scope: Scope) -> Headers:
        read_query(scope["query_string"], _NO_PARAMETERS)
        return collect(scope["headers"])

    def _limit(self, expires_at: float | None) -> tuple[str, str]:
        left_s = None if expires_at is None else max(0, int(expires_at - time.time()))
        most = self._live.config.limits.max_upload_bytes
        return ("Upload-Limit", draft_headers.limits(max_bytes=most, max_age_s=left_s))

    def _answer(self, status: int, progress: Progress, *headers: tuple[str, str]) -> Answer:
        length = () if progress.length is None else (("Upload-Length", str(progress.length)),)
        limit = () if progress.complete else (self._limit(progress.expires_at),)
        return Answer(status, TEXT, b"", (*headers, *_how_it_stands(progress), *length, *limit, NO_STORE))

    async def _ended(self, scope: Scope, receive: Receive, progress: Progress) -> Answer:
        """What a PUT of the whole file is answered; no more than the id of a task that is not known any more."""
        assert progress.task_id is not None
        waited = await wait(self._outcomes, scope, receive, progress)
        described: dict[str, Any] = {"id": progress.task_id}
        if progress.upload is not None:
            accepted = progress.accepted or Accepted(progress.upload, progress.task_id, {})
            described = await self._describe(accepted, scope["state"][REQUESTER], waited=bool(waited))
        replayed = progress.accepted is not None and progress.accepted.replayed
        return json_answer(202, described, *_how_it_stands(progress), *waited,
                           *([("Idempotency-Replayed", "true")] if replayed else []),
                           ("Location", f"{task_query.ADDRESS}/{progress.task_id}"), *traced(progress.upload))


class _FileAddress:
    """An app that tells the draft's requests apart, by their headers alone."""

    def __init__(self, otherwise: App, resumable: App, options: App) -> None:
        self.inside: Sequence[App] = (otherwise, resumable, options)
        self._otherwise = otherwise
        self._resumable = resumable
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        app = self._otherwise
        if scope["method"] == "OPTIONS":
            app = self._options
        elif any(name == draft_headers.COMPLETE for name, _ in scope["headers"]):
            try:
                app = self._resumable if draft_headers.is_resumable(collect(scope["headers"])) else self._otherwise
            except Rejected as error:
                await send_answer(send, problem(error))
                return
        await app(scope, receive, send)


def _how_it_stands(progress: Progress) -> tuple[tuple[str, str], ...]:
    task = () if progress.task_id is None else (("Task-Id", progress.task_id),)
    return (("Upload-Complete", draft_headers.sf_boolean(progress.complete)),
            ("Upload-Offset", str(progress.offset)), *task)


def _location(path: str, upload_id: str) -> str:
    """The address of an upload, as it is found from the file's `path`, whatever a proxy has put in front of both."""
    below = path.removeprefix("/v1/").count("/")
    return "../" * below + RESUMABLE.removeprefix("/v1/") + upload_id
