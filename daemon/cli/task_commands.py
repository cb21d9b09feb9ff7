"""Asking the workers to do something with tasks, and telling what became of it.

What is asked is on the disk before anything is said. A worker that runs does it within moments and this waits a
little for its answer; without one it is done when the worker runs again.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from daemon.cli.all_shards import AllShards, look_up
from daemon.cli.filters import read_instance
from daemon.config import Config
from daemon.errors import CannotStart
from daemon.model.action_id import new_action_id
from daemon.model.seat import TaskFilter, TaskReply
from daemon.state import shard_count
from daemon.state.append_lease import AppendLease
from daemon.state.doorbell import ring
from daemon.state.layout import Layout
from daemon.state.shard_lock import holder
from daemon.task_queue import Command, CommandAnswer, Selection

#: How long to wait for the answers of workers that run.
PATIENCE_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.05


def ask(config: Config, shards: AllShards, wanted: TaskFilter, command: Command, *, wait: bool) -> list[TaskReply]:
    """Ask for it and return what became of it. Raises CannotStart and QueueFault."""
    with lease(config):
        if wanted.task_ids:
            return _ask_by_id(config, shards, wanted.task_ids, command, wait=wait)
        return _ask_by_kind(config, shards, wanted, command, wait=wait)


@contextmanager
def lease(config: Config) -> Iterator[None]:
    """Keep the number of shards from being changed meanwhile."""
    layout = Layout(config.state.path)
    found = shard_count.read(layout)
    lease = AppendLease(layout, found.in_force if found else config.queue.shards)
    waiting = lease.acquire()
    if waiting is not None:
        raise CannotStart("queue_moving", waiting)
    try:
        yield
    finally:
        lease.release()


def _ask_by_id(
    config: Config, shards: AllShards, ids: Sequence[str], command: Command, *, wait: bool,
) -> list[TaskReply]:
    replies: dict[str, TaskReply] = {}
    found: dict[int, list[str]] = {}
    for task_id in ids:
        shard = _shard_of(shards, task_id)
        if isinstance(shard, str):
            replies[task_id] = TaskReply(task_id=task_id, outcome="refused", reason=shard)
        else:
            found.setdefault(shard, []).append(task_id)
    asked = {shard: shards.queues[shard].ask([
        replace(command, task_id=task_id) for task_id in some])
        for shard, some in found.items()}
    answers = _answers(config, shards, asked, wait=wait)
    for shard, some in found.items():
        for task_id, number in zip(some, asked[shard], strict=True):
            reply = _reply(config, shard, answers[shard].get(number))
            replies[task_id] = _with_task(shards, reply, task_id)
    return [replies[task_id] for task_id in ids]


def _shard_of(shards: AllShards, task_id: str) -> int | str:
    """The shard of a task, or why it cannot be asked for."""
    found = look_up(shards, task_id, missing="; ".join(["there is no such task", *shards.unread()]))
    return found if isinstance(found, str) else found[0]


def _with_task(shards: AllShards, reply: TaskReply, task_id: str) -> TaskReply:
    found = shards.find(task_id) if reply.outcome == "done" else None
    return replace(reply, task_id=task_id, state=found[1].state.label if found else None)


def _ask_by_kind(
    config: Config, shards: AllShards, wanted: TaskFilter, command: Command, *, wait: bool,
) -> list[TaskReply]:
    to = None if wanted.instance is None else read_instance(wanted.instance, config)
    home = None if to is None else to.shard(shards.number)
    refused = [TaskReply(shard=shard, outcome="refused", reason=fault.detail) for shard, fault in shards.faults.items()
               if home in {None, shard}]
    asked = {}
    # One action, whatever the number of shards.
    command = replace(command, action_id=new_action_id(time.time()))
    for shard, queue in shards.queues.items():
        if home not in {None, shard}:
            continue
        selection = Selection(
            instance_key=None if to is None else to.instance_key, client=wanted.client,
            states=tuple(sorted(wanted.states)), accepted_before=wanted.until, up_to_order=queue.newest_order())
        asked[shard] = queue.ask(
            [replace(command, selection=selection)])
    answers = _answers(config, shards, asked, wait=wait)
    return [*refused, *(_reply(config, shard, answers[shard].get(numbers[0])) for shard, numbers in asked.items())]


def _reply(config: Config, shard: int, answer: CommandAnswer | None) -> TaskReply:
    if answer is None or not answer.done:
        working = holder(Layout(config.state.path), shard) is not None
        reason = "the worker is at it" if working else "no worker runs; it is done when one does"
        return TaskReply(shard=shard, outcome="asked", reason=reason, changed=answer.changed if answer else 0)
    outcome = "refused" if answer.refused else "done"
    return TaskReply(shard=shard, outcome=outcome, changed=answer.changed, refused=answer.refused, reason=answer.reason)


def _answers(
    config: Config, shards: AllShards, asked: dict[int, list[int]], *, wait: bool,
) -> dict[int, dict[int, CommandAnswer]]:
    """Ring the bells, and collect the answers of the shards that have a worker, by shard and number."""
    layout = Layout(config.state.path)
    for shard in asked:
        ring(layout, shard)
    answers: dict[int, dict[int, CommandAnswer]] = {shard: {} for shard in asked}
    waiting = {shard: set(numbers) for shard, numbers in asked.items() if wait and holder(layout, shard) is not None}
    deadline = time.monotonic() + PATIENCE_S
    while waiting:
        for shard, numbers in waiting.items():
            found = shards.queues[shard].answers(sorted(numbers))
            answers[shard] |= found
            numbers.difference_update(number for number, answer in found.items() if answer.done)
        waiting = {shard: numbers for shard, numbers in waiting.items() if numbers}
        if time.monotonic() >= deadline:
            break
        if waiting:
            time.sleep(_LOOK_EVERY_S)
    return answers
