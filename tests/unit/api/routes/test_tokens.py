"""Tokens that somebody makes for a part of his own rights, asked for as a client does."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.access.evidence import Evidence
from api.access.identify import Doorkeeper
from api.http.peers import Shares, Via
from api.http.refusal_log import RefusalLog
from api.http.response import ASKER, DOOR, PEER, VIA, App, Event, Scope
from api.live_config import LiveConfig
from api.routes import tokens as token_routes
from api.routes.app import build
from api.routes.endpoint import auditing
from api.routes.json_body import MAX_BODY_BYTES
from api.routes.tokens import TokenRoutes, read_wish
from daemon.access.caller import Caller, Link, anonymous
from daemon.access.children import MAX_LIFETIME_S, caller_of
from daemon.access.token_text import read
from daemon.config import load
from daemon.delegation import Delegations, open_delegations
from daemon.errors import Rejected
from daemon.model.grant import Grant
from daemon.model.view import when
from daemon.process.shared_counts import Column, SharedCounts
from daemon.state.layout import Layout

GRANT = Grant.read({"may": ["upload", "read", "delegate"]})
CI = Caller(name="token:ci", links=(Link("token:ci", GRANT),), address="10.0.0.1")
OTHER = Caller(name="token:other", links=(Link("token:other", GRANT),))
WISH = {"may": ["upload"], "paths": ["/srv/report.pdf"], "max_uploads": 1, "expires_s": 3600}


@dataclass(frozen=True)
class Reply:
    """What a client gets."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Api:
    """The addresses, and the store behind them."""

    def __init__(self, directory: Path) -> None:
        """Keep all in a state directory."""
        layout = Layout(directory)
        layout.create()
        self.store: Delegations = open_delegations(layout)

    def ask(self, caller: Caller | None, method: str, target: str, body: object = None) -> Reply:
        """One request of somebody."""
        return asyncio.run(self._ask(caller, method, target, body))

    async def _ask(self, caller: Caller | None, method: str, target: str, body: object) -> Reply:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        path, _, query = target.partition("?")
        state = {PEER: "10.0.0.1", VIA: Via("10.0.0.1"), DOOR: None, ASKER: SimpleNamespace(waits=False)}
        scope: Scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "root_path": "",
                        "query_string": query.encode(), "headers": [(b"content-length", b"%d" % len(data))], "state": state}
        sent: list[Event] = []

        async def receive() -> Event:
            return {"type": "http.request", "body": data, "more_body": False}

        async def send(event: Event) -> None:
            sent.append(event)

        with ThreadPoolExecutor(1) as threads:
            await self._app(threads, caller)(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Reply(sent[0]["status"], headers, b"".join(event["body"] for event in sent[1:]))

    def _app(self, threads: ThreadPoolExecutor, caller: Caller | None) -> App:
        async def identify(_: Evidence) -> Caller:
            return caller or anonymous(None)

        doorkeeper = cast(Doorkeeper, SimpleNamespace(identify=identify))
        live = LiveConfig(load(None))
        pages = Shares(lambda: 9, SharedCounts(), Column.PAGES)
        routes = TokenRoutes(live, self.store, threads).routes(pages, auditing(RefusalLog()))
        return build(routes, live, doorkeeper, RefusalLog())

    def made(self, caller: Caller, **values: object) -> Any:
        """A token that somebody made."""
        reply = self.ask(caller, "POST", "/v1/tokens", {**WISH, **values})
        assert reply.status == 201, reply.body
        return reply.json()

    def caller(self, token: str) -> Caller:
        """Who comes with a token."""
        shown = read(token)
        assert shown is not None
        lineage = self.store.lineage(shown.key_id)
        assert lineage[0].sha256 == shown.sha256
        found = caller_of(lineage, lambda name: CI.links if name == CI.name else None, now=time.time(), address=None)
        assert found is not None
        return found


@pytest.fixture
def api(quick_path: Path) -> Iterator[Api]:
    """The addresses of an API with a new state."""
    made = Api(quick_path / "state")
    yield made
    made.store.close()


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, object]]]:
    """What the addresses log."""
    lines: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(token_routes, "log", lambda event, **fields: lines.append((event, fields)))
    return lines


