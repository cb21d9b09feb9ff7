"""The bytes of a dead letter, or of a task that is held, for who has the right to them."""

from collections.abc import AsyncGenerator
from concurrent.futures import Executor
from typing import Final

from api.acting.content import check_kept, explained, headers_of, pieces_of
from api.http.description import Content, Description, Outcome, Parameter, Where
from api.http.parameters import read_query
from api.http.peers import Shares
from api.http.response import REQUESTER, Answer, Receive, Scope, StreamedAnswer
from api.queries import task_query
from api.routes.endpoint import Audit, Endpoint, Few, Route
from api.routes.one_task import FINDING_REFUSALS, TASK_IN_ADDRESS, TaskFinder
from api.threads import joined
from daemon.errors import Undelivered
from daemon.log import log
from daemon.model.grant import Permission
from daemon.model.schema import text
from daemon.spool import Open

#: Files that are fetched at once, in all processes together.
CONTENTS_AT_ONCE: Final = 16
_BYTES: Final = "application/octet-stream"
_NO_PARAMETERS: Final[frozenset[str]] = frozenset()
FETCHING: Final = Description(
    operation_id="getContent", group="Acting on tasks", summary="The bytes of a task",
    text="This needs the right `save`, and is for tasks that are `failed` or `held`. The bytes are checked on their"
    " way: where they are not those that were accepted, the answer ends before its length.",
    parameters=(TASK_IN_ADDRESS,),
    outcomes={200: Outcome(meaning="They follow.", content=Content(media_type=_BYTES), headers=(
        Parameter(name="Content-Disposition", meaning="an attachment, and its name", schema=text(), place=Where.HEADER,
                  required=True),
        Parameter(name="Repr-Digest", meaning="of all of them (RFC 9530)", schema=text(), place=Where.HEADER,
                  required=True)))},
    refuses=(*FINDING_REFUSALS, "bad_query", "too_busy", "wrong_state", "bytes_gone", "bytes_unreadable"),
    example="curl -OJ http://127.0.0.1:8420/v1/tasks/$ID/content")


class ContentRoutes:
    """What the address of a task's bytes does."""

    def __init__(self, spool: Open, finder: TaskFinder, threads: Executor) -> None:
        self._spool = spool
        self._finder = finder
        self._threads = threads

    def routes(self, at_once: Shares, audit: Audit) -> list[Route]:
        """The address; `at_once` has the files that are fetched from all API processes."""
        endpoint = Endpoint({"GET": FETCHING.by(self.get)}, audit=audit)
        return [Route(f"{task_query.ADDRESS}/{{task_id}}/content", Few(endpoint, at_once))]

    async def get(self, scope: Scope, receive: Receive) -> Answer | StreamedAnswer:
        """GET the bytes."""
        read_query(scope["query_string"], _NO_PARAMETERS)
        task = await self._finder.find(scope, Permission.SAVE)
        check_kept(task)
        try:
            source = await joined(self._threads.submit(self._spool.open, task.upload))
        except Undelivered as error:
            raise explained(error) from error
        if scope["method"] == "HEAD":
            source.close()
            return StreamedAnswer(200, _BYTES, _nothing(), headers_of(task.upload))
        log("task.saved", task_id=task.task_id, by=scope["state"][REQUESTER].caller.name, client=task.upload.client,
            traceparent=task.upload.traceparent)
        pieces = pieces_of(source, task.upload, self._threads, receive)
        return StreamedAnswer(200, _BYTES, pieces, headers_of(task.upload))


async def _nothing() -> AsyncGenerator[bytes, None]:
    none: tuple[bytes, ...] = ()
    for piece in none:
        yield piece
