"""The session of a browser, in a real process."""

import http.client
import json
from collections.abc import Callable

from tests.integration.api.running import Api
from tests.support.client import Client
from tests.support.tokens import make_token, revoke_token
from tests.support.waiting import PATIENCE_S

OWN = {"Sec-Fetch-Site": "same-origin"}


def test_session_is_its_token_and_ends_with_it(start: Callable[..., Api]) -> None:
    """It may what the token may, from pages of this service alone; a revoked token is signed out, and its stream ends."""
    api = start(api={"cors_origins": ["https://app.example"]})
    token = make_token(api.file, "ada", may=["read"])
    api.logged("tokens.reloaded")
    client = Client(f"127.0.0.1:{api.port}")

    def status(method: str, target: str, **headers: str) -> int:
        answer = client.request(method, target, None, {name.replace("_", "-"): value for name, value in headers.items()})
        assert answer is not None
        return answer.status

    signed_in = client.request("POST", "/ui/session", json.dumps({"token": token}).encode(), OWN)
    assert signed_in is not None
    cookie = signed_in.headers["set-cookie"].partition(";")[0]
    assert [status("GET", "/v1/tasks", Cookie=cookie, Sec_Fetch_Site=site) for site in ("same-origin", "none")] == [200, 401]
    assert status("GET", "/v1/tasks", Cookie=cookie, Sec_Fetch_Site="cross-site") == 403
    # A page that may send here shows what it has, and no cookie.
    assert status("GET", "/v1/tasks", Cookie=cookie, Origin="https://app.example", Sec_Fetch_Site="same-origin") == 401
    assert status("PUT", "/v1/instances/c1/files/a", Cookie=cookie, **{"Sec-Fetch-Site": "same-origin"}) == 403
    assert status("GET", "/v1/tasks", Cookie=cookie, Authorization="Bearer x", Sec_Fetch_Site="same-origin") == 401

    following = http.client.HTTPConnection("127.0.0.1", api.port, timeout=PATIENCE_S)
    following.request("GET", "/v1/events", headers={"Cookie": cookie, **OWN})
    stream = following.getresponse()
    assert stream.status == 200
    revoke_token(api.file, "ada")
    stream.read()
    following.close()
    assert status("GET", "/v1/tasks", Cookie=cookie, Sec_Fetch_Site="same-origin") == 401
    assert status("GET", "/ui/") == 200
