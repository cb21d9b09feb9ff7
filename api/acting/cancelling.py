"""Cancelling the task of an upload that its client ends."""

from typing import Final

from api.acting.errands import Errands
from daemon.access.caller import Caller
from daemon.access.decide import decide
from daemon.model.grant import Permission
from daemon.model.upload import Destination
from daemon.task_queue import Command

#: How long the worker is waited for. It does what it was asked for later, too.
PATIENCE_S: Final = 5.0


class Canceller:
    """Asks workers to cancel tasks. On the event loop."""

    def __init__(self, errands: Errands, shards: int) -> None:
        self._errands = errands
        self._shards = shards

    async def cancel(self, caller: Caller, to: Destination, task_id: str) -> bool:
        """Cancel the task of `caller` to that destination; False when it does not wait any more, or he may not.

        Where no worker answers in time, it is cancelled once one does, if it waits then. Raises Rejected as `Errands`.
        """
        if decide(caller, Permission.CANCEL, to, sender=caller.client) is not None:
            return False
        command = Command(verb="cancel", task_id=task_id, asked_by=caller.name)
        report = await self._errands.report(await self._errands.ask(to.shard(self._shards), [command]), PATIENCE_S)
        return not report.complete or all(answer.changed for answer in report.answers.values())
