"""Acting on one task: what somebody asks for is on the disk first, then done by the worker, and then answered."""

from functools import partial
from typing import Final

from api.acting.actions import ACTIONS, TaskAction, read_force, refusal_of, view_of
from api.acting.errands import Errand, Errands, Report
from api.http.parameters import read_query
from api.http.peers import Shares
from api.http.response import NOTHING, PEER, REQUESTER, Answer, Receive, Scope, json_answer
from api.live_config import LiveConfig
from api.queries import task_query
from api.routes.endpoint import Audit, Endpoint, Route
from api.routes.json_body import read_body, read_object
from api.routes.one_task import TaskFinder
from daemon.access.caller import Caller
from daemon.errors import Rejected
from daemon.model.task import Task
from daemon.task_queue import Command

#: How long an answer of the worker is waited for.
PATIENCE_S: Final = 5.0
#: Requests that act on tasks, at once, in all processes together.
ACTIONS_AT_ONCE: Final = 64
_FORCE: Final = frozenset({"force"})
_NOBODY_WORKS: Final = "No worker of its shard runs: it is done when one does."
_BUSY: Final = "The worker is busy: it is done as soon as it can be."


class ActionRoutes:
    """What the addresses of one task do."""

    def __init__(self, live: LiveConfig, errands: Errands, finder: TaskFinder, shards: int, at_once: Shares) -> None:
        """`at_once` has the requests that act in all API processes."""
        self._live = live
        self._at_once = at_once
        self._errands = errands
        self._finder = finder
        self._shards = shards

    def routes(self, audit: Audit) -> list[Route]:
        """The addresses, but for that of the task itself, to which `delete` belongs."""
        posted = {verb: partial(self._act, action) for verb, action in ACTIONS.items() if verb != "delete"}
        return [Route(f"{task_query.ADDRESS}/{{task_id}}/{verb}", Endpoint({"POST": act}, audit=audit))
                for verb, act in posted.items()]

    async def delete(self, scope: Scope, receive: Receive) -> Answer:
        """DELETE a task: give a dead letter up, or forget what is finished."""
        return await self._act(ACTIONS["delete"], scope, receive)

    async def _act(self, action: TaskAction, scope: Scope, receive: Receive) -> Answer:
        """Do something with one task."""
        parameters = read_query(scope["query_string"], _FORCE)
        body = await read_body(scope, receive, self._live.pace())
        force = read_force(action, parameters, read_object(body) if body else {})
        # Who is slow to send keeps nobody from acting.
        peer = scope["state"][PEER]
        if not self._at_once.take(peer):
            raise Rejected("too_busy")
        try:
            return await self._do(action, scope, force=force)
        finally:
            self._at_once.give_back(peer)

    async def _do(self, action: TaskAction, scope: Scope, *, force: bool) -> Answer:
        task, caller = await self._finder.find(scope, action.permission), _caller(scope)
        command = Command(verb=action.verb, task_id=task.task_id, force=force, asked_by=caller.name)
        errand = await self._errands.ask(task.destination.shard(self._shards), [command])
        report = await self._errands.report(errand, PATIENCE_S)
        now = await self._finder.look(task.task_id)
        if not report.complete:
            return _asked(errand, report, caller, now or task)
        [answer] = report.answers.values()
        refusal = refusal_of(action, answer)
        if refusal is None:
            return NOTHING if now is None else json_answer(200, view_of(caller, now))
        if now is not None and action.is_reached(now.state):
            # Somebody asks again whose answer was lost.
            return json_answer(200, view_of(caller, now))
        raise refusal


def _asked(errand: Errand, report: Report, caller: Caller, task: Task) -> Answer:
    return json_answer(202, {
        "status": "asked", "detail": _BUSY if report.attended else _NOBODY_WORKS,
        "command": f"{errand.shard}-{errand.numbers[0]}", "task": view_of(caller, task),
    }, ("Location", f"{task_query.ADDRESS}/{task.task_id}"))


def _caller(scope: Scope) -> Caller:
    caller: Caller = scope["state"][REQUESTER].caller
    return caller
