"""The task that an address names, for somebody who wants to do something with it."""

from typing import Final

from api.acting.actions import Verdict, judge
from api.http.description import Parameter, Where
from api.http.refusal_log import RefusalLog
from api.http.response import Scope
from api.queries.finder import Finder
from api.routes.endpoint import caller_in
from api.routes.entrance import tell_refused
from daemon.errors import Rejected
from daemon.model.grant import Permission
from daemon.model.names import printable
from daemon.model.schema import text
from daemon.model.task import Task
from daemon.model.upload import TASK_ID, is_task_id

#: In the addresses of a task and of what is done with it.
TASK_IN_ADDRESS: Final = Parameter(name="task_id", meaning="the task's id", schema=text(pattern=TASK_ID),
                                   place=Where.PATH, required=True, refuses=("task_not_found",))
#: Codes with which `TaskFinder.find` refuses, besides.
FINDING_REFUSALS: Final = (
    "action_not_allowed", "address_not_allowed", "remote_not_allowed", "project_not_allowed", "instance_not_allowed",
    "path_not_allowed", "task_not_allowed", "queue_unreadable", "no_room")


class TaskFinder:
    """Finds tasks. To be used on the event loop."""

    def __init__(self, finder: Finder, refusals: RefusalLog) -> None:
        self._finder = finder
        self._refusals = refusals

    async def find(self, scope: Scope, permission: Permission) -> Task:
        """The task of the request's address, with which its caller may do what `permission` is for.

        Raises Rejected: 'task_not_found' also for one that he may not know of; for others the reason why he may not.
        """
        task_id, caller = scope["path_params"]["task_id"], caller_in(scope)
        if not is_task_id(task_id):
            raise Rejected("task_not_found", f"{printable(task_id)!r} is not the id of a task.")
        refused: list[Verdict] = []

        def may(task: Task) -> bool:
            verdict = judge(caller, permission, task)
            refused.extend([verdict] if verdict.code else ())
            return verdict.code is None

        task = await self._finder.find(task_id, may)
        if task is not None:
            return task
        for verdict in refused:
            if verdict.sees:
                raise Rejected(verdict.code or "task_not_allowed")
            tell_refused(self._refusals, scope, verdict.code or "task_not_allowed", caller, task_id=task_id)
        raise Rejected("task_not_found")

    async def look(self, task_id: str) -> Task | None:
        """That task as it is now, whoever may see it; None when it is gone. Raises Rejected."""
        return await self._finder.find(task_id, lambda _: True)
