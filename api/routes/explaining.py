"""Why a task waits, for who may see it."""

import time
from concurrent.futures import Executor
from typing import Final

from api.http.description import Content, Description, Outcome
from api.http.parameters import read_query
from api.http.response import Answer, Receive, Scope, json_answer
from api.live_config import LiveConfig
from api.queries import task_query
from api.queries.reader import Reader
from api.queries.sight import Sight
from api.routes.endpoint import Audit, Endpoint, Route, caller_in
from api.routes.one_task import FINDING_REFUSALS, TASK_IN_ADDRESS, TaskFinder
from api.threads import joined
from daemon.config.naming import instance_name
from daemon.explain import EXPLANATION, Explanation, explain_task, read_service
from daemon.model.grant import Permission
from daemon.model.task import Task
from daemon.state.layout import Layout

_NO_PARAMETERS: Final[frozenset[str]] = frozenset()
EXPLAINING: Final = Description(
    operation_id="explainTask", group="Tasks", summary="Why a task is not delivered yet",
    text="This needs the right `read`. It says how the task stands in words, what unblocks it, when it is tried next,"
    " and what is being pushed into its instance meanwhile; of other tasks nothing where these may not be seen."
    " What an error of the service itself said is for who may see all tasks.",
    parameters=(TASK_IN_ADDRESS,), outcomes={
        200: Outcome(meaning="As it is now.", content=Content(schema=EXPLANATION))},
    refuses=("bad_query", *FINDING_REFUSALS), example="curl http://127.0.0.1:8420/v1/tasks/$ID/explanation")


class ExplanationRoutes:
    """What the address does."""

    def __init__(
        self, live: LiveConfig, layout: Layout, reader: Reader, finder: TaskFinder, threads: Executor,
    ) -> None:
        self._live = live
        self._layout = layout
        self._reader = reader
        self._finder = finder
        self._threads = threads

    def routes(self, audit: Audit) -> list[Route]:
        """The address."""
        return [Route(f"{task_query.ADDRESS}/{{task_id}}/explanation",
                      Endpoint({"GET": EXPLAINING.by(self.get)}, audit=audit))]

    async def get(self, scope: Scope, receive: Receive) -> Answer:
        """GET why a task waits."""
        read_query(scope["query_string"], _NO_PARAMETERS)
        task = await self._finder.find(scope, Permission.READ)
        sight = Sight(caller_in(scope))
        others = not sight.within_instances
        explanation = await joined(self._threads.submit(self._explain, task, others=others))
        return json_answer(200, (explanation if sight.of_all else explanation.for_outsiders()).as_json())

    def _explain(self, task: Task, *, others: bool) -> Explanation:
        service = read_service(self._layout, self._reader.shard_of(task.destination.instance_key))
        return explain_task(task, time.time(), service, self._reader.ahead_of(task), others=others,
                            name=instance_name(task.destination, self._live.config))
