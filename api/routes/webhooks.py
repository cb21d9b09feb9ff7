"""The addresses of webhooks: how they stand, what they were told, and sending it again.

For those alone who may do everything everywhere.
"""

from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any, Final
from urllib.parse import quote, urlencode

from api.http.description import Content, Description, NumberParameter, Outcome, Parameter, Where, names
from api.http.parameters import read_query
from api.http.peers import Shares
from api.http.response import Answer, Receive, Scope, json_answer
from api.live_config import LiveConfig
from api.queries.reader import Reader
from api.routes.endpoint import Audit, Endpoint, Few, Route, caller_in
from api.threads import joined
from daemon.access.caller import Caller
from daemon.access.decide import decide
from daemon.errors import Rejected
from daemon.log import log
from daemon.model.grant import Permission
from daemon.model.schema import answer, many, one_of, or_null, text
from daemon.state.doorbell import ring
from daemon.state.layout import Layout
from daemon.task_queue import Notice, NoticeState
from daemon.webhooks.view import NOTICE, WEBHOOK, Overall, describe_notice, describe_webhook, overall

ADDRESS: Final = "/v1/webhooks"
DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
_NO_STORE: Final = ("Cache-Control", "no-store")
_NO_PARAMETERS: Final[frozenset[str]] = frozenset()
_STATES: Final = {state.label: state for state in NoticeState}
#: No id of a message is longer.
_ID_LENGTH: Final = 128

_LIMIT: Final = NumberParameter("limit", MAX_LIMIT, DEFAULT_LIMIT, "how many messages at most")
_PAGE: Final = (
    Parameter(name="state", meaning="only messages in this state", schema=one_of(_STATES)),
    _LIMIT,
    Parameter(name="after", meaning="the id of the last message of the page before",
              schema={"type": "string", "pattern": "^[ -~]*$", "maxLength": _ID_LENGTH}),
)
_NAME: Final = Parameter(name="name", meaning="the webhook", schema={"type": "string"}, place=Where.PATH,
                         required=True, refuses=("webhook_not_found",))
_GROUP: Final = "Webhooks"
_TEXT: Final = ("This needs the right `admin`, without bounds on instances, projects, remotes, paths or own tasks."
                " [webhooks.md](webhooks.md) has more.")
_REFUSALS: Final = ("action_not_allowed", "address_not_allowed", "queue_unreadable", "no_room")
_DELIVERIES: Final = f"curl http://127.0.0.1:8420{ADDRESS}/ops/deliveries"
SHOWING_ALL: Final = Description(
    operation_id="listWebhooks", group=_GROUP, summary="See how the webhooks stand", text=_TEXT,
    outcomes={200: Outcome(meaning="All of them.", content=Content(
        schema=answer("Webhooks", {"webhooks": many(WEBHOOK)})))},
    refuses=("bad_query", *_REFUSALS), example=f"curl http://127.0.0.1:8420{ADDRESS}")
LISTING_MESSAGES: Final = Description(
    operation_id="listWebhookMessages", group=_GROUP, summary="List what a webhook was told, or is to be told",
    text=_TEXT, parameters=(_NAME, *_PAGE),
    outcomes={200: Outcome(meaning="Newest first.", content=Content(schema=answer("WebhookMessages", {
        "deliveries": many(NOTICE, most=MAX_LIMIT),
        "next": or_null(text("the address of the next page; null when there is none"))})))},
    refuses=("too_busy", *_REFUSALS), example=f"{_DELIVERIES}?state=failed")
REPLAYING: Final = Description(
    operation_id="replayWebhookMessage", group=_GROUP, summary="Send a message again", text=_TEXT,
    parameters=(_NAME, Parameter(
        name="message_id", meaning="the message", schema={"type": "string"}, place=Where.PATH, required=True,
        refuses=("delivery_not_found",))),
    outcomes={202: Outcome(meaning="It is sent again from now on.", content=Content(schema=NOTICE))},
    refuses=("bad_query", *_REFUSALS),
    example=f"curl -X POST http://127.0.0.1:8420{ADDRESS}/ops/deliveries/msg_1/replay")


