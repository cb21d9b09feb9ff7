"""`incus-courier explain`: why a task, or what waits for an instance, is not delivered yet.

Exit codes: EXIT_OK when nothing is stuck, EXIT_FAILED when something is, or there is no such task.
"""

import time

from daemon.cli.typed import check_named
from daemon.model.explained import explanation_lines
from daemon.model.names import printable
from daemon.model.seat import Seat
from daemon.model.upload import is_task_id
from daemon.process.exit_status import EXIT_FAILED, EXIT_OK, Misused
from daemon.process.output import say, say_json, warn


def explain(seat: Seat, what: str, *, as_json: bool) -> int:
    """Print the explanation. Raises Misused for what is neither a task's id nor an instance."""
    told = seat.explain(what, None) if is_task_id(what) else seat.explain(None, _instance(what))
    if told is None:
        warn(f"{what}: there is no such task" if is_task_id(what) else f"{what}: there is no such instance")
        return EXIT_FAILED
    if as_json:
        say_json(told)
    else:
        for line in explanation_lines(told, time.time()):
            say(line)
    return EXIT_FAILED if told["stuck"] else EXIT_OK


def _instance(what: str) -> str:
    try:
        return check_named(what)
    except Misused:
        raise Misused(f"{printable(what)}: give the id of a task, or an instance: [remote:][project/]instance"
                      ) from None
