"""Marking spooled files, for a rebuild of the queue that may never come: nothing waits for it, nothing fails for it."""

from daemon.log import log
from daemon.model.task import Task
from daemon.spool import Mark, SetMark


def mark(spool: SetMark, task: Task, mark: Mark) -> None:
    """Have the name of a task's file say how the task stands. The row says it too, so a failure is only logged."""
    try:
        spool.mark(task.upload, mark)
    except OSError as error:
        log("worker.waiting", task_id=task.task_id, reason=f"a spooled file could not be marked: {error.strerror}")
