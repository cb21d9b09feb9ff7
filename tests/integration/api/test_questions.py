"""Questions about tasks and about the service."""

import os
from collections.abc import Callable

import pytest

from daemon.state.layout import Layout
from daemon.state.shard_lock import ShardLock
from daemon.task_queue.sqlite.queue import SqliteQueue
from tests.integration.api.running import Api
from tests.support.depot import an_upload, sealed

Start = Callable[..., Api]


def test_tasks_are_listed_newest_first_over_all_shards(api: Api) -> None:
    """Pages follow each other by their `next` address, without gaps or repeats, whatever shard a task is in."""
    made = [api.ask("PUT", f"/v1/instances/c{n}/files/a", b"x").json()["id"] for n in range(12)]
    assert {len(list((api.state / "queue" / f"shard-{n:02}").iterdir())) > 0 for n in range(2)} == {True}
    listed: list[str] = []
    address = "/v1/tasks?limit=5"
    while address:
        page = api.ask("GET", address).json()
        listed += [task["id"] for task in page["tasks"]]
        address = page["next"]
    assert listed == made[::-1]


def test_tasks_are_listed_by_state_instance_and_client(start: Start) -> None:
    """`state` takes one or more states, `instance` a name with or without its remote, `project` its project; `client` a sender."""
    api = start(**{"remotes.far": {"endpoint": "https://far:8443", "project": "p2"}})
    for target in ("c1/files/a", "c1/files/a", "c2/files/a", "far%3Ac1/files/a", "c1/files/b?project=other"):
        assert api.ask("PUT", f"/v1/instances/{target}", b"x").status == 202

    def listed(query: str) -> list[tuple[str, str, str, str]]:
        reply = api.ask("GET", f"/v1/tasks?{query}")
        assert reply.status == 200, reply.body
        return [(t["remote"], t["project"], t["instance"], t["state"]) for t in reply.json()["tasks"]]

    assert listed("instance=c1") == [("local", "default", "c1", "queued"), ("local", "default", "c1", "superseded")]
    assert listed("instance=far:c1") == [("far", "p2", "c1", "queued")]
    assert listed("instance=c1&project=other") == [("local", "other", "c1", "queued")]
    assert listed("state=superseded") == [("local", "default", "c1", "superseded")]
    assert len(listed("state=queued,superseded")) == 5
    assert listed("state=failed") == []
    sent = an_upload(client="token:ci")
    with SqliteQueue(Layout(api.state), sent.destination.shard(2)) as queue:
        queue.put_many(sealed(sent), supersede=True)
    assert listed("client=token:ci") == [("local", "default", "c1", "queued")]
    assert listed("client=token:ci&instance=c2") == listed("client=token:ci&state=superseded") == []
    assert listed("client=token:other") == []


def test_no_cache_keeps_what_somebody_was_told(shared: Api) -> None:
    """Neither of tasks nor of their absence: a cache does not know that a cookie is a credential."""
    task_id = shared.ask("PUT", "/v1/instances/c1/files/cached", b"x").json()["id"]
    for address in ("/v1/tasks", f"/v1/tasks/{task_id}", f"/v1/tasks/{task_id[:-1]}", "/v1/overview", "/v1/me", "/readyz"):
        assert shared.ask("GET", address).headers["cache-control"] == "no-store", address


@pytest.mark.parametrize("query", [
    "state=lost", "limit=0", "limit=1001", "limit=x", "limit=", "after=x", "order=asc", "project=p", "state=", "limit=١",
])
def test_question_is_refused_when_it_makes_no_sense(shared: Api, query: str) -> None:
    """400 bad_query as a problem."""
    reply = shared.ask("GET", f"/v1/tasks?{query.encode().decode('latin-1') if query.isascii() else 'limit=%D9%A1'}")
    assert (reply.status, reply.code) == (400, "bad_query")


@pytest.mark.parametrize("task_id", ["x", "00000000-0000-7000-8000-000000000000", "..", "%2e%2e"])
def test_unknown_task_is_not_found(shared: Api, task_id: str) -> None:
    """404 with a code of its own."""
    reply = shared.ask("GET", f"/v1/tasks/{task_id}")
    assert (reply.status, reply.code) == (404, "task_not_found")


