"""The addresses of webhooks: how they stand, what they were told, and sending it again.

For those alone who may do everything everywhere.
"""

from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any, Final
from urllib.parse import quote, urlencode

from api.http.parameters import read_query
from api.http.peers import Shares
from api.http.response import REQUESTER, Answer, Receive, Scope, json_answer
from api.live_config import LiveConfig
from api.queries.reader import Reader
from api.routes.endpoint import Audit, Endpoint, Few, Route
from api.threads import joined
from daemon.access.caller import Caller
from daemon.access.decide import decide
from daemon.errors import Rejected
from daemon.log import log
from daemon.model.grant import Permission
from daemon.state.doorbell import ring
from daemon.state.layout import Layout
from daemon.task_queue import Notice, NoticeState
from daemon.webhooks.view import Overall, describe_notice, describe_webhook, overall

ADDRESS: Final = "/v1/webhooks"
DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
_NO_STORE: Final = ("Cache-Control", "no-store")
_PARAMETERS: Final = frozenset({"state", "limit", "after"})
_NO_PARAMETERS: Final[frozenset[str]] = frozenset()
_STATES: Final = {state.label: state for state in NoticeState}
#: No id of a message is longer.
_ID_LENGTH: Final = 128


class WebhookRoutes:
    """What the addresses of webhooks do."""

    def __init__(self, live: LiveConfig, reader: Reader, layout: Layout, threads: Executor) -> None:
        self._live = live
        self._reader = reader
        self._layout = layout
        self._threads = threads

    def routes(self, pages: Shares, audit: Audit) -> list[Route]:
        """The addresses; `pages` has the pages that wait to be read in all API processes."""
        return [
            Route(ADDRESS, Endpoint({"GET": self.get_all}, audit=audit)),
            Route(f"{ADDRESS}/{{name}}/deliveries", Few(Endpoint({"GET": self.get_page}, audit=audit), pages)),
            Route(f"{ADDRESS}/{{name}}/deliveries/{{message_id}}/replay",
                  Endpoint({"POST": self.post_replay}, audit=audit)),
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
        parameters = read_query(scope["query_string"], _PARAMETERS)
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
        limit, state, after = _limit(parameters.get("limit")), _state(parameters.get("state")), parameters.get("after")
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
    caller: Caller = scope["state"][REQUESTER].caller
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


def _limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_LIMIT):
        raise Rejected("bad_query", f"`limit` is a number from 1 to {MAX_LIMIT}.")
    return int(text)
