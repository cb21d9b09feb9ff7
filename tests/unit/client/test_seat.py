"""A service by HTTP that answers what it likes."""

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from client.http import Address, HttpClient, NoAnswer, Response
from client.seat import HttpSeat, blocks, fits
from daemon.cli.explain import explain
from daemon.cli.tasks import show
from daemon.explain import Explanation
from daemon.model.seat import TaskFilter, TaskReply
from daemon.model.task import State
from daemon.process.exit_status import Misused, Unable
from tests.support.depot import new_id

AT = "2030-01-31T12:00:00.000Z"
ID = new_id()
TASK = {"id": ID, "state": "queued", "remote": "local", "project": "default", "instance": "c1", "path": "/a", "size": 1,
        "attempts": 0, "created_at": AT, "updated_at": AT, "error": None, "history": [], "receipt": None}

NONE: Mapping[str, str] = {}


class Answers(HttpClient):
    """Gives these answers, one after the other."""

    def __init__(self, *answers: Response | NoAnswer, streams: tuple[list[bytes] | Response | tuple[Response, list[bytes]], ...] = ()) -> None:
        super().__init__(Address("service"))
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self._answers, self._streams = iter(answers), iter(streams)

    def request(self, method: str, path: str, *, headers: Mapping[str, str] = NONE, **_: Any) -> Response:
        """The next answer."""
        self.asked.append((path, headers))
        answer = next(self._answers)
        if isinstance(answer, NoAnswer):
            raise answer
        return answer

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str] = NONE, **_: Any) -> Iterator[tuple[Response, Iterator[bytes]]]:
        """The next stream."""
        self.asked.append((path, headers))
        yield self._next()

    @contextmanager
    def download(self, path: str) -> Iterator[tuple[Response, Iterator[bytes]]]:
        """The next stream, too."""
        yield self._next()

    def _next(self) -> tuple[Response, Iterator[bytes]]:
        found = next(self._streams)
        if isinstance(found, Response):
            return found, iter(())
        head, parts = found if isinstance(found, tuple) else (Response(200, {"content-type": "text/event-stream"}, b""), found)
        return head, iter(parts)


def answer(value: object, status: int = 200) -> Response:
    """An answer of JSON."""
    return Response(status, {"content-type": "application/problem+json"}, json.dumps(value).encode())


def test_search_asks_with_all_that_is_wanted_and_goes_on_only_downwards() -> None:
    """What a page leads to is used only where it leads on: no service keeps a command going round."""
    older, newer = sorted((new_id(), new_id()))
    page = {"tasks": [TASK], "next": f"/v1/tasks?after={older}"}
    client = Answers(answer(page), answer({**page, "next": f"/v1/tasks?after={newer}"}), answer({**page, "next": "x?after=1"}))
    seat = HttpSeat(client)
    wanted = TaskFilter(instance="eu:shop/c1", client="a b", states=frozenset({State.FAILED}), path="/a*", error="gave_up",
                        since=0.0, until=1.0)
    assert seat.search(wanted, None, 5000).after == older
    assert client.asked[0][0] == (
        "/v1/tasks?instance=eu%3Ac1&project=shop&client=a+b&state=failed&limit=1000&path=%2Fa%2A&error=gave_up"
        "&since=1970-01-01T00%3A00%3A00.000Z&until=1970-01-01T00%3A00%3A01.000Z")
    assert seat.search(TaskFilter(), older, 1).after is None
    assert seat.search(TaskFilter(), None, 1).after is None


@pytest.mark.parametrize("value", [
    None, [], {}, {**TASK, "size": "1"}, {**TASK, "size": True}, {**TASK, "created_at": "now"}, {**TASK, "error": {}},
    {**TASK, "instance": None},
])
def test_what_no_service_answers_is_not_shown(value: object) -> None:
    """Whoever answers at that address, the command ends in words."""
    with pytest.raises(Unable, match="is the address right"):
        HttpSeat(Answers(answer(value))).find(ID)


def test_explanation_of_all_that_is_shown_is_shown_and_one_with_less_is_not() -> None:
    """An older service that does not tell all of it ends the command in words, too."""
    told = Explanation(stuck=True, summary="It waits.").as_json()
    assert explain(HttpSeat(Answers(answer(told))), ID, as_json=False) == 1
    for key in told.keys() - {"waiting"}:
        less = {name: value for name, value in told.items() if name != key}
        with pytest.raises(Unable, match="is the address right"):
            explain(HttpSeat(Answers(answer(less))), ID, as_json=False)


