"""tus 1.0: uploads that go on where they were cut off, as its clients do them.

`Location` is one name below the address that was asked, so that a proxy may put any path in front of it, and so that
clients that put the two together without resolving find it, too.

Trouble that passes by itself is told so that clients go on where they were (`api.routes.resumable`); 429 is an answer
to the making of an upload alone.
"""

import contextlib
from collections.abc import Sequence
from email.utils import formatdate
from typing import Final

from api.following.outcomes import Outcomes
from api.http.parameters import collect, read_query
from api.http.problem import TUS, TUS_RESUMABLE, problem
from api.http.response import PEER, REQUESTER, TEXT, Answer, App, Event, Receive, Scope, Send, encoded, send_answer
from api.live_config import LiveConfig
from api.resumable import tus_headers
from api.resumable.engine import Resumable
from api.resumable.parts import part_bytes, refuse_digests
from api.resumable.values import Progress
from api.routes.endpoint import Audit, Endpoint, Route
from api.routes.resumable import NO_STORE, added, looked, wait
from api.routes.tus_described import ADDING, CREATING, ENDING, LOOKING, TELLING, TELLING_THERE
from api.uploads.body import ClientGone
from api.uploads.receive import traced
from daemon.errors import CourierError, Rejected

_NO_PARAMETERS: Final[frozenset[str]] = frozenset()
_SAID: Final = encoded((TUS_RESUMABLE, NO_STORE))
#: Where the last slash was forgotten: what is made there would not be found.
_BESIDE: Final = problem(Rejected("not_found", f"The address of tus ends in a slash: {TUS}"))


class TusRoutes:
    """What the addresses of tus do."""

    def __init__(self, live: LiveConfig, engine: Resumable, outcomes: Outcomes) -> None:
        self._live = live
        self._engine = engine
        self._outcomes = outcomes

    def routes(self, audit: Audit) -> list[Route]:
        """The addresses."""
        all_of_them = Endpoint({"POST": CREATING.by(self.post), "OPTIONS": TELLING.by(self.options)}, audit=audit)
        one = Endpoint({"GET": LOOKING.by(self.get), "PATCH": ADDING.by(self.patch), "DELETE": ENDING.by(self.delete),
                        "OPTIONS": TELLING_THERE.by(self.options)}, audit=audit)
        return [
            Route(TUS, TusDoor(all_of_them)),
            Route(TUS + "{upload_id}", TusDoor(one)),
            Route(TUS.removesuffix("/"), Endpoint({}, other_method=_BESIDE)),
        ]

    async def options(self, scope: Scope, receive: Receive) -> Answer:
        """OPTIONS: what is spoken here, for everybody."""
        return Answer(200, TEXT, b"", (
            ("Tus-Version", tus_headers.VERSION), ("Tus-Extension", tus_headers.EXTENSIONS),
            ("Tus-Max-Size", str(self._live.config.limits.max_upload_bytes)),
            ("Tus-Checksum-Algorithm", ",".join(tus_headers.CHECKSUMS))))

    async def post(self, scope: Scope, receive: Receive) -> Answer:
        """POST /v1/tus/: make an upload, and take its first part if that came along."""
        headers, state = collect(scope["headers"]), scope["state"]
        read_query(scope["query_string"], _NO_PARAMETERS)
        creation = tus_headers.read_creation(headers, self._live.config)
        length, checksum = part_bytes(headers), tus_headers.read_checksum(headers)
        has_part = length != 0
        if has_part:
            tus_headers.check_part(headers)
        progress = await self._engine.create(creation.request, creation.metadata, state[REQUESTER], state[PEER])
        if has_part and not progress.complete:
            try:
                progress = await self._engine.append(
                    progress.upload_id, 0, receive, state[REQUESTER], state[PEER], content_length=length,
                    checksum=checksum)
            except (Rejected, ClientGone):
                # Nobody has been told where it is.
                with contextlib.suppress(CourierError):
                    await self._engine.end(progress.upload_id, state[REQUESTER])
                raise
        waited = await wait(self._outcomes, scope, receive, progress)
        return _answer(201, progress, ("Location", progress.upload_id), *waited)

    async def get(self, scope: Scope, receive: Receive) -> Answer:
        """HEAD: how an upload stands."""
        read_query(scope["query_string"], _NO_PARAMETERS)
        return await looked(self._look(scope))

    async def _look(self, scope: Scope) -> Answer:
        progress = await self._engine.look(scope["path_params"]["upload_id"], scope["state"][REQUESTER])
        length = ("Upload-Defer-Length", "1") if progress.length is None else ("Upload-Length", str(progress.length))
        metadata = [("Upload-Metadata", progress.metadata)] if progress.metadata else []
        return _answer(200, progress, length, *metadata)

    async def patch(self, scope: Scope, receive: Receive) -> Answer:
        """PATCH: take a part."""
        return await added(self._add(scope, receive))

    async def _add(self, scope: Scope, receive: Receive) -> Answer:
        headers, state = collect(scope["headers"]), scope["state"]
        read_query(scope["query_string"], _NO_PARAMETERS)
        tus_headers.check_part(headers)
        refuse_digests(headers)
        progress = await self._engine.append(
            scope["path_params"]["upload_id"], tus_headers.read_offset(headers), receive, state[REQUESTER], state[PEER],
            content_length=part_bytes(headers), length=tus_headers.read_late_length(headers),
            checksum=tus_headers.read_checksum(headers))
        return _answer(204, progress, *await wait(self._outcomes, scope, receive, progress))

    async def delete(self, scope: Scope, receive: Receive) -> Answer:
        """DELETE: end an upload."""
        read_query(scope["query_string"], _NO_PARAMETERS)
        await self._engine.end(scope["path_params"]["upload_id"], scope["state"][REQUESTER])
        return Answer(204, TEXT, b"")


def _answer(status: int, progress: Progress, *headers: tuple[str, str]) -> Answer:
    expires = () if progress.complete else (("Upload-Expires", formatdate(progress.expires_at, usegmt=True)),)
    task = () if progress.task_id is None else (("Task-Id", progress.task_id),)
    return Answer(status, TEXT, b"", (
        *headers, ("Upload-Offset", str(progress.offset)), *expires, *task, *traced(progress.upload)))


class TusDoor:
    """An app for those who speak tus 1.0.0; a POST that stands for another method is that to it.

    Whoever speaks another version is refused, and nothing is done. Each answer says what is spoken.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self.inside: Sequence[App] = (app,)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        async def say(event: Event) -> None:
            if event["type"] == "http.response.start":
                event = {**event, "headers": [*event["headers"], *_SAID]}
            await send(event)

        headers = collect(scope["headers"])
        try:
            scope["method"] = tus_headers.method_of(scope["method"], headers)
            if scope["method"] != "OPTIONS":
                tus_headers.check_version(headers)
        except Rejected as error:
            await send_answer(say, problem(error))
        else:
            await self._app(scope, receive, say)