def test_token_is_told_once_and_acts_under_its_maker(api: Api, logged: list[tuple[str, dict[str, object]]]) -> None:
    """It is never told again, nor is its digest, and it is in no log."""
    reply = api.ask(CI, "POST", "/v1/tokens", {**WISH, "label": "for ☃"})
    made = reply.json()
    assert (reply.status, reply.headers["cache-control"]) == (201, "no-store")
    assert reply.headers["location"] == f"/v1/tokens/{made['id']}"
    token = made.pop("token")
    assert made["name"] == f"token:ci/{made['id']}"
    assert made["rights"] == {"may": ["upload"], "paths": ["/srv/report.pdf"], "max_uploads": 1}
    assert (made["label"], made["made_from"], made["used"]) == ("for ☃", "10.0.0.1", {"uploads": 0, "bytes": 0})
    assert api.ask(CI, "GET", reply.headers["location"]).json() == made
    assert api.ask(CI, "GET", "/v1/tokens").json() == {"tokens": [made], "next": None}
    assert [link.name for link in api.caller(token).links] == [made["name"], "token:ci"]
    assert logged == [("access.token_made", {"name": made["name"], "by": "token:ci", "address": "10.0.0.1"})]


def test_who_comes_with_a_token_hands_on_less_and_sees_only_what_is_below_him(api: Api) -> None:
    """At most four times, never for longer than he has himself; and ending one ends those below it."""
    callers = [CI]
    for _ in range(4):
        made = api.made(callers[-1], may=["upload", "delegate"], expires_s=60 if len(callers) == 2 else 3600)
        callers.append(api.caller(made["token"]))
    reply = api.ask(callers[-1], "POST", "/v1/tokens", WISH)
    assert (reply.status, reply.json()["code"]) == (403, "delegation_too_deep")
    ends = [child.expires_at for child in api.store.below("token:ci", limit=9, now=time.time())]
    assert max(ends[1:]) == ends[1] < ends[0]
    listed = [[each["name"] for each in api.ask(caller, "GET", "/v1/tokens").json()["tokens"]] for caller in callers]
    names = [caller.name for caller in callers]
    assert listed == [names[1:], names[2:], names[3:], names[4:], []]
    first, second = (name.rpartition("/")[2] for name in names[1:3])
    assert api.ask(callers[2], "DELETE", f"/v1/tokens/{first}").status == 404
    gone = api.ask(callers[1], "DELETE", f"/v1/tokens/{second}")
    assert (gone.status, gone.body, "content-length" in gone.headers) == (204, b"", False)
    assert [child.name for child in api.store.below("token:ci", limit=9, now=time.time())] == names[1:2]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_token_of_somebody_else_is_answered_as_none(api: Api, method: str) -> None:
    """Byte for byte, whatever was asked for in place of an id; and nothing becomes of it."""
    made = api.made(CI)
    mine = api.made(OTHER)
    replies = [api.ask(OTHER, method, f"/v1/tokens/{key_id}") for key_id in (made["id"], "0" * 12, "%2e", mine["id"].lower() + "x")]
    assert {(reply.status, reply.body) for reply in replies} == {(404, replies[0].body)}
    assert replies[0].json()["code"] == "token_not_found"
    assert api.ask(CI, "GET", f"/v1/tokens/{made['id']}").status == 200


def test_pages_follow_each_other(api: Api) -> None:
    """By their `next` address, without gaps or repeats."""
    made = {api.made(CI)["id"] for _ in range(5)}
    listed, address = [], "/v1/tokens?limit=2"
    while address:
        page = api.ask(CI, "GET", address).json()
        listed += [each["id"] for each in page["tokens"]]
        address = page["next"]
    assert (len(listed), set(listed)) == (5, made)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "after=token:other/x", "after=token:ci", "state=x"])
def test_page_is_refused_when_it_makes_no_sense(api: Api, query: str) -> None:
    """400 bad_query; the name of somebody else's token among them."""
    assert api.ask(CI, "GET", f"/v1/tokens?{query}").json()["code"] == "bad_query"


