"""Events as text: whatever is in them, each is one event to whoever reads the stream."""

import json

import pytest

from api.following.event_id import from_id, to_id
from api.following.view import EventFilter, View, first_text, heartbeat_text, reset_text, text_for, told_of
from daemon.access.caller import anonymous
from daemon.model.task import State, Task
from daemon.task_queue import Event, Happened, Position
from tests.support.depot import an_upload
from tests.support.event_stream import Parser

START = (Position("0" * 12, 5), Position("f" * 12, 7))


@pytest.mark.parametrize("name", ["x", "é ü 한글 \U0001f600", "a: b", "id: 7", "\u2028\u2029\x85", "\u202e", '"\\', "data: x"])
def test_event_is_one_event_whatever_its_task_is_called(name: str) -> None:
    """Its id leads behind it, in its own shard alone."""
    upload = an_upload(f"/{name}", client=f"user:{name}")
    task = Task(order=1, upload=upload, state=State.DELIVERED, updated_at=1.0)
    event = Event(seq=9, task_id=upload.task_id, state=State.FAILED, at=1e9, code=name)
    happened = Happened((event, event), Position("f" * 12, 11), lost=False, tasks={upload.task_id: task})
    found = list(told_of(happened, 1, START))
    parser = Parser()
    first, second = parser.feed(text_for(View(EventFilter(), anonymous(None)), found))
    assert first == second
    assert json.loads(first.data) == {
        "task_id": upload.task_id, "state": "failed", "at": "2001-09-09T01:46:40.000Z", "error_code": name, "remote": "local",
        "project": "default", "instance": "c1", "path": f"/{name}", "client": f"user:{name}"}
    assert (first.name, from_id(first.last_id, 2)) == ("task", (START[0], Position("f" * 12, 9)))


def test_position_is_told_without_an_event() -> None:
    """At first, and with each heartbeat; with a reset it comes as an event."""
    for text, last_id in ((first_text(START), to_id(START)), (first_text(None), ""), (heartbeat_text(START), to_id(START))):
        parser = Parser()
        assert parser.feed(text) == []
        assert parser.last_id == last_id
    [reset] = Parser().feed(reset_text(START))
    assert (reset.name, reset.last_id) == ("reset", to_id(START))