def test_task_with_more_than_is_known_of_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """A newer service may tell more, of whatever kind."""
    assert show(HttpSeat(Answers(answer({**TASK, "labels": {"a": ["b"]}, "more": []}))), [ID], as_json=False) == 0
    assert "labels           {'a': ['b']}" in capsys.readouterr().out


def test_service_that_does_not_wait_is_not_asked_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits besides for what is known, or for one that waited."""
    slept: list[float] = []
    monkeypatch.setattr("client.seat.time.sleep", slept.append)
    waited = Response(200, {"preference-applied": "wait=30"}, json.dumps(TASK).encode())
    seat = HttpSeat(Answers(answer(TASK), waited, answer({**TASK, "state": "failed"}), answer({}, 404), answer(TASK)))
    for _ in range(4):
        seat.find(ID, 60.0)
    assert slept == [1.0]
    seat.find(ID)
    assert slept == [1.0, 0.0]


def test_refusals_are_told_in_the_service_s_words() -> None:
    """With their code; what is not there is None; what passes is asked again while there is time."""
    refused = answer({"code": "action_not_allowed", "detail": "No.", "hint": "Ask."}, 403)
    with pytest.raises(Unable, match=r"service: No\. Ask\. \[action_not_allowed\]"):
        HttpSeat(Answers(refused)).overview()
    assert HttpSeat(Answers(answer({}, 404))).find(ID) is None
    with pytest.raises(Unable, match="does not answer: gone"):
        HttpSeat(Answers(NoAnswer("gone"))).find(ID)
    with pytest.raises(Unable, match="not trusted"):
        HttpSeat(Answers(NoAnswer("not trusted", passes=False))).find(ID, 60)
    done = {**TASK, "state": "delivered"}
    client = Answers(NoAnswer("gone"), answer({}, 503), answer(done))
    assert HttpSeat(client).find(ID, 60) == done
    assert client.asked[0][1] == {"Prefer": "wait=30"}
    page = answer({"tasks": [], "next": None})
    assert HttpSeat(Answers(answer({}, 503), page)).search(TaskFilter(), None, 1, 60).after is None


def test_what_is_asked_of_tasks_is_asked_again_while_it_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused of one says nothing of the others; whoever is not known may nothing at all."""
    monkeypatch.setattr("client.seat.time.sleep", lambda _: None)
    other = new_id()
    refused = answer({"code": "wrong_state", "detail": "It is held."}, 409)
    client = Answers(answer({}, 429), NoAnswer("gone"), answer({**TASK, "state": "queued"}), refused, answer({}, 401))
    replies = iter(HttpSeat(client).act("retry", TaskFilter(task_ids=(ID, "x", other, ID)), force=True, wait=True))
    assert next(replies) == TaskReply(outcome="done", task_id=ID, state="queued")
    assert next(replies).reason == "this is not the id of a task"
    assert next(replies) == TaskReply(outcome="refused", task_id=other, reason="It is held.")
    with pytest.raises(Unable, match="401"):
        next(replies)
    assert {path for path, _ in client.asked} == {f"/v1/tasks/{ID}/retry?force=true", f"/v1/tasks/{other}/retry?force=true"}
    monkeypatch.setattr("client.seat._INSISTS_S", 0.0)
    with pytest.raises(Unable, match="does not answer"):
        list(HttpSeat(Answers(NoAnswer("gone"))).act("delete", TaskFilter(task_ids=(ID,)), force=False, wait=True))


def test_many_tasks_are_those_of_a_preview() -> None:
    """What is kept and not done yet, and what one preview had no room for, is no failure; what was refused is."""
    seen = {"selection": "s", "count": 3, "cut": False, "changed": 0, "refused": 0}

    def act(*answers: Response) -> TaskReply:
        [reply] = HttpSeat(Answers(*answers)).act("flush", TaskFilter(instance="c1", until=1.0), force=False, wait=True)
        return reply

    assert act(answer(seen), answer({**seen, "changed": 3})) == TaskReply(outcome="done", changed=3)
    assert act(answer(seen), answer({**seen, "changed": 1, "detail": "Later."}, 202)) == TaskReply(
        outcome="asked", changed=1, reason="Later.")
    assert act(answer({**seen, "cut": True}), answer({**seen, "changed": 3})).outcome == "asked"
    assert act(answer(seen), answer({**seen, "changed": 2, "refused": 1})).outcome == "refused"
    with pytest.raises(Unable, match="No"):
        act(answer({"detail": "No."}, 403))


