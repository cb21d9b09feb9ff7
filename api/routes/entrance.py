"""What every request passes before its address is looked for: what proxies say, browsers, and who asks."""

from functools import partial
from typing import Final

from api.access.evidence import evidence_of
from api.access.identify import NOBODY, Doorkeeper
from api.access.requester import Requester
from api.http.browser_origin import Sites, allowed_page, check, from_browser
from api.http.cors import is_preflight, preflight_answer, telling
from api.http.forwarded import Forwarded, read_forwarded
from api.http.parameters import Headers, collect
from api.http.problem import TUS, refusal
from api.http.refusal_log import RefusalLog
from api.http.request_target import scheme_of, split
from api.http.response import DOOR, FORWARDED, PEER, REQUESTER, VIA, App, Receive, Scope, Send, send_answer
from api.live_config import LiveConfig
from daemon.access.caller import Caller
from daemon.access.token_text import without_secrets
from daemon.config import Api
from daemon.errors import Rejected
from daemon.model.names import printable

#: Whether the process is up: for everybody.
HEALTH: Final = "/healthz"
#: Whether it is ready, for everybody; and why not, for who may know.
READINESS: Final = "/readyz"
#: The description of the service: for everybody.
DESCRIPTION: Final = "/v1/openapi.json"
#: The dashboard: whoever opens it may have yet to sign in.
UI: Final = "/ui/"
_ROOT: Final = "/"
#: Where nobody is asked who he is: what is answered is the same for all.
_FOR_ALL: Final = frozenset({HEALTH, DESCRIPTION})

#: Codes with which any request may be refused before its address is looked at.
ENTRANCE_REFUSALS: Final = (
    "bad_request", "bad_length", "incomplete_body", "unchecked_digest", "bad_forwarded", "cross_site", "unknown_host",
    "long_head", "unknown_coding", "http_version", "too_busy", "internal")
#: Codes of who asks, where that is asked.
CREDENTIAL_REFUSALS: Final = ("no_credential", "bad_credential", "delegation_unreadable")


def entrance(app: App, live: LiveConfig, doorkeeper: Doorkeeper, refusals: RefusalLog) -> App:
    """Hear proxies that may speak for others, refuse pages of other sites, and find out who asks.

    Find the way by the address as it was sent: an encoded slash separates nothing.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        authority, path = split(scope["raw_path"])
        scope["path"] = path.decode("ascii")
        try:
            forwarded, scope["headers"] = read_forwarded(scope["headers"], state[VIA], live.proxies)
            state[FORWARDED] = forwarded
            if from_browser(scope["headers"]):
                headers = collect(scope["headers"])
                page = allowed_page(headers, live.config.api.cors_origins)
                if page is not None:
                    send = telling(send, page)
                    scope["headers"] = [header for header in scope["headers"] if header[0] != b"cookie"]
                _check_browser(scope, headers, authority, forwarded, live.config.api)
                if page is not None and is_preflight(scope["method"], headers):
                    await send_answer(send, preflight_answer())
                    return
        except Rejected as error:
            refusals.log("request.refused", peer=state[PEER], code=error.code, detail=error.detail)
            await send_answer(send, refusal(scope["path"], error, scope["method"]))
            return
        try:
            if not (_is_open(scope["method"], scope["path"]) or is_ui(scope, live.config.api)):
                state[REQUESTER] = await _who(scope, doorkeeper)
        except Rejected as error:
            tell_refused(refusals, scope, error.code)
            await send_answer(send, refusal(scope["path"], error, scope["method"]))
        else:
            await app(scope, receive, send)

    return serve


def tell_refused(
    refusals: RefusalLog, scope: Scope, code: str, caller: Caller | None = None, **about: str,
) -> None:
    """Log that somebody was refused for want of rights, at a bounded rate; without a caller he has none."""
    state = scope["state"]
    client, root = (None, None) if caller is None else (caller.name, caller.root)
    refusals.log("access.refused", peer=state[PEER], code=code, root=root, client=client,
                 address=state[FORWARDED].address, method=scope["method"],
                 target=printable(without_secrets(scope["path"])), **about)


def _is_open(method: str, path: str) -> bool:
    """True for what everybody is answered: whether the process is up, and what is spoken at the addresses of tus."""
    return path in _FOR_ALL or (method == "OPTIONS" and path.startswith(TUS))


def is_ui(scope: Scope, api: Api) -> bool:
    """True for what the dashboard answers; at `/` for who wants to see a page there, and programs notice nothing."""
    path: str = scope["path"]
    if path != _ROOT:
        return api.ui and (path.startswith(UI) or path == UI.removesuffix("/"))
    return api.ui and scope["method"] in {"GET", "HEAD"} and any(
        name == b"accept" and b"text/html" in value for name, value in scope["headers"])


async def _who(scope: Scope, doorkeeper: Doorkeeper) -> Requester:
    again = partial(doorkeeper.identify, evidence_of(scope))
    try:
        return Requester(await again(), again)
    except Rejected:
        # Whether the service is ready is no secret; why it is not, is.
        if scope["path"] == READINESS:
            return Requester(NOBODY, again)
        raise


def _check_browser(
    scope: Scope, headers: Headers, authority: bytes | None, forwarded: Forwarded, api: Api,
) -> None:
    door = scope["state"][DOOR]
    sites = Sites("https" if door.tls else "http", door.port, api.hosts, api.origins, api.cors_origins)
    asked_for = forwarded.host or (None if authority is None else authority.decode("latin-1"))
    check(headers, asked_for, sites, forwarded.scheme or scheme_of(scope["raw_path"]))