class WebhookRoutes:
    """What the addresses of webhooks do."""

    def __init__(self, live: LiveConfig, reader: Reader, layout: Layout, threads: Executor) -> None:
        self._live = live
        self._reader = reader
        self._layout = layout
        self._threads = threads

    def routes(self, pages: Shares, audit: Audit) -> list[Route]:
        """The addresses; `pages` has the pages that wait to be read in all API processes."""
        messages = Endpoint({"GET": LISTING_MESSAGES.by(self.get_page)}, audit=audit)
        return [
            Route(ADDRESS, Endpoint({"GET": SHOWING_ALL.by(self.get_all)}, audit=audit)),
            Route(f"{ADDRESS}/{{name}}/deliveries", Few(messages, pages)),
            Route(f"{ADDRESS}/{{name}}/deliveries/{{message_id}}/replay",
                  Endpoint({"POST": REPLAYING.by(self.post_replay)}, audit=audit)),
        ]

    async def get_all(self, scope: Scope, receive: Receive) -> Answer:
        """GET /v1/webhooks: each webhook, and how it stands."""
        _require_admin(scope)
        read_query(scope["query_string"], _NO_PARAMETERS)
        found = await joined(self._threads.submit(self._overall))
        return json_answer(200, {"webhooks": [describe_webhook(each) for each in found]}, _NO_STORE)

    async def get_page(self, scope: Scope, receive: Receive) -> Answer:
        """GET a page of the messages to one webhook, newest first."""
        _require_admin(scope)
        parameters = read_query(scope["query_string"], names(_PAGE))
        return await joined(self._threads.submit(self._page, scope["path_params"]["name"], parameters))

    async def post_replay(self, scope: Scope, receive: Receive) -> Answer:
        """POST: send one message again, from now on."""
        caller = _require_admin(scope)
        read_query(scope["query_string"], _NO_PARAMETERS)
        name, message_id = scope["path_params"]["name"], scope["path_params"]["message_id"]
        return await joined(self._threads.submit(self._replay, name, message_id, caller))

    def _overall(self) -> list[Overall]:
        return overall(self._live.config.webhooks, self._reader.webhook_standings())

    def _require_known(self, name: str) -> None:
        if name not in {each.name for each in self._overall()}:
            raise Rejected("webhook_not_found")

    def _page(self, name: str, parameters: Mapping[str, str]) -> Answer:
        limit, state, after = _LIMIT.read(parameters), _state(parameters.get("state")), parameters.get("after")
        if after is not None and not _is_id(after):
            raise Rejected("bad_query", "`after` is not the id of a message.")
        self._require_known(name)
        found = self._reader.notices(name, state, after, limit)
        return json_answer(200, describe_notices(name, found, parameters, limit), _NO_STORE)

    def _replay(self, name: str, message_id: str, caller: Caller) -> Answer:
        self._require_known(name)
        shard = self._reader.replay(name, message_id) if _is_id(message_id) else None
        if shard is None:
            raise Rejected("delivery_not_found")
        ring(self._layout, shard)
        log("webhook.replayed", webhook=name, message_id=message_id, client=caller.client)
        found = self._reader.find_notice(message_id)
        if found is None:
            raise Rejected("delivery_not_found")
        return json_answer(202, describe_notice(found), _NO_STORE)


def describe_notices(
    name: str, found: list[Notice], parameters: Mapping[str, str], limit: int,
) -> dict[str, Any]:
    """A page of messages, with the address of the next one if there may be one."""
    following = None
    if len(found) == limit:
        kept = {key: value for key, value in parameters.items() if key != "after"}
        query = urlencode({**kept, "after": found[-1].message_id})
        following = f"{ADDRESS}/{quote(name, safe='')}/deliveries?{query}"
    return {"deliveries": [describe_notice(notice) for notice in found], "next": following}


def _require_admin(scope: Scope) -> Caller:
    caller = caller_in(scope)
    # Webhooks are told of everything: whose rights end somewhere may not look.
    code = decide(caller, Permission.ADMIN) or ("action_not_allowed" if _is_bounded(caller) else None)
    if code is not None:
        raise Rejected(code)
    return caller


def _is_bounded(caller: Caller) -> bool:
    grants = [link.grant for link in caller.links]
    return any(grant.own or any(globs is not None for globs in (
        grant.instances, grant.projects, grant.remotes, grant.paths)) for grant in grants)


def _is_id(text: str) -> bool:
    return len(text) <= _ID_LENGTH and text.isascii() and text.isprintable()


def _state(text: str | None) -> NoticeState | None:
    if text is None:
        return None
    if text not in _STATES:
        raise Rejected("bad_query", f"`state` is one of: {', '.join(_STATES)}.")
    return _STATES[text]