def test_unknown_address_is_not_found(shared: Api) -> None:
    """404 as a problem."""
    for target in ("/", "/v1", "/v1/instances/c1/files", "/v1/instances/c1%2Ffiles/a", "/upload/", "//upload"):
        reply = shared.ask("GET", target)
        assert (reply.status, reply.code) == (404, "not_found"), target


def test_other_methods_are_not_allowed(shared: Api) -> None:
    """405 with the methods that are."""
    for target, allowed in (("/v1/tasks", "GET, HEAD"), ("/v1/instances/c1/files/a", "PUT"), ("/healthz", "GET, HEAD")):
        reply = shared.ask("DELETE", target)
        assert (reply.status, reply.code, reply.headers["allow"]) == (405, "method_not_allowed", allowed)


def test_head_is_answered_like_get_without_a_body(shared: Api) -> None:
    """The same head, nothing after it."""
    reply = shared.ask("HEAD", "/healthz")
    assert (reply.status, reply.body) == (200, b"")
    assert int(reply.headers["content-length"]) > 0


def test_health_is_up_whatever_else_is_wrong(start: Start) -> None:
    """/healthz is about the process alone."""
    api = start(limits={"min_free_bytes": 2**60})
    assert api.ask("GET", "/healthz").status == 200


def test_readiness_names_the_shards_without_a_worker(shared: Api) -> None:
    """Ready means that what is uploaded is delivered too."""
    layout = Layout(shared.state)
    locks = [ShardLock(layout, shard) for shard in range(2)]
    locks[0].acquire()
    reply = shared.ask("GET", "/readyz")
    assert reply.status == 503
    assert reply.json() == {
        "ready": False, "reasons": [{"code": "no_worker", "message": "Shard 1 has no worker."}],
        "shards": [{"shard": 0, "worker": os.getpid()}, {"shard": 1, "worker": None}]}
    locks[1].acquire()
    ready = shared.ask("GET", "/readyz")
    assert (ready.status, ready.json()["ready"], ready.json()["reasons"]) == (200, True, [])
    for lock in locks:
        lock.release()


@pytest.mark.parametrize(("limits", "faults", "code"), [
    ({"min_free_bytes": 2**60}, "", "no_room"), ({}, "spool.open=EROFS", "storage_failed"),
    ({}, "queue.commit=EIO", "queue_unreadable"), ({"max_pending_tasks": 1}, "", "backlog_full"),
])
def test_readiness_gives_the_reasons(start: Start, limits: dict[str, int], faults: str, code: str) -> None:
    """503 with what stands in the way of an upload."""
    api = start(limits=limits, environment={"INCUS_COURIER_FAULTS": faults})
    if code == "backlog_full":
        assert api.put("root/a").status == 202
    reply = api.ask("GET", "/readyz")
    assert reply.status == 503
    assert code in [reason["code"] for reason in reply.json()["reasons"]]


def test_readiness_gives_a_reason_when_the_locks_of_the_workers_cannot_be_read(api: Api) -> None:
    """Whoever asks while the disk fails is told so; that is no mistake of the service."""
    lock = Layout(api.state).lock(0)
    lock.unlink(missing_ok=True)
    lock.symlink_to(lock.name)
    reply = api.ask("GET", "/readyz")
    assert reply.status == 503
    assert [reason["code"] for reason in reply.json()["reasons"]] == ["storage_failed"]


def test_readiness_gives_a_reason_when_the_spool_was_replaced(api: Api) -> None:
    """What cannot be stored is not called ready: not in a new directory, which this process does not have open."""
    assert api.put("root/a").status == 202
    (bucket,) = {path.parent for path in api.spooled()}
    bucket.rename(bucket.with_name("replaced"))
    bucket.mkdir()
    reply = api.ask("GET", "/readyz")
    assert reply.status == 503
    assert "storage_failed" in [reason["code"] for reason in reply.json()["reasons"]]
