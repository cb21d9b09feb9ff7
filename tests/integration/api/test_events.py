"""Following tasks at a real API process."""

import socket
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from daemon.model.grant import Grant
from daemon.state.layout import Layout
from daemon.task_queue.sqlite.queue import SqliteQueue
from tests.integration.api.running import Api, wait_until
from tests.support.depot import an_upload, sealed
from tests.support.event_stream import Following, following
from tests.support.service import Service
from tests.support.tokens import change_token, make_token, revoke_token
from tests.support.waiting import eventually

Start = Callable[..., Api]

STATES = ["queued", "pushing", "delivered"]


def address_of(api: Api) -> str:
    """Where it listens."""
    return f"127.0.0.1:{api.port}"


def test_stream_begins_at_once_and_goes_on_from_whatever_id_it_is_shown(shared: Api) -> None:
    """What is no id of ours is no error: a browser would never come again. The header counts before the address."""
    with following(address_of(shared)) as first:
        assert {name: first.response.headers[name] for name in ("content-type", "cache-control", "x-accel-buffering")} == {
            "content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no"}
        start = first.begins()
        put = [shared.put(f"root/{number}").task_id for number in range(2)]
        assert [task_id for task_id, _ in first.tasks(2)] == put
        now = first.parser.last_id
    for query, headers in (
        ("", {"Last-Event-ID": "garbage"}), ("", {"Last-Event-ID": "x" * 9000}), ("", {"Last-Event-ID": "\xff" * 9}),
        ("", {"Last-Event-ID": "_" * 76}), ("", {"Last-Event-ID": start[:-1]}), (f"last_event_id={start}&task={put[0]}", {"Last-Event-ID": "-"}),
        ("last_event_id=%00%0a", {}), (f"last_event_id={start}{start}", {}),
    ):
        with following(address_of(shared), query, headers) as lost:
            assert (lost.next().name, lost.parser.last_id) == ("reset", now)
    for query, headers in ((f"last_event_id={start}", {"Last-Event-ID": ""}), ("last_event_id=-", {"Last-Event-ID": start})):
        with following(address_of(shared), query, headers) as resumed:
            assert [task_id for task_id, _ in resumed.tasks(2)] == put
    head = shared.ask("HEAD", "/v1/events")
    assert (head.status, head.headers["content-type"], head.body) == (200, "text/event-stream", b"")
    assert shared.ask("POST", "/v1/events", b"").headers["allow"] == "GET, HEAD"
    many = ",".join(put[:1] * 101)
    for query in ("state=lost", "task=x", "task=", f"task={many}", "project=p", "limit=1", "client=", "state=queued&state=queued", "instance=far:c1", "path=/x", "since=2030-01-31T12:00:00Z"):
        assert shared.ask("GET", f"/v1/events?{query}").code in {"bad_query", "unknown_remote"}, query


def come(stack: ExitStack, api: Api) -> Following | None:
    """Follow, if there is a place."""
    try:
        return stack.enter_context(following(address_of(api)))
    except AssertionError:
        return None


def test_streams_are_bounded_and_those_of_clients_that_are_gone_are_no_more(start: Start) -> None:
    """Who comes too many is told to come again; whoever leaves, in order or not, makes room at once, and so does who reads nothing."""
    api = start(api={"max_connections": 6, "body_timeout_s": 2.0})
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(following(address_of(api))).begins()
        reply = api.ask("GET", "/v1/events")
        assert (reply.status, reply.code) == (503, "too_busy")
    for _ in range(10):
        with api.raw() as raw:
            raw.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wait_until(lambda: raw.recv(4096), "the beginning")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_until(lambda: api.ask("HEAD", "/v1/events").status == 200, "a place")
    with api.raw() as raw, following(address_of(api)) as reading:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: raw.recv(4096), "the beginning")
        reading.begins()
        uploads = [an_upload(f"{('/' + 'x' * 200) * 15}/{number}") for number in range(2000)]
        with SqliteQueue(Layout(api.state), uploads[0].destination.shard(2)) as queue:
            queue.put_many(sealed(*uploads), supersede=False)
        assert [task_id for task_id, _ in reading.tasks(len(uploads))] == [upload.task_id for upload in uploads]
        assert api.logged("answer.unread")[0]["waiting_bytes"] < 4 * 2**20
    with ExitStack() as stack:
        streams = [wait_until(lambda: come(stack, api), "a place") for _ in range(3)]
        starts = [stream.begins() for stream in streams]
        put = api.put("root/x").task_id
        assert [stream.next().task for stream in streams] == [(put, "queued")] * 3
        api.send(15)
        assert [stream.until_end() for stream in streams] == [[]] * 3
        assert len({*starts}) == 1
    assert api.end() == 0


