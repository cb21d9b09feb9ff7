"""`incus-courier explain`: why a task, or what waits for an instance, is not delivered yet.

Exit codes: EXIT_OK when nothing is stuck, EXIT_FAILED when something is, or there is no such task.
"""

import time

from daemon.cli.all_shards import AllShards, DamagedRow, open_all
from daemon.cli.filters import read_instance
from daemon.config import Config
from daemon.config.naming import instance_name
from daemon.errors import QueueFault
from daemon.explain import (
    Explanation,
    explain_instance,
    explain_task,
    oldest_of,
    read_service,
    tasks_ahead,
)
from daemon.model.names import printable
from daemon.model.task import Task
from daemon.model.upload import Destination, is_task_id
from daemon.process.exit_status import EXIT_FAILED, EXIT_OK, Misused
from daemon.process.output import say, say_json, warn
from daemon.state.layout import Layout
from daemon.task_queue import Standing


def explain(config: Config, what: str, *, as_json: bool) -> int:
    """Print the explanation. Raises Misused for what is neither a task's id nor an instance."""
    to = None if is_task_id(what) else _read_instance(what, config)
    with open_all(config) as shards:
        told = _task(config, shards, what) if to is None else _instance(config, shards, to)
    if isinstance(told, str):
        warn(f"{what}: {told}")
        return EXIT_FAILED
    if as_json:
        head = {"id": what} if to is None else {"instance": instance_name(to, config)}
        say_json({**head, **told.as_json()})
    else:
        for line in told.as_text(time.time()):
            say(line)
    return EXIT_FAILED if told.stuck else EXIT_OK


def _read_instance(what: str, config: Config) -> Destination:
    try:
        return read_instance(what, config)
    except Misused as error:
        raise Misused(f"{printable(what)}: give the id of a task, or an instance: [remote:][project/]instance"
                      ) from error


def _task(config: Config, shards: AllShards, task_id: str) -> Explanation | str:
    try:
        found = shards.find(task_id)
        if found is None:
            return "; ".join(["there is no such task", *shards.unread()])
        shard, task = found
        ahead = tasks_ahead(shards.queues[shard], task)
    except DamagedRow as error:
        return str(error)
    except QueueFault as fault:
        return fault.detail
    service = read_service(Layout(config.state.path), shard)
    return explain_task(task, time.time(), service, ahead, name=instance_name(task.destination, config))


def _instance(config: Config, shards: AllShards, to: Destination) -> Explanation:
    shard = to.shard(shards.number)
    standing, oldest = Standing(instance_key=to.instance_key, totals={}, oldest_at=None), list[Task]()
    queue, fault = shards.queues.get(shard), shards.faults.get(shard)
    try:
        if queue is not None:
            [standing] = queue.standings([to.instance_key])
            oldest = oldest_of(queue, standing)
    except QueueFault as met:
        fault = met
    service = read_service(Layout(config.state.path), shard, fault=fault)
    return explain_instance(standing, oldest, time.time(), service, name=instance_name(to, config))
