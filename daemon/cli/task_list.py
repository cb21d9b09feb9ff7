"""`incus-courier tasks list`: the tasks that are meant, newest first.

Exit codes: EXIT_OK, or EXIT_FAILED when a part of the service cannot be read.
"""

import time
from typing import Final

from daemon.cli.tables import show_table
from daemon.model.seat import Seat, TaskFilter, Values
from daemon.model.view import seconds_of
from daemon.model.words import age
from daemon.process.exit_status import EXIT_FAILED, EXIT_OK
from daemon.process.output import say_json, warn

_COLUMNS: Final = ("id", "state", "instance", "path", "bytes", "age", "tries", "error")


def list_tasks(seat: Seat, wanted: TaskFilter, *, limit: int, after: str | None, as_json: bool) -> int:
    """Print tasks; where there are more, say on stderr how to see the next page."""
    found: list[Values] = []
    more = True
    while more and len(found) <= limit:
        some = seat.search(wanted, after, limit + 1 - len(found))
        found += some.tasks
        more, after = some.after is not None, some.after
    page = found[:limit]
    if as_json:
        for task in page:
            say_json(task)
    elif page:
        now = time.time()
        show_table(_COLUMNS, [_row(seat, task, now) for task in page])
    if len(found) > limit:
        warn(f"There are more: add --after {page[-1]['id']}")
    unread = seat.unread()
    for sentence in unread:
        warn(sentence)
    return EXIT_FAILED if unread else EXIT_OK


def _row(seat: Seat, task: Values, now: float) -> list[object]:
    return [task["id"], task["state"], seat.name_of(task), task["path"], task["size"],
            age(now - seconds_of(task["created_at"])), task["attempts"], (task["error"] or {}).get("code", "")]