def test_saved_bytes_are_checked(tmp_path: Path) -> None:
    """What came short, or is something else, is said to be of no use; where there is nothing, nothing is written."""
    digest = f"sha-256=:{base64.b64encode(hashlib.sha256(b'ab').digest()).decode()}:"
    whole = Response(200, {"content-length": "2", "repr-digest": digest}, b"")
    with (tmp_path / "out").open("wb") as sink:
        def save(head: Response, *pieces: bytes) -> bool:
            return HttpSeat(Answers(streams=((head, [*pieces]),))).save(ID, sink.fileno())

        assert save(whole, b"a", b"b")
        assert not save(answer({}, 404))
        for pieces in ([b"a"], [b"a", b"c"], [b"ab", b"c"], []):
            with pytest.raises(Unable, match="of no use"):
                save(whole, *pieces)
        with pytest.raises(Unable, match="No"):
            save(answer({"detail": "No."}, 403))
        with pytest.raises(Unable, match="is the address right"):
            save(Response(200, {}, b""), b"<html>")
    assert (tmp_path / "out").read_bytes().startswith(b"ab")
    assert b"<html>" not in (tmp_path / "out").read_bytes()


def test_bytes_that_find_no_room_are_no_fault_of_the_service() -> None:
    """What the disk says is told of the task, not of the connection."""
    with (socket.create_server(("127.0.0.1", 0)) as listening, open("/dev/full", "wb", buffering=0) as full,
          HttpClient(Address("service", *listening.getsockname())) as client):
        thread = threading.Thread(target=_answer_once, args=(listening,))
        thread.start()
        with pytest.raises(Unable, match=f"^{ID}: No space left on device; what was written is of no use$"):
            HttpSeat(client).save(ID, full.fileno())
        thread.join()


def _answer_once(listening: socket.socket) -> None:
    with listening.accept()[0] as line:
        line.recv(65536)
        line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRepr-Digest: sha-256=:x:\r\n\r\nab")


def test_stream_goes_on_where_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    """With the last id that it was told, also by what is no event; a reset is told, and a refusal ends it."""
    event = {**TASK, "task_id": ID, "at": AT, "error_code": None}
    told = [b"retry: 2000\n", b"id: 1\n", b"\n", b"event: task\n", b"data: " + json.dumps(event).encode() + b"\n", b"id: 2\n", b"\n"]
    client = Answers(streams=(told, [b"event: reset\r\n", b"data: {}\r\n", b"\r\n"], answer({"detail": "No."}, 401)))
    seen = HttpSeat(client).happenings(TaskFilter(task_ids=(ID,)))
    assert (next(seen), next(seen)) == (event, None)
    with pytest.raises(Unable, match="No"):
        next(seen)
    assert [headers for _, headers in client.asked] == [{}, {"Last-Event-ID": "2"}, {"Last-Event-ID": "2"}]
    assert "trying again" in capsys.readouterr().err
    with pytest.raises(Unable, match="is the address right"):
        next(HttpSeat(Answers(streams=((Response(200, {}, b""), [b"<html>"]),))).happenings(TaskFilter()))
    with pytest.raises(Misused):
        next(HttpSeat(client).happenings(TaskFilter(task_ids=("x",) * 101)))


def test_blocks_are_read_as_the_html_standard_has_them() -> None:
    """Comments and unknown fields are nothing; data of several lines is one; an id with control characters does not count."""
    lines = [b": \n", b"id: 7\n", b"\n", b"id: 8\x00\n", b"data: a\n", b"data: b\n", b"event: task\n", b"x: y\n", b"\n", b"event: task\n", b"\n"]
    assert list(blocks(iter(lines), "")) == [("7", "", ""), ("7", "task", "a\nb"), ("7", "", "")]


@pytest.mark.parametrize(("value", "shape", "does"), [
    ([1], [int], True), ([True], [int], False), (True, bool, True), (1, (str, int), True), ({"a": 1}, {"a": int, "b": str}, False),
    ({"a": 1}, {"a": int, "b": (str, type(None))}, False), (float("nan"), (int, float), False), (10**400, int, False),
    ({"a": 1, "b": 2}, {"a": int}, True), ("x", [str], False),
])
def test_shape_is_what_is_shown(value: object, shape: object, does: bool) -> None:
    """More than that does no harm."""
    assert fits(value, shape) is does
