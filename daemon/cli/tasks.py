"""`incus-courier tasks`: look at tasks, and ask the workers to do something with them.

Exit codes: EXIT_OK when all was done (or asked for, where no worker runs), EXIT_FAILED when something was refused.
"""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

from daemon.cli.all_shards import AllShards, look_up, open_all
from daemon.cli.filters import Chosen, check_id, must_mean_some
from daemon.cli.save import save as save_bytes
from daemon.cli.tables import show_table
from daemon.cli.task_commands import Reply, ask
from daemon.config import Config
from daemon.config.naming import instance_name
from daemon.errors import ERRORS
from daemon.model.names import printable
from daemon.model.task import Task
from daemon.model.upload import first_id_of
from daemon.model.view import describe, describe_whole
from daemon.model.words import age
from daemon.process.exit_status import EXIT_FAILED, EXIT_OK, Misused
from daemon.process.output import say, say_json, warn
from daemon.spool import open_spool
from daemon.state.layout import Layout
from daemon.task_queue import Command

_COLUMNS: Final = ("id", "state", "instance", "path", "bytes", "age", "tries", "error")


def list_tasks(config: Config, chosen: Chosen, *, limit: int, after: str | None, as_json: bool) -> int:
    """Print tasks, newest first; where there are more, say on stderr how to see the next page."""
    if after is not None and check_id(after):
        raise Misused(f"--after {printable(after)}: {check_id(after)}")
    before = [after] if after else []
    if chosen.older_than_s is not None:
        before.append(first_id_of(time.time() - chosen.older_than_s))
    with open_all(config) as shards:
        tasks = shards.page(states=chosen.states, instance_key=chosen.instance_key, client=chosen.client,
                            before=min(before, default=None), limit=limit + 1)
        page = tasks[:limit]
        if as_json:
            _print_json(describe(task) for task in page)
        elif page:
            show_table(_COLUMNS, [_row(task, config) for task in page])
        if len(tasks) > limit:
            warn(f"There are more: add --after {page[-1].task_id}")
        return _code(_tell_faults(shards))


def show(config: Config, ids: Sequence[str], *, as_json: bool) -> int:
    """Print all that is known of tasks."""
    complete = True
    with open_all(config) as shards:
        for task_id in ids:
            task = _look_up(shards, task_id)
            if isinstance(task, str):
                warn(f"{task_id}: {task}")
                complete = False
            elif as_json:
                _print_json([describe_whole(task)])
            else:
                _print_task(task)
        return _code(complete and _tell_faults(shards))


def change(config: Config, chosen: Chosen, command: Command, *, wait: bool, as_json: bool) -> int:
    """Ask for something and print what became of it."""
    must_mean_some(chosen)
    replies = ask(config, chosen, command, wait=wait)
    if as_json:
        _print_json(reply.as_json() for reply in replies)
    else:
        for reply in replies:
            say(_sentence(reply, command))
    return _code(all(reply.outcome != "refused" for reply in replies))


def save(config: Config, task_id: str, sink: int) -> int:
    """Write a task's bytes to the descriptor `sink`. Raises Undelivered, and Misused for a terminal."""
    if os.isatty(sink):
        raise Misused(f"The bytes would go to the terminal: name a file, as in: tasks save {printable(task_id)} >FILE")
    with open_all(config) as shards:
        task = _look_up(shards, task_id)
    if isinstance(task, str):
        warn(f"{task_id}: {task}")
        return EXIT_FAILED
    with closing(open_spool(Layout(config.state.path))) as spool:
        save_bytes(spool, task.upload, sink)
    return EXIT_OK


def _look_up(shards: AllShards, task_id: str) -> Task | str:
    found = look_up(shards, task_id)
    return found if isinstance(found, str) else found[1]


def _row(task: Task, config: Config) -> list[object]:
    return [task.task_id, task.state.label, instance_name(task.destination, config), task.destination.path,
            task.upload.size, age(time.time() - task.upload.created_at), task.attempts, task.error_code or ""]


def _print_task(task: Task) -> None:
    described = describe_whole(task)
    history, receipt = described.pop("history"), described.pop("receipt")
    for key, value in described.items():
        if isinstance(value, dict):
            say(f"{key:16} {value['code']}: {value['message'] or ''}")
            hint = ERRORS[value["code"]].hint if value["code"] in ERRORS else ""
            if hint:
                say(f"{'':16} {hint}")
        elif value not in {None, ""}:
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


def _sentence(reply: Reply, command: Command) -> str:
    who = printable(reply.task_id) if reply.task_id else f"shard {reply.shard}"
    if reply.outcome == "asked":
        so_far = f"; {reply.changed} tasks so far" if reply.changed else ""
        return f"{who}: asked; {reply.reason}{so_far}"
    if reply.outcome == "refused" and (reply.task_id or not reply.refused):
        return f"{who}: refused: {reply.reason}"
    if reply.task_id is None:
        refused = f", {reply.refused} refused: {reply.reason}" if reply.refused else ""
        return f"{who}: {command.verb} changed {reply.changed} tasks{refused}"
    return f"{who}: {_state_after(reply, command)}"


def _state_after(reply: Reply, command: Command) -> str:
    if reply.state is None:
        return "deleted"
    if reply.state.label == "pushing" and command.verb in {"cancel", "hold"}:
        return "it is being pushed just now; it takes effect when the push ends, unless the file is in place then"
    return reply.state.label


def _print_json(values: Iterable[dict[str, Any]]) -> None:
    for value in values:
        say_json(value)


def _tell_faults(shards: AllShards) -> bool:
    for sentence in shards.unread():
        warn(sentence)
    return not shards.faults


def _code(well: bool) -> int:
    return EXIT_OK if well else EXIT_FAILED
