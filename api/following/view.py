"""What one follower is told: which events he asks for, and which of these he may see; and how they are told. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from api.following.event_id import to_id
from api.queries.sight import Sight
from daemon.access.caller import Caller
from daemon.model.schema import TIME, answer, one_of, or_null, saying, text
from daemon.model.task import State, Task
from daemon.model.text import json_text
from daemon.model.upload import TASK_ID
from daemon.model.view import describe_step
from daemon.task_queue import Event, Happened, Position

#: The milliseconds after which a client comes again when its stream has ended.
RETRY_MS: Final = 2000
#: The name of an event that says that something may be missing before it; all others are about a task.
RESET: Final = "reset"
TASK: Final = "task"
_MISSING: Final = json_text({"detail": "Something may have been missed. Ask for the tasks that you follow."})


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """The events that are asked for. What is empty or None does not matter."""

    task_ids: frozenset[str] = frozenset()
    states: frozenset[State] = frozenset()
    instance_key: str | None = None
    client: str | None = None

    def fits(self, event: Event, task: Task) -> bool:
        """True when the event, which is about that task, is asked for."""
        return ((not self.task_ids or event.task_id in self.task_ids)
                and (not self.states or event.state in self.states)
                and (self.instance_key is None or self.instance_key == task.destination.instance_key)
                and (self.client is None or self.client == task.upload.client))


@dataclass(frozen=True, slots=True)
class View:
    """What a caller asks for, and may see."""

    wanted: EventFilter
    caller: Caller

    def shows(self, event: Event, task: Task) -> bool:
        """True when he is told of the event."""
        return self.wanted.fits(event, task) and Sight(self.caller).sees(task)


@dataclass(slots=True)
class Told:
    """One event about a task that is still known, and its text, made for the first who is told of it."""

    event: Event
    task: Task
    #: What happened up to it.
    positions: tuple[Position, ...]
    _text: str | None = None

    @property
    def text(self) -> str:
        """The event as it stands in a stream."""
        if self._text is None:
            self._text = _block(self.positions, TASK, json_text(describe_event(self.event, self.task)))
        return self._text


#: What `describe_event` makes.
EVENT: Final = answer("TaskEvent", {
    "task_id": text(pattern=TASK_ID),
    "state": one_of([state.label for state in State], "the state that the task came into"),
    "at": saying(TIME, "when it did"),
    "error_code": or_null(text("what was the matter, for programs")),
    "remote": text("the Incus that the task goes to"),
    "project": text("the instance's project"),
    "instance": text("the instance"),
    "path": text("where to in the instance"),
    "client": or_null(text("the identity that sent it")),
})
#: What is in a stream, besides comments and lines that are no events.
STREAMED: Final = answer("StreamedEvent", {
    "id": text("up to where it is told; means something to this service alone"),
    "event": one_of([TASK, RESET], "what happened to a task; or that something may have been missed before this"),
    "data": {"type": "string", "contentMediaType": "application/json",
             "contentSchema": {"anyOf": [EVENT, answer("Reset", {"detail": text("what to do, for people")})]}},
})


def describe_event(event: Event, task: Task) -> dict[str, object]:
    """An event as JSON values. The time is RFC 3339, in UTC."""
    return describe_step(task, event.state, event.at, event.code)


def told_of(happened: Happened, shard: int, positions: Sequence[Position]) -> Iterator[Told]:
    """The events of a shard that follow on these positions, but for those whose tasks are not known any more."""
    before, after = tuple(positions[:shard]), tuple(positions[shard + 1:])
    for event in happened.events:
        task = happened.tasks.get(event.task_id)
        if task is not None:
            yield Told(event, task, (*before, Position(happened.position.epoch, event.seq), *after))


def text_for(view: View, events: Sequence[Told]) -> bytes:
    """What one follower is told of these events."""
    return "".join(told.text for told in events if view.shows(told.event, told.task)).encode()


def reset_text(positions: Sequence[Position]) -> bytes:
    """Something may be missing; what follows comes after these positions."""
    return _block(positions, RESET, _MISSING).encode()


def first_text(positions: Sequence[Position] | None) -> bytes:
    """How a stream begins: with the position, where the client brings none, so that it can go on from there.

    A block without data tells a client no event, but the id of it counts
    (https://html.spec.whatwg.org/multipage/server-sent-events.html#dispatchMessage).
    """
    begins = "" if positions is None else f"id: {to_id(positions)}\n"
    return f"retry: {RETRY_MS}\n{begins}\n".encode()


def heartbeat_text(positions: Sequence[Position]) -> bytes:
    """A comment, with the position: what happened since the last event is no affair of this client."""
    return f": \nid: {to_id(positions)}\n\n".encode()


def _block(positions: Sequence[Position], name: str, data: str) -> str:
    return f"id: {to_id(positions)}\nevent: {name}\ndata: {data}\n\n"