def test_stream_tells_what_its_token_may_see_and_ends_with_it(start: Start) -> None:
    """A changed right counts from then on; a revoked token ends its stream, and is refused afterwards."""
    api = start()
    token = make_token(api.file, "web", may=["read"], instances=["web-*"])
    admin: dict[str, Any] = {"Authorization": f"Bearer {make_token(api.file, 'admin', may=['read', 'upload'])}"}
    shown: dict[str, Any] = {"Authorization": f"Bearer {token}"}
    wait_until(lambda: api.ask("GET", "/v1/tasks", **admin).status == 200, "the tokens to be in force")

    def put(instance: str) -> str:
        return api.ask("PUT", f"/v1/instances/{instance}/files/x", b"x", **admin).task_id

    assert api.ask("GET", "/v1/events").status == 401
    with following(address_of(api), headers=shown) as stream, following(address_of(api), headers=admin) as everything:
        stream.begins()
        everything.begins()
        sent = [put("db-1"), put("web-1")]
        assert stream.next().task == (sent[1], "queued")
        change_token(api.file, "web", grant=Grant.read({"may": ["read"], "instances": ["db-*"]}))
        api.logged("tokens.reloaded", 2)
        wait_until(lambda: api.ask("GET", "/v1/tasks?instance=web-1", **shown).json()["tasks"] == [], "the change")
        sent += [put("web-2"), put("db-2")]
        assert [task_id for task_id, _ in everything.tasks(4)] == sent
        while stream.next().task[0] != sent[3]:
            # It was seen to begin with, and came before the change.
            assert stream.parser.last_id
        revoke_token(api.file, "web")
        stream.until_end()
    assert api.ask("GET", "/v1/events", **shown).status == 401


def test_every_process_tells_everything_once_and_ids_outlive_them_all(tmp_path: Path) -> None:
    """Each task's events come in order; after `kill -9` of all a follower goes on where it was."""
    with Service(tmp_path, {"queue": {"shards": 2}, "api": {"processes": 2}}) as service:
        service.start()

        def upload(number: int) -> list[str]:
            answers = [service.client.put(f"c{index}", "/x", b"x") for index in range(number)]
            return [answer.task_id for answer in answers if answer is not None]

        with ExitStack() as stack:
            streams = [stack.enter_context(following(service.address)) for _ in range(4)]
            start = {stream.begins() for stream in streams}
            assert len(start) == 1
            tasks = upload(4)
            for stream in streams:
                heard = stream.tasks(12)
                assert {task_id: [state for other, state in heard if other == task_id] for task_id in tasks} == dict.fromkeys(tasks, STATES)
            middle = streams[0].parser.last_id
        service.kill()
        # What the supervisor has started ends by itself.
        eventually(lambda: service.client.get("/healthz") is None)
        service.settings["api"]["processes"] = 1
        service.write_config()
        service.start()
        with following(service.address, headers={"Last-Event-ID": start.pop()}) as first, following(
                service.address, headers={"Last-Event-ID": middle}) as second:
            assert sorted(first.tasks(12)) == sorted((task_id, state) for task_id in tasks for state in STATES)
            more = upload(2)
            for stream in (first, second):
                assert sorted(stream.tasks(6)) == sorted((task_id, state) for task_id in more for state in STATES)
            service.stop("api")
            assert first.until_end() == second.until_end() == []
        assert service.mistakes() == []


def test_two_hundred_clients_come_and_go_and_nothing_is_left_of_them(start: Start) -> None:
    """Neither descriptors nor tasks of the event loop nor places: the last of them are told like the first."""
    api = start(api={"max_connections": 64})
    before = 0
    for turn in range(11):
        with ExitStack() as stack:
            for _ in range(20):
                wait_until(partial(come, stack, api), "a place").begins()
            api.put("root/x")
        if turn == 0:
            wait_until(lambda: api.ask("HEAD", "/v1/events").status == 200, "what is kept open to be open")
            before = api.descriptors()
    wait_until(lambda: api.descriptors() <= before, "the connections to close")
    with following(address_of(api)) as last:
        last.begins()
        put = api.put("root/y").task_id
        while last.next().task != (put, "queued"):
            # What was put just before may not have been told where it begins.
            pass
