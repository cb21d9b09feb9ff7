"""Clients that wait for the outcome of a task, at real API processes. The test is the worker."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from daemon.model.task import Attempt, State
from daemon.task_queue import Settlement
from tests.integration.api.running import Api, Reply, wait_until
from tests.support.depot import Depot
from tests.support.forms import TO_ROOT, TYPE, form
from tests.support.tokens import make_token, revoke_token

Start = Callable[..., Api]
LONG: dict[str, Any] = {"Prefer": "respond-async, wait=3000"}


def accepted(upload: Callable[..., Reply], path: str) -> Reply:
    """Upload and wait; again where another upload has the place."""
    def once() -> Reply | None:
        reply = upload(path, **LONG)
        return reply if reply.status == 202 else None

    reply: Reply = wait_until(once, "a place")
    return reply


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """One for each client."""
    with ThreadPoolExecutor(8) as made:
        yield made


class Worker:
    """Settles tasks, and makes nothing of their bytes."""

    def __init__(self, api: Api) -> None:
        self.depot = Depot(api.state)

    def claims(self, number: int) -> list[int]:
        """Wait until so many uploads are accepted, and claim them; return their orders."""
        claimed = list[int]()

        def all_claimed() -> bool:
            claimed.extend(task.order for task in self.depot.claim())
            return len(claimed) >= number

        wait_until(all_claimed, "the uploads")
        assert len(claimed) == number
        return claimed

    def settle(self, orders: list[int], state: State, attempt: Attempt) -> None:
        """Settle them."""
        self.depot.queue.settle([Settlement(order=order, state=state, attempts=1, error_code=attempt.code,
                                            error_message=attempt.message, attempt=attempt) for order in orders])


@pytest.fixture
def worker() -> Iterator[Callable[[Api], Worker]]:
    """Makes the worker of an API."""
    made: list[Worker] = []

    def make(api: Api) -> Worker:
        made.append(Worker(api))
        return made[-1]

    yield make
    for each in made:
        each.depot.close()


def test_clients_of_all_processes_learn_the_outcome(
    start: Start, worker: Callable[[Api], Worker], threads: ThreadPoolExecutor,
) -> None:
    """Whoever uploaded, and whoever asks; with one place for an upload many wait, for who waits has given his back."""
    api = start(queue={"shards": 1}, api={"processes": 2, "max_connections": 1, "max_wait_s": 3600})
    bench = worker(api)

    uploads = [threads.submit(accepted, api.put, f"root/{number}") for number in range(4)]
    orders = bench.claims(4)
    posted = threads.submit(accepted, api.post, "/root/5")
    orders += bench.claims(1)
    files = form([*TO_ROOT, ("f", "6", b"x"), ("f", "7", b"y")])
    formed = threads.submit(accepted, lambda address, **headers: api.ask("POST", address, files, Content_Type=TYPE, **headers), "/v1/uploads")
    orders += bench.claims(2)
    asking = [threads.submit(api.ask, "GET", f"/v1/tasks/{task['id']}", **LONG) for task in api.tasks()[:2]]
    assert not any(future.done() for future in [*uploads, posted, formed, *asking])
    bench.settle(orders, State.DELIVERED, Attempt(at=1e9, duration_s=0.5, way="sftp", mode=0o640, uid=0, gid=7))
    for reply in [future.result() for future in uploads]:
        task = reply.json()
        assert (reply.status, reply.headers["preference-applied"], task["state"]) == (202, "wait=3000", "delivered")
        assert (task["receipt"]["mode"], task["receipt"]["gid"], len(task["history"])) == ("0640", 7, 1)
    assert (posted.result().status, posted.result().headers["preference-applied"], posted.result().body) == (
        202, "wait=3000", b"File '5' queued for processing on container 'c1'.")
    assert [one["task"]["state"] for one in formed.result().json()["uploads"]] == ["delivered"] * 2
    assert formed.result().headers["preference-applied"] == "wait=3000"
    assert [(future.result().status, future.result().json()["state"]) for future in asking] == [(200, "delivered")] * 2
    now = api.put("root/now", Prefer="wait=0")
    assert (now.json()["state"], now.headers["preference-applied"]) == ("queued", "wait=0")
    assert "preference-applied" not in api.put("root/never", Prefer="wait=soon").headers
    bench.settle(bench.claims(2), State.FAILED, Attempt(at=1e9, duration_s=0.5, code="target_full", message="Full."))
    known = api.ask("GET", now.headers["location"], **LONG)
    assert (known.json()["error"]["code"], "preference-applied" in known.headers) == ("target_full", False)


def test_waiting_ends_with_the_client_with_his_rights_and_with_the_process(
    start: Start, worker: Callable[[Api], Worker], threads: ThreadPoolExecutor,
) -> None:
    """A client that goes away leaves nothing open; who waits when the process is to end is told at once how it stands.

    What somebody may see is decided anew when he is answered; an upload is accepted whatever becomes of its sender.
    """
    api = start(queue={"shards": 1}, api={"max_wait_s": 3600})
    bench = worker(api)
    known = api.put("known", Prefer="wait=0").headers["location"]
    bench.claims(1)
    before = api.descriptors()
    with api.raw() as client:
        client.sendall(b"PUT /v1/instances/c1/files/x HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=3000\r\nContent-Length: 1\r\n\r\nx")
        bench.claims(1)
    wait_until(lambda: api.descriptors() <= before + 1, "the connection to be closed")
    token = make_token(api.file, "a", may=["upload", "read"], own=True)
    shown: dict[str, Any] = {"Authorization": f"Bearer {token}"}
    wait_until(lambda: api.ask("GET", "/v1/tasks", **shown).status == 200, "the token to be in force")
    assert api.ask("GET", known, **LONG, **shown).status == 404
    uploaded = threads.submit(api.put, "root/revoked", **LONG, **shown)
    orders = bench.claims(1)
    [mine] = api.ask("GET", "/v1/tasks", **shown).json()["tasks"]
    asked = threads.submit(api.ask, "GET", f"/v1/tasks/{mine['id']}", **LONG, **shown)
    revoke_token(api.file, "a")
    wait_until(lambda: api.ask("GET", "/v1/tasks", **shown).status == 401, "the token to be revoked")
    bench.settle(orders, State.DELIVERED, Attempt(at=1e9, duration_s=0.5))
    assert (asked.result().status, uploaded.result().status, uploaded.result().json()["state"]) == (401, 202, "queued")
    again: dict[str, Any] = {"Authorization": f"Bearer {make_token(api.file, 'b', may=['upload'])}"}
    wait_until(lambda: api.ask("GET", "/v1/tasks", **again).status == 403, "the token to be in force")
    upload = threads.submit(api.put, "y", **LONG, **again)
    bench.claims(1)
    api.send(signal.SIGTERM)
    reply = upload.result()
    assert (reply.status, reply.headers["connection"], reply.json()["state"]) == (202, "close", "pushing")
    assert api.end() == 0
