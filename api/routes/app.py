"""The addresses of uploads, tasks and health, and their answers."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, Final

from api.access.identify import Doorkeeper
from api.access.requester import Requester
from api.following.outcomes import Outcomes
from api.http.description import Handler
from api.http.parameters import check_configured, collect, read_query
from api.http.peers import Shares
from api.http.problem import UPLOAD, plain_problem, problem
from api.http.refusal_log import RefusalLog
from api.http.response import (
    PEER,
    REQUESTER,
    Answer,
    App,
    Receive,
    Scope,
    Send,
    json_answer,
    send_answer,
    text_answer,
)
from api.live_config import LiveConfig
from api.queries import task_query
from api.queries.finder import Finder
from api.queries.sight import Sight
from api.routes import health
from api.routes.described import LISTING, POSTING, PUTTING, SHOWING
from api.routes.endpoint import Audit, Endpoint, Few, Route, find_way
from api.routes.entrance import HEALTH, READINESS, entrance, tell_refused
from api.threads import joined
from api.uploads.intake import Uploads
from api.uploads.receive import Accepted, traced
from api.uploads.request import UploadRequest, read_put, read_upload, refuse_parameters
from daemon.access.caller import Caller
from daemon.access.decide import decide
from daemon.config import Config
from daemon.config.cells import refuse_elsewhere
from daemon.errors import Rejected
from daemon.model.grant import Permission
from daemon.model.names import printable
from daemon.model.task import OUTCOMES, Task
from daemon.model.upload import is_task_id
from daemon.model.view import describe_whole

#: Pages of tasks that are in memory at once, in all processes together, at most a megabyte each.
PAGES_AT_ONCE: Final = 64
_NO_PARAMETERS: Final[frozenset[str]] = frozenset()


class Courier:
    """What the addresses do."""

    def __init__(
        self, live: LiveConfig, uploads: Uploads, probe: health.Probe, threads: Executor, refusals: RefusalLog,
        finder: Finder, outcomes: Outcomes,
    ) -> None:
        self._live = live
        self._finder = finder
        self._outcomes = outcomes
        self._refusals = refusals
        self._uploads = uploads
        self._probe = probe
        self._examiner = health.Examiner(probe, threads)
        self._threads = threads

    def routes(self, pages: Shares, audit: Audit, delete: Handler, at_file: Callable[[App], App]) -> list[Route]:
        """The addresses; `pages` has the pages that wait to be read in all API processes, `delete` deletes a task.

        `at_file` adds to the address of a file what is not a whole upload in one request.
        """
        upload = Endpoint({"POST": POSTING.by(self.post_upload)}, plain_problem,
                          text_answer(405, "POST method required."), redirects=True)
        file = at_file(Endpoint({"PUT": PUTTING.by(self.put_file)}, redirects=True))
        return [
            Route(UPLOAD, upload),
            Route("/v1/instances/{instance}/files/{path:path}", file),
            Route("/v1/tasks/{task_id}", Endpoint({"GET": SHOWING.by(self.get_task), "DELETE": delete}, audit=audit)),
            Route("/v1/tasks", Few(Endpoint({"GET": LISTING.by(self.get_tasks)}, audit=audit, redirects=True), pages)),
            Route(HEALTH, Endpoint({"GET": health.HEALTH_DESCRIPTION.by(self.get_health)})),
            Route(READINESS, Endpoint({"GET": health.READINESS_DESCRIPTION.by(self.get_readiness)})),
        ]

    async def post_upload(self, scope: Scope, receive: Receive) -> Answer:
        """POST /upload: answer in the sentence that its clients know."""
        headers = collect(scope["headers"])

        def read(config: Config) -> UploadRequest:
            refuse_parameters(scope["query_string"])
            return read_upload(headers, config)

        state = scope["state"]
        request, accepted = await self._uploads.take(read, receive, state[PEER], state[REQUESTER])
        waited = await self._outcomes.wait(scope, receive, accepted.task_id)
        sentence = (f"File '{request.display_name}' queued for processing"
                    f" on container '{request.destination.instance}'.")
        return text_answer(202, sentence, *self._accepted_headers(accepted, state), *waited)

    async def put_file(self, scope: Scope, receive: Receive) -> Answer:
        """PUT a file into an instance: answer with its task."""
        headers, parts, state = collect(scope["headers"]), scope["path_params"], scope["state"]
        _, accepted = await self._uploads.take(
            lambda config: read_put(parts["instance"], parts["path"], scope["query_string"], headers, config), receive,
            state[PEER], state[REQUESTER])
        waited = await self._outcomes.wait(scope, receive, accepted.task_id)
        described = await self.describe(accepted, state[REQUESTER], waited=bool(waited))
        return json_answer(202, described, *self._accepted_headers(accepted, state), *waited)

    async def describe(self, accepted: Accepted, requester: Requester, *, waited: bool) -> dict[str, Any]:
        """The task of an upload that was accepted, as JSON values; as it is now if its outcome was `waited` for.

        Raises Rejected when a task that was there before cannot be read.
        """
        task = None
        if waited:
            task = await self._find_own(accepted.task_id, requester)
        elif accepted.replayed:
            # The first upload's task; its bytes may be there before its row is, after a repair.
            task = await self._finder.find(accepted.task_id, lambda _: True)
        return describe_whole(task) if task else task_query.describe_new(accepted.upload, accepted.task_id)

    async def _find_own(self, task_id: str, requester: Requester) -> Task | None:
        """The task of who sent it a while ago; None when nobody would know him any more, or it cannot be read."""
        with contextlib.suppress(Rejected):
            await requester.again()
            return await self._finder.find(task_id, lambda _: True)
        return None

    def _accepted_headers(self, accepted: Accepted, state: Mapping[str, Any]) -> list[tuple[str, str]]:
        headers = [("Location", f"{task_query.ADDRESS}/{accepted.task_id}")]
        replayed = [("Idempotency-Replayed", "true")] if accepted.replayed else []
        return [*headers, *replayed, *traced(accepted.upload), *self._uploads.rate_headers(state[REQUESTER].caller)]

    async def get_task(self, scope: Scope, receive: Receive) -> Answer:
        """GET one task."""
        read_query(scope["query_string"], _NO_PARAMETERS)
        task_id = scope["path_params"]["task_id"]
        if not is_task_id(task_id):
            raise Rejected("task_not_found", f"{printable(task_id)!r} is not the id of a task.")
        requester = scope["state"][REQUESTER]
        task = await self._find_seen(task_id, requester.caller, scope)
        waited = () if task.state in OUTCOMES else await self._outcomes.wait(scope, receive, task_id)
        if waited:
            task = await self._find_seen(task_id, await self._still(requester, scope), scope)
        return json_answer(200, describe_whole(task), *waited)

    async def _still(self, requester: Requester, scope: Scope) -> Caller:
        """Who asks, by now. Raises Rejected as at the first time."""
        try:
            return await requester.again()
        except Rejected as error:
            tell_refused(self._refusals, scope, error.code)
            raise

    async def _find_seen(self, task_id: str, caller: Caller, scope: Scope) -> Task:
        """The task, if the caller may see it. Raises Rejected('task_not_found')."""
        sight, hidden = Sight(caller), list[str]()

        def sees(task: Task) -> bool:
            code = sight.refusal(task)
            hidden.extend([code] if code else ())
            return code is None

        task = await self._finder.find(task_id, sees)
        if task is None:
            for code in hidden:
                tell_refused(self._refusals, scope, code, sight.caller, task_id=task_id)
            raise Rejected("task_not_found")
        return task

    async def get_tasks(self, scope: Scope, receive: Receive) -> Answer:
        """GET a page of tasks."""
        question = task_query.read_question(scope["query_string"], self._live.config)
        caller = scope["state"][REQUESTER].caller
        code = decide(caller, Permission.READ)
        if code is not None:
            raise Rejected(code)
        sight = Sight(caller)
        if question.instance is not None and sight.reaches(question.instance.instance_key):
            check_configured(question.instance, self._live.config)
        return await joined(self._threads.submit(self._page, question, sight))

    def _page(self, question: task_query.Question, sight: Sight) -> Answer:
        until = time.monotonic() + task_query.LOOKING_S
        looked = self._probe.reader.newest(question, sight)
        page = task_query.describe_page(looked, question, is_over=lambda: time.monotonic() > until)
        nothing = not page["tasks"] and page["next"] is None and question.after is None
        if nothing and question.instance is not None and sight.reaches(question.instance.instance_key):
            # One that came here from another cell, or went there, may have tasks in both.
            refuse_elsewhere(question.instance, self._live.config)
        return json_answer(200, page)

    async def get_health(self, scope: Scope, receive: Receive) -> Answer:
        """GET /healthz: the process is up."""
        return json_answer(200, health.describe_health(self._live.config, self._probe.tokens_digest()))

    async def get_readiness(self, scope: Scope, receive: Receive) -> Answer:
        """GET /readyz: whether uploads can be taken and delivered."""
        readiness = await self._examiner.examine(self._live.config)
        may_know = decide(scope["state"][REQUESTER].caller, Permission.METRICS) is None
        return json_answer(readiness.status, readiness.describe(reasons=may_know))


async def nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    """What is answered where no address is."""
    await send_answer(send, problem(Rejected("not_found")))


def build(
    routes: Sequence[Route], live: LiveConfig, doorkeeper: Doorkeeper, refusals: RefusalLog,
    otherwise: App = nothing_here,
) -> App:
    """The ASGI app that has these addresses; `otherwise` has all others."""
    return entrance(find_way(routes, otherwise), live, doorkeeper, refusals)
