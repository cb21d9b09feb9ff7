"""Webhooks, asked for as a client does."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest

from api.access.evidence import Evidence
from api.access.identify import Doorkeeper
from api.http.peers import Shares, Via
from api.http.refusal_log import RefusalLog
from api.http.response import ASKER, DOOR, PEER, VIA, Event, Scope
from api.live_config import LiveConfig
from api.queries.reader import Reader
from api.routes.app import build
from api.routes.endpoint import auditing
from api.routes.webhooks import WebhookRoutes
from daemon.access.caller import Caller, Link, anonymous
from daemon.config import Config
from daemon.model.grant import Grant
from daemon.process.shared_counts import Column, SharedCounts
from daemon.task_queue import NoticeState
from daemon.webhooks.telling import a_test
from tests.support.depot import Depot
from tests.support.receiver import SECRET

HOOK = {"name": "ci", "url": "https://a.example/x?token=abc", "secret": SECRET}


class Reply(NamedTuple):
    """What a client gets."""

    status: int
    body: Any


class Api:
    """The addresses, and the shards behind them."""

    def __init__(self, directory: Path) -> None:
        """Keep all in a state directory, in two shards."""
        self.shards = [Depot(directory, shard) for shard in range(2)]
        self.reader = Reader(self.shards[0].layout, self.shards[0].spool, 2)

    def ask(self, target: str, method: str = "GET", *, caller: Caller | None = None) -> Reply:
        """One request of somebody; of anybody, who may do everything, without a name."""
        return asyncio.run(self._ask(caller or anonymous(None), method, target))

    async def _ask(self, caller: Caller, method: str, target: str) -> Reply:
        path, _, query = target.partition("?")
        state = {PEER: "10.0.0.1", VIA: Via("10.0.0.1"), DOOR: None, ASKER: SimpleNamespace(waits=False)}
        scope: Scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "root_path": "",
                        "query_string": query.encode(), "headers": [(b"content-length", b"0")], "state": state}
        sent: list[Event] = []

        async def identify(_: Evidence) -> Caller:
            return caller

        async def receive() -> Event:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(event: Event) -> None:
            sent.append(event)

        with ThreadPoolExecutor(1) as threads:
            live = LiveConfig(Config.model_validate({"webhooks": [HOOK]}))
            routes = WebhookRoutes(live, self.reader, self.shards[0].layout, threads).routes(
                Shares(lambda: 9, SharedCounts(), Column.PAGES), auditing(RefusalLog()))
            doorkeeper = cast(Doorkeeper, SimpleNamespace(identify=identify))
            await build(routes, live, doorkeeper, RefusalLog())(scope, receive, send)
        return Reply(sent[0]["status"], json.loads(b"".join(event["body"] for event in sent[1:])))

    def close(self) -> None:
        """Close everything."""
        self.reader.close()
        for shard in self.shards:
            shard.close()


@pytest.fixture
def api(quick_path: Path) -> Iterator[Api]:
    """The addresses of an API with a new state."""
    made = Api(quick_path / "state")
    yield made
    made.close()


def who(**grant: object) -> Caller:
    """Somebody with a token."""
    return Caller(name="token:a", links=(Link("token:a", Grant.read(grant)),))


@pytest.mark.parametrize(("grant", "status"), [
    ({"may": ["admin"]}, 200), ({"may": ["upload", "read", "metrics"]}, 403), ({"may": ["admin"], "own": True}, 403),
    ({"may": ["admin"], "instances": ["web-*"]}, 403), ({"may": ["admin"], "paths": ["/srv/**"]}, 403)])
def test_only_who_may_everything_everywhere_sees_webhooks(api: Api, grant: dict[str, object], status: int) -> None:
    """What they are told is about everybody's tasks."""
    asked = [api.ask("/v1/webhooks", caller=who(**grant)), api.ask("/v1/webhooks/ci/deliveries", caller=who(**grant))]
    assert [reply.status for reply in asked] == [status, status]
    replayed = api.ask("/v1/webhooks/ci/deliveries/msg_1/replay", "POST", caller=who(**grant))
    assert replayed.status == (404 if status == 200 else 403)


def test_webhooks_are_listed_without_their_secrets(api: Api) -> None:
    """Over all shards together, also before the first message."""
    api.shards[1].queue.post([a_test("ci", 1.0)])
    api.shards[0].queue.disable("ci", "it answered 410")
    reply = api.ask("/v1/webhooks")
    [hook] = reply.body["webhooks"]
    assert hook["disabled"]["reason"] == "it answered 410"
    assert {key: hook[key] for key in ("name", "url", "events", "instances", "pending", "failed", "delivered", "last")} == {
        "name": "ci", "url": "https://a.example/x?…", "events": ["delivered", "failed"], "instances": ["*"], "pending": 1,
        "failed": 0, "delivered": 0, "last": None}
    assert SECRET not in json.dumps(reply.body)


def test_deliveries_come_page_by_page(api: Api) -> None:
    """Newest first, whichever shard they are in, until there are no more."""
    for number in range(5):
        api.shards[number % 2].queue.post([a_test("ci", float(number))])
    address, seen = "/v1/webhooks/ci/deliveries?state=pending&limit=2", []
    while address:
        page = api.ask(address).body
        seen += [each["created_at"] for each in page["deliveries"]]
        address = page["next"]
    assert seen == [f"1970-01-01T00:00:0{number}.000Z" for number in (4, 3, 2, 1, 0)]


def test_delivery_is_sent_again(api: Api) -> None:
    """However it stands; nobody else's is."""
    queue = api.shards[1].queue
    queue.post([a_test("ci", 1.0)])
    queue.give_up_notices("ci", 0, 9, "too many")
    [failed] = queue.notices("ci", NoticeState.FAILED, None, 9)
    reply = api.ask(f"/v1/webhooks/ci/deliveries/{failed.message_id}/replay", "POST")
    assert (reply.status, reply.body["state"], reply.body["id"]) == (202, "pending", failed.message_id)
    assert len(queue.due_notices("ci", 4e9, 9)) == 1


@pytest.mark.parametrize(("target", "method", "status", "code"), [
    ("/v1/webhooks/other/deliveries", "GET", 404, "webhook_not_found"),
    ("/v1/webhooks/ci/deliveries?state=gone", "GET", 400, "bad_query"),
    ("/v1/webhooks/ci/deliveries?limit=0", "GET", 400, "bad_query"),
    ("/v1/webhooks/ci/deliveries?limit=99999", "GET", 400, "bad_query"),
    ("/v1/webhooks/ci/deliveries?after=%00", "GET", 400, "bad_query"),
    ("/v1/webhooks/ci/deliveries?x=1", "GET", 400, "bad_query"),
    ("/v1/webhooks?x=1", "GET", 400, "bad_query"),
    ("/v1/webhooks/ci/deliveries/msg_1/replay", "POST", 404, "delivery_not_found"),
    (f"/v1/webhooks/ci/deliveries/{'x' * 200}/replay", "POST", 404, "delivery_not_found"),
    ("/v1/webhooks/other/deliveries/msg_1/replay", "POST", 404, "webhook_not_found"),
    ("/v1/webhooks/ci/deliveries/msg_1/replay", "GET", 405, "method_not_allowed"),
    ("/v1/webhooks", "DELETE", 405, "method_not_allowed")])
def test_what_cannot_be_answered_is_refused(api: Api, target: str, method: str, status: int, code: str) -> None:
    """With the reason."""
    reply = api.ask(target, method)
    assert (reply.status, reply.body["code"]) == (status, code)
