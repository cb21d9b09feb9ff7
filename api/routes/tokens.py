"""Tokens that somebody makes for a part of his own rights: made, seen and ended by him and by nobody else.

The token is told once, in the answer to its making. Whoever asks for one that is not below him gets the same answer as
for none.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from api.http.description import (
    LOCATION,
    Content,
    Description,
    Leads,
    NumberParameter,
    Outcome,
    Parameter,
    Where,
    names,
)
from api.http.parameters import read_query
from api.http.peers import Shares
from api.http.response import NOTHING, Answer, Receive, Scope, json_answer
from api.live_config import LiveConfig
from api.routes.endpoint import Audit, Endpoint, Few, Route, caller_in
from api.routes.json_body import BODY_REFUSALS, read_body, read_object
from api.threads import joined
from daemon.access import token_text
from daemon.access.caller import Caller
from daemon.access.children import MAX_HANDED_ON, MAX_LIFETIME_S, hand_on_refusal, is_below
from daemon.access.decide import decide
from daemon.delegation import MOST_BELOW, Child, HandOn
from daemon.errors import Rejected
from daemon.log import log
from daemon.model.grant import KEYS, MEANINGS, SCHEMAS, Grant, Permission
from daemon.model.names import printable
from daemon.model.schema import TIME, Schema, answer, many, or_null, request, saying, text, whole_number
from daemon.model.text import is_plain
from daemon.model.view import when

#: Where they are found.
ADDRESS: Final = "/v1/tokens"
MAX_LABEL: Final = 200
#: Characters of all globs of paths: each upload is held against them, also by clients who look for the slowest ones.
MAX_PATHS: Final = 2048
#: Tokens of a page, each of which may be as long as what asked for it.
MAX_LIMIT: Final = 100
_NO_PARAMETERS: Final[frozenset[str]] = frozenset()
_NO_STORE: Final = ("Cache-Control", "no-store")
#: When it ends is said in one of two ways.
_EXPIRY: Final[tuple[str, ...]] = ("expires_s", "expires_at")
#: So much of what is wrong is told.
_DETAIL_LENGTH: Final = 300

_KEYS: Final = {key: saying(SCHEMAS[key], meaning) for key, meaning in MEANINGS.items()}
#: What `read_wish` reads.
WISH: Final[Schema] = request("TokenWish", {
    **_KEYS,
    "expires_s": {"type": "number", "minimum": 1, "maximum": MAX_LIFETIME_S,
                  "description": "seconds until it ends"},
    "expires_at": saying(TIME, "when it ends, with its zone: within 30 days"),
    "label": text("for people", most=MAX_LABEL),
}, required=["may"], oneOf=[{"required": [key]} for key in _EXPIRY])
_TOKEN_PROPERTIES: Final[Mapping[str, Schema]] = {
    "id": text("public: says which token it is", pattern=token_text.ID),
    "name": text("as which identity it acts"),
    "parent": text("who made it"),
    "label": text("for people"),
    "rights": saying(answer("Grant", _KEYS, maybe=_KEYS.keys() - {"may"}), "what it was made for"),
    "made_at": TIME,
    "made_from": or_null(text("the address that it was made from")),
    "expires_at": TIME,
    "used": answer("Used", {"uploads": whole_number(0), "bytes": whole_number(0)}),
}
#: What `describe_token` makes.
TOKEN: Final[Schema] = answer("Token", _TOKEN_PROPERTIES)
#: What is answered once.
NEW_TOKEN: Final[Schema] = answer("NewToken", {**_TOKEN_PROPERTIES, "token": text(
    "what is shown as `Authorization: Bearer`; it is told this once", pattern=token_text.PATTERN)})
#: What `describe_tokens` makes.
TOKEN_PAGE: Final[Schema] = answer("TokenPage", {
    "tokens": many(TOKEN), "next": or_null(text("the address of the next page, if there may be one"))})

_LIMIT: Final = NumberParameter("limit", MAX_LIMIT, MAX_LIMIT, "how many at most")
_PAGE_PARAMETERS: Final = (_LIMIT, Parameter(
    name="after", meaning="those behind that one: `next` of the page before has it", schema=text()))
_ID: Final = Parameter(name="key_id", meaning="the token's id", schema=text(pattern=token_text.ID), place=Where.PATH,
                       required=True, refuses=("token_not_found",))
#: Codes of who may hand on, and of what keeps it.
_REFUSALS: Final = ("action_not_allowed", "address_not_allowed", "delegation_unreadable")
_GROUP: Final = "Handing rights on"
_SHELL: Final = 'curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8420/v1/tokens'
MAKING: Final = Description(
    operation_id="makeToken", group=_GROUP, summary="Make a token for a part of one's own rights",
    text="This needs the right `delegate`. At each request the token's rights are cut to those that its maker has then."
    " It ends with its maker, at its time, or when it is deleted. Rights are handed on"
    f" {MAX_HANDED_ON} times at most, and {MOST_BELOW:,} tokens live below one identity at most."
    " [access.md](access.md) has what each key means.",
    body=Content(schema=WISH, refuses=(*BODY_REFUSALS, "bad_grant")), outcomes={
        201: Outcome(meaning="It is made.", content=Content(schema=NEW_TOKEN), headers=(LOCATION,), leads=(
            Leads(operation_id="getToken", given={"key_id": "$response.body#/id"}),
            Leads(operation_id="endToken", given={"key_id": "$response.body#/id"})))},
    refuses=(*_REFUSALS, "bad_query", "delegation_too_deep", "too_many_tokens"),
    example=f"""{_SHELL} -H 'Content-Type: application/json' \\
     -d '{{"may": ["upload"], "paths": ["/srv/report.pdf"], "max_uploads": 1, "expires_s": 3600}}'""")
LISTING: Final = Description(
    operation_id="listTokens", group=_GROUP, summary="A page of the tokens below oneself", parameters=_PAGE_PARAMETERS,
    outcomes={200: Outcome(meaning="Those that live.", content=Content(schema=TOKEN_PAGE))},
    refuses=(*_REFUSALS, "too_busy"), example=_SHELL)
SHOWING: Final = Description(
    operation_id="getToken", group=_GROUP, summary="One of them", parameters=(_ID,), outcomes={
        200: Outcome(meaning="It lives.", content=Content(schema=TOKEN))},
    refuses=(*_REFUSALS, "bad_query"), example=f"{_SHELL}/$ID")
ENDING: Final = Description(
    operation_id="endToken", group=_GROUP, summary="End one of them, and all that was handed on under it",
    parameters=(_ID,), outcomes={204: Outcome(meaning="It has ended.")}, refuses=(*_REFUSALS, "bad_query"),
    example=_SHELL.replace("curl", "curl -X DELETE") + "/$ID")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWish:
    """What somebody wants to hand on."""

    grant: Grant
    #: Seconds since the epoch.
    expires_at: float
    label: str = ""


class TokenRoutes:
    """What the addresses of tokens do."""

    def __init__(self, live: LiveConfig, store: HandOn, threads: Executor) -> None:
        self._live = live
        self._store = store
        self._threads = threads

    def routes(self, pages: Shares, audit: Audit) -> list[Route]:
        """The addresses; `pages` has the pages that wait to be read in all API processes."""
        all_tokens = Endpoint({"GET": LISTING.by(self.get_page), "POST": MAKING.by(self.post)}, audit=audit)
        one = Endpoint({"GET": SHOWING.by(self.get_one), "DELETE": ENDING.by(self.delete)}, audit=audit)
        return [
            Route(f"{ADDRESS}/{{key_id}}", one),
            # Who is slow to send keeps nobody from a page.
            Route(ADDRESS, Few(all_tokens, pages), methods=["GET"]),
            Route(ADDRESS, all_tokens),
        ]

    async def post(self, scope: Scope, receive: Receive) -> Answer:
        """POST /v1/tokens: hand a part of one's rights on."""
        caller = caller_in(scope)
        read_query(scope["query_string"], _NO_PARAMETERS)
        _require_delegate(caller)
        body = await read_body(scope, receive, self._live.pace())
        return await joined(self._threads.submit(self._make, caller, body))

    def _make(self, caller: Caller, body: bytes) -> Answer:
        now = time.time()
        wish = read_wish(body, now)
        if (code := hand_on_refusal(caller, wish.grant)) is not None:
            raise Rejected(code)
        made = token_text.make()
        # It ends with the one above it in any case: so it is told so.
        expires_at = wish.expires_at if caller.expires_at is None else min(wish.expires_at, caller.expires_at)
        child = Child(key_id=made.key_id, sha256=made.sha256, root=caller.root, parent=caller.name, grant=wish.grant,
                      made_at=now, expires_at=expires_at, label=wish.label, made_from=caller.address)
        self._store.put(child, now=now)
        log("access.token_made", name=child.name, by=caller.name, address=caller.address)
        return json_answer(201, {**describe_token(child), "token": made.text}, _NO_STORE,
                           ("Location", f"{ADDRESS}/{child.key_id}"))

    async def get_page(self, scope: Scope, receive: Receive) -> Answer:
        """GET a page of those below the caller."""
        caller = caller_in(scope)
        _require_delegate(caller)
        parameters = read_query(scope["query_string"], names(_PAGE_PARAMETERS))
        return await joined(self._threads.submit(self._page, caller, parameters))

    def _page(self, caller: Caller, parameters: Mapping[str, str]) -> Answer:
        limit, after = _LIMIT.read(parameters), parameters.get("after", "")
        if after and not (is_below(after, caller.name) and is_plain(after)):
            raise Rejected("bad_query", "`after` is not the name of a token of yours.")
        found = self._store.below(caller.name, after=after, limit=limit, now=time.time())
        return json_answer(200, describe_tokens(found, limit), _NO_STORE)

    async def get_one(self, scope: Scope, receive: Receive) -> Answer:
        """GET one of them."""
        caller = caller_in(scope)
        _require_delegate(caller)
        read_query(scope["query_string"], _NO_PARAMETERS)
        child = await joined(self._threads.submit(self._find, caller, scope["path_params"]["key_id"]))
        return json_answer(200, describe_token(child), _NO_STORE)

    async def delete(self, scope: Scope, receive: Receive) -> Answer:
        """DELETE one of them, and so all below it."""
        caller = caller_in(scope)
        _require_delegate(caller)
        read_query(scope["query_string"], _NO_PARAMETERS)
        return await joined(self._threads.submit(self._end, caller, scope["path_params"]["key_id"]))

    def _end(self, caller: Caller, key_id: str) -> Answer:
        child = self._find(caller, key_id)
        ended = self._store.revoke(child.name)
        log("access.token_ended", name=child.name, by=caller.name, address=caller.address, tokens=ended)
        return NOTHING

    def _find(self, caller: Caller, key_id: str) -> Child:
        """The living token of that id below the caller. Raises Rejected."""
        child = self._store.find_below(caller.name, key_id, now=time.time())
        if child is None:
            raise Rejected("token_not_found")
        return child