@pytest.mark.parametrize("ask", [
    lambda api, caller: api.ask(caller, "POST", "/v1/tokens", WISH),
    lambda api, caller: api.ask(caller, "GET", "/v1/tokens"),
    lambda api, caller: api.ask(caller, "GET", "/v1/tokens/x"),
    lambda api, caller: api.ask(caller, "DELETE", "/v1/tokens/x"),
])
def test_who_may_not_hand_on_is_refused(api: Api, ask: Callable[[Api, Caller], Reply]) -> None:
    """Before anything is read; also who comes from an address that his own credential is not for."""
    plain = replace(CI, links=(Link("token:ci", Grant.read({"may": ["upload", "read"]})),))
    elsewhere = replace(CI, links=(Link("token:ci", replace(GRANT, addresses=("unix",))),))
    assert [(reply.status, reply.json()["code"]) for reply in (ask(api, plain), ask(api, elsewhere))] == [
        (403, "action_not_allowed"), (403, "address_not_allowed")]


def test_nobody_in_particular_hands_nothing_on(api: Api) -> None:
    """There is nothing that it would be narrower than, and nobody with whom it would end."""
    reply = api.ask(None, "POST", "/v1/tokens", WISH)
    assert (reply.status, reply.json()["code"]) == (403, "action_not_allowed")


@pytest.mark.parametrize(("body", "code"), [
    (b"", "bad_json"), (b"[]", "bad_json"), (b"\xff", "bad_json"), (b"[" * MAX_BODY_BYTES, "bad_json"),
    (b'{"may": ["upload"], "may": ["read"], "expires_s": 1}', "bad_json"), (b'{"expires_s": NaN}', "bad_json"),
    (b" " * (MAX_BODY_BYTES + 1), "long_body"),
    ({}, "bad_grant"), ({**WISH, "may": []}, "bad_grant"), ({**WISH, "colour": "red"}, "bad_grant"),
    ({"may": ["upload"]}, "bad_grant"), ({**WISH, "expires_at": when(time.time() + 60)}, "bad_grant"),
    ({**WISH, "expires_s": 0}, "bad_grant"), ({**WISH, "expires_s": 0.9}, "bad_grant"),
    ({**WISH, "max_uploads": 1.5}, "bad_grant"), (b'{"may": ["read"], "expires_s": 9, "max_uploads": 1e400}', "bad_grant"),
    ({**WISH, "expires_s": True}, "bad_grant"),
    ({**WISH, "expires_s": MAX_LIFETIME_S + 1}, "bad_grant"), ({**WISH, "expires_s": 10**400}, "bad_grant"),
    ({**WISH, "max_uploads_s": 10**400}, "bad_grant"), ({**WISH, "label": "\ud800"}, "bad_grant"),
    ({**WISH, "label": "x" * 201}, "bad_grant"), ({**WISH, "may": ["save"]}, "action_not_allowed"),
    ({"may": ["upload"], "expires_at": "2999-01-01T00:00:00Z"}, "bad_grant"),
    ({**WISH, "paths": ["/**/" + "*/" * 500 + "x"] * 3}, "bad_grant"),
    ({"may": ["upload"], "expires_at": "2026-01-01T00:00:00"}, "bad_grant"),
])
def test_what_cannot_be_handed_on_is_refused(api: Api, body: object, code: str) -> None:
    """Each with its code, and nothing is made."""
    assert api.ask(CI, "POST", "/v1/tokens", body).json()["code"] == code
    assert api.store.below("token:ci", limit=1, now=0) == []


def test_whole_number_is_one_however_it_is_written(api: Api) -> None:
    """JSON knows one kind of number: 2.0 and 2e0 are 2."""
    made = api.ask(CI, "POST", "/v1/tokens", b'{"may": ["upload"], "expires_s": 9.0, "max_uploads": 2.0, "max_total_bytes": 2e3}')
    assert made.json()["rights"] == {"may": ["upload"], "max_uploads": 2, "max_total_bytes": 2000}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from([*WISH, "expires_at", "label", "uids", "modes", "max_bytes_s", "x"]), inner)))
def test_any_json_is_read_or_refused(value: object) -> None:
    """Nothing that a client sends is a mistake of ours."""
    with suppress(Rejected):
        assert read_wish(json.dumps(value).encode(), 1000.0).grant.may


def test_end_is_told_as_a_time_too(api: Api) -> None:
    """In RFC 3339, as answers have it; and no later than that of who hands on, where it is known."""
    wish = {"may": ["upload"], "expires_at": when(time.time() + 7200)}
    assert api.ask(CI, "POST", "/v1/tokens", wish).json()["expires_at"] == wish["expires_at"]
    bounded = replace(CI, expires_at=time.time() + 60)
    assert api.ask(bounded, "POST", "/v1/tokens", wish).json()["expires_at"] < cast(str, wish["expires_at"])
