"""`incus-courier tasks`: look at tasks, and have something done with them.

Exit codes: EXIT_OK when all was done (or asked for, where no worker runs), EXIT_FAILED when something was refused.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from daemon.cli.typed import check_id
from daemon.errors import ERRORS
from daemon.model.names import printable
from daemon.model.seat import Seat, TaskFilter, TaskReply, Values
from daemon.process.exit_status import EXIT_FAILED, EXIT_OK, Misused, Unable
from daemon.process.output import flush, say, say_json, warn

_MISSING = "there is no such task"


def show(seat: Seat, ids: Sequence[str], *, as_json: bool) -> int:
    """Print all that is known of tasks."""
    complete = True
    for task_id in ids:
        task = _look_up(seat, task_id)
        if isinstance(task, str):
            warn(task)
            complete = False
        elif as_json:
            say_json(task)
        else:
            _print_task(task)
    unread = seat.unread()
    for sentence in unread:
        warn(sentence)
    return _code(complete and not unread)


def change(seat: Seat, verb: str, wanted: TaskFilter, *, force: bool, wait: bool, as_json: bool) -> int:
    """Have something done, and print what became of it, as it is known."""
    well = True
    for reply in seat.act(verb, wanted, force=force, wait=wait):
        well = well and reply.outcome != "refused"
        if as_json:
            say_json(reply.as_json())
        else:
            say(_sentence(reply, verb))
        flush()
    return _code(well)


def save(seat: Seat, task_id: str, sink: int) -> int:
    """Write a task's bytes to the descriptor `sink`. Raises Undelivered, Unable, and Misused for a terminal."""
    if os.isatty(sink):
        raise Misused(f"The bytes would go to the terminal: name a file, as in: tasks save {printable(task_id)} >FILE")
    why = check_id(task_id) or (None if seat.save(task_id, sink) else _MISSING)
    if why is not None:
        warn(f"{task_id}: {why}")
    return _code(why is None)


def _look_up(seat: Seat, task_id: str) -> Values | str:
    """The task, or why it cannot be shown."""
    wrong = check_id(task_id)
    if wrong:
        return f"{task_id}: {wrong}"
    try:
        return seat.find(task_id) or f"{task_id}: {_MISSING}"
    except Unable as error:
        return str(error)


def _print_task(task: Values) -> None:
    described = dict(task)
    history, receipt = described.pop("history"), described.pop("receipt")
    for key, value in described.items():
        if key == "error" and value:
            say(f"{key:16} {value['code']}: {value['message'] or ''}")
            hint = ERRORS[value["code"]].hint if value["code"] in ERRORS else ""
            if hint:
                say(f"{'':16} {hint}")
        elif value is not None and value != "":
            say(f"{key:16} {value}")
    for number, attempt in enumerate(history):
        ended = "done" if attempt["code"] is None else f"{attempt['code']}: {attempt['message'] or ''}"
        say(f"{'' if number else 'history':16} {attempt['at']}  {attempt['duration_s']:.3f} s  {ended}")
    if receipt is not None and receipt["delivered_at"] is not None:
        say(f"{'receipt':16} {_sum_up(receipt)}")
    say()


def _sum_up(receipt: Mapping[str, Any]) -> str:
    known = [f"{key} {receipt[key]}" for key in ("mode", "uid", "gid", "way") if receipt[key] is not None]
    return ", ".join([f"delivered at {receipt['delivered_at']}", *known])


def _sentence(reply: TaskReply, verb: str) -> str:
    who = "service" if reply.shard is None else f"shard {reply.shard}"
    if reply.task_id:
        who = printable(reply.task_id)
    if reply.outcome == "asked":
        so_far = f"; {reply.changed} tasks so far" if reply.changed else ""
        return f"{who}: asked; {reply.reason}{so_far}"
    if reply.outcome == "refused" and (reply.task_id or not reply.refused):
        return f"{who}: refused: {reply.reason}"
    if reply.task_id is None:
        refused = f", {reply.refused} refused: {reply.reason}" if reply.refused else ""
        return f"{who}: {verb} changed {reply.changed} tasks{refused}"
    return f"{who}: {_state_after(reply, verb)}"


def _state_after(reply: TaskReply, verb: str) -> str:
    if reply.state is None:
        return "deleted"
    if reply.state == "pushing" and verb in {"cancel", "hold"}:
        return "it is being pushed just now; it takes effect when the push ends, unless the file is in place then"
    return reply.state


def _code(well: bool) -> int:
    return EXIT_OK if well else EXIT_FAILED
