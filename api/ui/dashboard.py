"""The addresses of the dashboard: its page, its files, and signing in and out. They are there while `[api] ui` says so.

Guarantees: they answer everybody, for they hold nothing that is not in the package; what the page shows, it asks at the
addresses of everybody, as whoever is signed in. No page of another site signs anybody in or out.
"""

from collections.abc import Mapping
from typing import Final

from api.access.evidence import evidence_of
from api.access.identify import Doorkeeper
from api.access.session import beginning, ending, is_same_origin
from api.http.problem import problem
from api.http.refusal_log import RefusalLog
from api.http.response import DOOR, FORWARDED, NOTHING, TEXT, Answer, Receive, Scope, Send, send_answer, unless_known
from api.live_config import LiveConfig
from api.routes.endpoint import Endpoint
from api.routes.entrance import UI, is_ui, tell_refused
from api.routes.json_body import read_body, read_object
from api.ui.files import StaticFiles
from daemon.errors import CourierError, Rejected

#: Where the files are that a browser may keep for good.
STATIC: Final = f"{UI}static/"
#: Where a session begins and ends.
SESSION: Final = f"{UI}session"
#: Nothing from elsewhere, nothing in the page itself, and the page in no other one.
CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'")
#: What each answer has.
_HEADERS: Final = (
    ("Content-Security-Policy", CSP), ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"), ("Cross-Origin-Resource-Policy", "same-origin"))
#: Its name has its digest: what is in it never changes.
_FOR_GOOD: Final = ("Cache-Control", "public, max-age=31536000, immutable")
_ASK_EACH_TIME: Final = ("Cache-Control", "no-cache")
_NO_STORE: Final = ("Cache-Control", "no-store")
_TOKEN: Final = "token"


class Dashboard:
    """What is at the addresses that no others have."""

    def __init__(self, live: LiveConfig, doorkeeper: Doorkeeper, refusals: RefusalLog) -> None:
        self._live = live
        self._doorkeeper = doorkeeper
        self._refusals = refusals
        self._files = StaticFiles.read(STATIC)
        self._to_page = Endpoint({"GET": self._redirect}, _refuse)
        self._static = Endpoint({"GET": self._get_file}, _refuse)
        self._session = Endpoint({"POST": self._sign_in, "DELETE": self._sign_out}, _refuse)
        self._page = Endpoint({"GET": self._get_page}, _refuse)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request to an address that is nobody else's."""
        if not is_ui(scope, self._live.config.api):
            await send_answer(send, problem(Rejected("not_found")))
            return
        await self._endpoint(scope["path"])(scope, receive, send)

    def _endpoint(self, path: str) -> Endpoint:
        if not path.startswith(UI):
            return self._to_page
        if path.startswith(STATIC):
            return self._static
        return self._session if path == SESSION else self._page

    async def _redirect(self, scope: Scope, receive: Receive) -> Answer:
        return Answer(302, TEXT, b"", (("Location", UI), _NO_STORE, *_HEADERS))

    async def _get_page(self, scope: Scope, receive: Receive) -> Answer:
        """The page, wherever in it somebody wants to be: it reads that from the address by itself."""
        page = self._files.page
        return unless_known(
            scope, self._files.page_tag, Answer(200, page.media_type, page.body, (_ASK_EACH_TIME, *_HEADERS)))

    async def _get_file(self, scope: Scope, receive: Receive) -> Answer:
        folder, _, name = scope["path"].removeprefix(STATIC).partition("/")
        file = self._files.others.get(name) if folder == self._files.folder else None
        if file is None:
            raise Rejected("not_found")
        return Answer(200, file.media_type, file.body, (_FOR_GOOD, *_HEADERS))

    async def _sign_in(self, scope: Scope, receive: Receive) -> Answer:
        """POST {"token": ...}: begin a session, if the token is somebody's."""
        _require_same_origin(scope)
        token = _read_token(read_object(await read_body(scope, receive, self._live.pace())))
        shown = [b"Bearer " + token.encode("ascii", "replace")]
        try:
            await self._doorkeeper.identify(evidence_of(scope)._replace(authorization=shown))
        except Rejected as error:
            tell_refused(self._refusals, scope, error.code)
            raise
        return NOTHING.plus(("Set-Cookie", beginning(token, secure=_is_secure(scope))), _NO_STORE, *_HEADERS)

    async def _sign_out(self, scope: Scope, receive: Receive) -> Answer:
        """DELETE: end the session, if there is one."""
        _require_same_origin(scope)
        return NOTHING.plus(("Set-Cookie", ending(secure=_is_secure(scope))), _NO_STORE, *_HEADERS)


def _read_token(given: Mapping[str, object]) -> str:
    token = given.get(_TOKEN)
    if given.keys() != {_TOKEN} or not isinstance(token, str):
        raise Rejected("bad_json", f"The body has the key `{_TOKEN}`, a text, and no other.")
    return token.strip()


def _require_same_origin(scope: Scope) -> None:
    if not is_same_origin(scope["method"], scope["headers"]):
        raise Rejected("cross_site", "Only a page of this service begins and ends sessions.")


def _is_secure(scope: Scope) -> bool:
    """True where the browser speaks TLS, with us or with a trusted proxy."""
    state = scope["state"]
    return bool(state[DOOR].tls or state[FORWARDED].scheme == "https")


def _refuse(error: CourierError) -> Answer:
    return problem(error).plus(_NO_STORE, *_HEADERS)
