"""From what happened to what webhooks are told: which event makes a message for whom, and what stands in it."""

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from daemon.log import log
from daemon.model.glob import name_matches
from daemon.model.task import Task
from daemon.model.view import describe, when
from daemon.task_queue import Event, Notice, Outbox

#: The type of a message that somebody asked for, to see whether it arrives.
TEST_TYPE: Final = "webhook.test"
#: A longer body is cut to what tells which task it is about, in characters.
LONGEST_BODY: Final = 32 * 1024
#: Events that are turned into messages in one transaction.
AT_ONCE: Final = 500
#: Characters that are told of an error.
_MESSAGE_LENGTH: Final = 2000
_EVERYTHING: Final = ("*",)


class Hook(Protocol):
    """What is to be known of a webhook: `daemon.config.Webhook` has it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def events(self) -> Sequence[str]:
        """The states, by their labels, that it is told of."""

    @property
    def instances(self) -> Sequence[str]:
        """Globs of the instances whose tasks it is told of."""


def wants(hook: Hook, event: Event, instance: str | None) -> bool:
    """True when the webhook is told of that event; the instance is None where nobody knows it any more."""
    if event.state.label not in hook.events:
        return False
    return tuple(hook.instances) == _EVERYTHING or (
        instance is not None and any(name_matches(glob, instance) for glob in hook.instances))


def describe_event(event: Event, task: Task | None) -> dict[str, Any]:
    """A task as it was at an event, as JSON values; of one that is not known any more what the event says."""
    error = {"code": event.code, "message": None} if event.code else None
    told: dict[str, Any] = {"task_id": event.task_id, "state": event.state.label, "error": error}
    if task is None:
        return told
    known = describe(task)
    if task.error_code == event.code and known["error"] is not None:
        told["error"] = {**known["error"], "message": (task.error_message or "")[:_MESSAGE_LENGTH] or None}
    if task.state is not event.state:
        # It has moved on since: what is told is how it was.
        known["next_attempt_at"] = None
    return {**known, **told, "updated_at": when(event.at)}


def body_of(kind: str, at: float, data: Mapping[str, Any]) -> str:
    """What is sent: type, time and data, as JSON in ASCII."""
    return json.dumps({"type": kind, "timestamp": when(at), "data": data}, separators=(",", ":"))


def new_message_id(at: float) -> str:
    """An id that stays with a message. Later ones are greater, to the millisecond."""
    return f"msg_{int(at * 1000):012x}{secrets.token_hex(10)}"


def first_message_id(at: float) -> str:
    """The least id that a message made at that time can have."""
    return f"msg_{int(max(at, 0.0) * 1000):012x}"


def notices_of(
    events: Sequence[Event], tasks: Mapping[str, Task], hooks: Sequence[Hook], now: float,
) -> Iterator[Notice]:
    """The messages that these events make, in their order."""
    for event in events:
        task = tasks.get(event.task_id)
        kind = f"task.{event.state.label}"
        told = [hook for hook in hooks if wants(hook, event, task.destination.instance if task else None)]
        if not told:
            continue
        data = describe_event(event, task)
        body = body_of(kind, event.at, data)
        if len(body) > LONGEST_BODY:
            body = body_of(kind, event.at, describe_event(event, None))
        for hook in told:
            yield Notice(message_id=new_message_id(now), webhook=hook.name, type=kind, task_id=event.task_id, body=body,
                         created_at=now, due_at=now, updated_at=now)


def a_test(hook: str, now: float) -> Notice:
    """A message by which a person sees whether a webhook works."""
    return Notice(message_id=new_message_id(now), webhook=hook, type=TEST_TYPE, task_id=None,
                  body=body_of(TEST_TYPE, now, {"webhook": hook}), created_at=now, due_at=now, updated_at=now)


def tell_all(queue: Outbox, hooks: Sequence[Hook]) -> None:
    """Put messages for all events that webhooks were not told. Raises QueueFault."""
    while tell_more(queue, hooks, time.time()):
        pass


def tell_more(queue: Outbox, hooks: Sequence[Hook], now: float) -> bool:
    """Put messages for the next events that webhooks were not told; True when there may be more. Raises QueueFault."""
    happened = queue.untold(AT_ONCE)
    if happened is None:
        return False
    if happened.lost:
        log("webhook.events_lost")
    states = frozenset(label for hook in hooks for label in hook.events)
    wanted = [event for event in happened.events if event.state.label in states]
    task_ids = sorted({event.task_id for event in wanted})
    tasks = {task.task_id: task for task in queue.find_all(task_ids)} if task_ids else {}
    notices = list(notices_of(wanted, tasks, hooks, now))
    if happened.lost or happened.events:
        queue.tell(notices, happened.position)
    return len(happened.events) == AT_ONCE