def read_wish(body: bytes, now: float) -> TokenWish:
    """What a body asks for. Raises Rejected('bad_json' or 'bad_grant')."""
    given = read_object(body)
    expiry = {key: given.pop(key) for key in _EXPIRY if key in given}
    label = given.pop("label", "")
    try:
        unknown = given.keys() - KEYS.keys()
        if unknown:
            raise ValueError(f"{min(unknown)}: there is no such key")
        return TokenWish(grant=_grant(given), expires_at=_expiry(expiry, now), label=_label(label))
    except ValueError as error:
        raise Rejected("bad_grant", f"{printable(str(error), _DETAIL_LENGTH)}.") from error


def _grant(given: Mapping[str, object]) -> Grant:
    grant = Grant.read(given)
    if sum(map(len, grant.paths or ())) > MAX_PATHS:
        raise ValueError(f"paths: together they have more than {MAX_PATHS} characters")
    return grant


def _expiry(given: Mapping[str, object], now: float) -> float:
    if len(given) != 1:
        raise ValueError("expires_s, expires_at: one of the two is needed")
    [(key, value)] = given.items()
    left_s = value if key == "expires_s" else _time(value) - now
    if not isinstance(left_s, int | float) or isinstance(left_s, bool) or not 1 <= left_s <= MAX_LIFETIME_S:
        raise ValueError(f"{key}: must be in the future, by 1 to {MAX_LIFETIME_S} seconds")
    return now + left_s


def _time(value: object) -> float:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ValueError("expires_at: must be a time with its zone, for example 2030-01-31T12:00:00Z")
    return found.timestamp()


def _label(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_LABEL or not is_plain(value):
        raise ValueError(f"label: must be a text of at most {MAX_LABEL} characters that can be shown")
    return value


def _require_delegate(caller: Caller) -> None:
    code = decide(caller, Permission.DELEGATE)
    if code is not None:
        raise Rejected(code)


def describe_token(child: Child) -> dict[str, Any]:
    """A token for those above it, without its secret. Times are RFC 3339, in UTC."""
    return {
        "id": child.key_id, "name": child.name, "parent": child.parent, "label": child.label,
        "rights": child.grant.plain(), "made_at": when(child.made_at), "made_from": child.made_from,
        "expires_at": when(child.expires_at), "used": {"uploads": child.used_uploads, "bytes": child.used_bytes},
    }


def describe_tokens(found: Sequence[Child], limit: int) -> dict[str, Any]:
    """A page of tokens, with the address of the next one if there may be one."""
    more = len(found) == limit
    following = f"{ADDRESS}?{urlencode({'limit': limit, 'after': found[-1].name})}" if more else None
    return {"tokens": [describe_token(child) for child in found], "next": following}
