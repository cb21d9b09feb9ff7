"""Acting on one task: what somebody asks for is on the disk first, then done by the worker, and then answered."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from api.acting.actions import ACTIONS, TASK_VIEW, TaskAction, read_force, refusal_of, view_of
from api.acting.errands import Errand, Errands, Report
from api.http.description import LOCATION, Content, Description, Leads, Operation, Outcome, Parameter, names
from api.http.parameters import read_query
from api.http.peers import Shares
from api.http.response import NOTHING, PEER, Answer, Receive, Scope, json_answer
from api.live_config import LiveConfig
from api.queries import task_query
from api.routes.endpoint import Audit, Endpoint, Route, caller_in
from api.routes.json_body import BODY_REFUSALS, read_body, read_object
from api.routes.one_task import FINDING_REFUSALS, TASK_IN_ADDRESS, TaskFinder
from api.uploads.fields import FLAG
from daemon.access.caller import Caller
from daemon.errors import Rejected
from daemon.model.schema import YES_OR_NO, answer, request, saying, text
from daemon.model.task import Task
from daemon.task_queue import Command

#: How long an answer of the worker is waited for.
PATIENCE_S: Final = 5.0
#: Requests that act on tasks, at once, in all processes together.
ACTIONS_AT_ONCE: Final = 64
_OVER_NEWER: Final = "also where a newer upload to the same path exists: the older bytes are delivered over it"
_FORCE: Final = Parameter(name="force", meaning=_OVER_NEWER, schema=FLAG, refuses=("bad_query", "bad_flag"))
_NOBODY_WORKS: Final = "No worker of its shard runs: it is done when one does."
_BUSY: Final = "The worker is busy: it is done as soon as it can be."
#: What `_asked` makes.
_ASKED: Final = answer("Asked", {
    "status": {"const": "asked"},
    "detail": text("why it is not done yet"),
    "command": text("its number in the log of the queue"),
    "task": TASK_VIEW,
})
_FORCED: Final = Content(schema=request("Force", {"force": saying(YES_OR_NO, _OVER_NEWER)}), required=False,
                         meaning="`force`, which stands here or in the address")
_WHERE: Final = replace(LOCATION, meaning="the address of the task, which shows when it is done")
_GROUP: Final = "Acting on tasks"


def _described(verb: str, summary: str, example: str) -> Description:
    action = ACTIONS[verb]
    states = ", ".join(f"`{state.label}`" for state in sorted(action.states | action.forgets))
    reasons = [*(["newer_upload"] if action.forcible else []), *(["bytes_still_there"] if action.forgets else [])]
    return Description(
        operation_id=f"{verb}Task", group=_GROUP, summary=summary, example=example,
        text=f"This needs the right `{action.permission}`, and is for tasks that are {states}. To ask again is safe."
        " [acting.md](acting.md) has more.",
        parameters=(TASK_IN_ADDRESS, _FORCE) if action.forcible else (TASK_IN_ADDRESS,),
        body=_FORCED if action.forcible else None,
        outcomes={
            200: Outcome(meaning="It is done. This is the task now; who may not see it is told its state alone.",
                         content=Content(schema=TASK_VIEW)),
            202: Outcome(meaning="It is kept, and done later.", content=Content(schema=_ASKED), headers=(_WHERE,),
                         leads=(Leads(operation_id="getTask", given={"task_id": "$response.body#/task/id"}),)),
            204: Outcome(meaning="It is done, and the task is forgotten.")},
        refuses=(*FINDING_REFUSALS, *BODY_REFUSALS, "bad_query", "bad_flag", "bad_action", "too_busy", "wrong_state",
                 *reasons, "commands_full"))


def _posted(verb: str, summary: str) -> Description:
    return _described(verb, summary, f"curl -X POST http://127.0.0.1:8420/v1/tasks/$ID/{verb}")


#: What can be done with one task, as its address says it.
DESCRIPTIONS: Final[Mapping[str, Description]] = {
    "cancel": _posted("cancel", "Do not deliver it, and let its bytes go"),
    "hold": _posted("hold", "Hold it back until it is released"),
    "release": _posted("release", "Deliver what was held back"),
    "retry": _posted("retry", "Try it again now"),
    "delete": _described("delete", "Give a dead letter up, or forget what is finished",
                         "curl -X DELETE http://127.0.0.1:8420/v1/tasks/$ID"),
}


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
        posted = {verb: self._operation(verb) for verb in ACTIONS if verb != "delete"}
        return [Route(f"{task_query.ADDRESS}/{{task_id}}/{verb}", Endpoint({"POST": act}, audit=audit))
                for verb, act in posted.items()]

    @property
    def delete(self) -> Operation:
        """What DELETE does with a task."""
        return self._operation("delete")

    def _operation(self, verb: str) -> Operation:
        return DESCRIPTIONS[verb].by(partial(self._act, ACTIONS[verb]))

    async def _act(self, action: TaskAction, scope: Scope, receive: Receive) -> Answer:
        """Do something with one task."""
        parameters = read_query(scope["query_string"], names((_FORCE,)))
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
        task, caller = await self._finder.find(scope, action.permission), caller_in(scope)
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
