"""Who asks, as the service knows him, and what he may do: so that nothing is offered to him that would be refused."""

from typing import Any, Final

from api.http.description import Content, Description, Outcome
from api.http.parameters import read_query
from api.http.response import Answer, Receive, Scope, json_answer
from api.queries.sight import Sight
from api.routes.endpoint import Audit, Endpoint, Route, caller_in
from daemon.access.caller import Caller
from daemon.access.decide import decide, own_alone
from daemon.errors import Rejected
from daemon.model.grant import MEANINGS, SCHEMAS, Permission
from daemon.model.schema import TIME, YES_OR_NO, answer, many, one_of, or_null, saying, text
from daemon.model.upload import LOCAL
from daemon.model.view import when_or_none

#: Where it is found.
ADDRESS: Final = "/v1/me"
_NO_PARAMETERS: Final[frozenset[str]] = frozenset()
#: How the names of identities begin, and what each of them is.
_KINDS: Final = {"token": "token", "cert": "certificate", "peer": "peer", LOCAL.rstrip(":"): "peer", "user": "user"}
_ANONYMOUS: Final = "anonymous"
#: What a grant is bounded by that is told.
_BOUNDS: Final = ("instances", "projects", "remotes", "paths")
#: Limits of a grant that are told to who is about to send.
_LIMITS: Final = ("max_file_bytes", "max_uploads", "max_total_bytes")

#: What `describe_me` makes.
ME: Final = answer("Me", {
    "name": or_null(text("as tasks have it in `client`")),
    "anonymous": saying(YES_OR_NO, "whether no credential was shown"),
    "kind": one_of([*dict.fromkeys(_KINDS.values()), _ANONYMOUS], "what was shown"),
    "may": many(one_of(Permission)),
    **{key: or_null(saying(SCHEMAS[key], "globs; null: all of them. Who handed the rights on may be bounded further"))
       for key in _BOUNDS},
    **{key: or_null(saying(SCHEMAS[key], f"{MEANINGS[key]}; null: no limit")) for key in _LIMITS},
    "own": saying(YES_OR_NO, "whether only tasks that he sent himself are his affair"),
    "sees_all": saying(YES_OR_NO, "whether no task is hidden, so that he is told of the whole"),
    "expires_at": or_null(saying(TIME, "when what was shown ends, as far as that is known")),
})
SHOWING: Final = Description(
    operation_id="getMe", group="Who may do what", summary="See as whom one is known, and what one may do",
    text="[access.md](access.md) has what each right means.",
    outcomes={200: Outcome(meaning="As it is now.", content=Content(schema=ME))},
    refuses=("bad_query", "action_not_allowed", "address_not_allowed"),
    example=f'curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8420{ADDRESS}')


def routes(audit: Audit) -> list[Route]:
    """The address."""
    return [Route(ADDRESS, Endpoint({"GET": SHOWING.by(get_me)}, audit=audit))]


async def get_me(scope: Scope, receive: Receive) -> Answer:
    """GET /v1/me."""
    read_query(scope["query_string"], _NO_PARAMETERS)
    caller = caller_in(scope)
    # Whoever may do something may know it, from where he may do it.
    refusals = [decide(caller, permission) for permission in Permission]
    if None not in refusals:
        raise Rejected(next((code for code in refusals if code != "action_not_allowed"), None) or "action_not_allowed")
    return json_answer(200, describe_me(caller))


def describe_me(caller: Caller) -> dict[str, Any]:
    """A caller, for himself. Pure."""
    kind = _ANONYMOUS if caller.client is None else _KINDS[caller.name.partition(":")[0]]
    return {
        "name": caller.client, "anonymous": caller.client is None, "kind": kind,
        "may": [permission for permission in Permission if decide(caller, permission) is None],
        **{key: _bound(caller, key) for key in _BOUNDS},
        **{key: _limit(caller, key) for key in _LIMITS}, "own": own_alone(caller), "sees_all": Sight(caller).of_all,
        "expires_at": when_or_none(caller.expires_at),
    }


def _bound(caller: Caller, key: str) -> list[str] | None:
    """The globs of the first of his grants that has some: what was handed on is seldom wider than what it is of."""
    found = (getattr(link.grant, key) for link in caller.links)
    return next((list(globs) for globs in found if globs is not None), None)


def _limit(caller: Caller, key: str) -> int | None:
    """The lowest limit of those who allow it, each of whom bounds him."""
    return min((limit for link in caller.links if (limit := getattr(link.grant, key)) is not None), default=None)
