import pytest

from api.access.evidence import evidence_of
from api.access.session import beginning, ending, is_same_origin, session_token
from api.http.forwarded import Forwarded
from api.http.peers import Via
from api.http.response import DOOR, FORWARDED, VIA

COOKIE = (b"cookie", b"theme=dark; incus-courier-session=abc; other=incus-courier-session=x")
OWN = (b"sec-fetch-site", b"same-origin")


@pytest.mark.parametrize(("method", "headers", "token"), [
    ("GET", [OWN], b"abc"),
    ("POST", [OWN], b"abc"),
    # Its user opens an address, or a link outside of any page.
    ("GET", [(b"sec-fetch-site", b"none"), (b"sec-fetch-mode", b"navigate")], b"abc"),
    ("GET", [(b"sec-fetch-site", b"none"), (b"sec-fetch-mode", b"cors")], None),
    ("POST", [(b"sec-fetch-site", b"none"), (b"sec-fetch-mode", b"navigate")], None),
    # Another port of this host, and another site.
    ("GET", [(b"sec-fetch-site", b"same-site"), (b"sec-fetch-mode", b"navigate")], None),
    ("GET", [(b"sec-fetch-site", b"cross-site")], None),
    ("GET", [OWN, OWN], None),
    # Plain HTTP from another machine: the way in has looked at the origin.
    ("GET", [], b"abc"),
    ("POST", [(b"origin", b"http://here:80")], b"abc"),
    ("DELETE", [], None),
])
def test_cookie_counts_for_requests_of_this_services_own_pages(
    method: str, headers: list[tuple[bytes, bytes]], token: bytes | None,
) -> None:
    """Whatever another page makes a browser send, the session has no part in it."""
    assert session_token(method, [COOKIE, *headers]) == token
    assert is_same_origin(method, headers) == (token is not None)


def test_two_sessions_are_none() -> None:
    """A page of another port can set a second cookie of that name: nobody is taken for somebody else by it."""
    assert session_token("GET", [COOKIE, OWN, (b"cookie", b"incus-courier-session=xyz")]) is None
    assert session_token("GET", [COOKIE, OWN, COOKIE]) == b"abc"
    assert session_token("GET", [OWN, (b"cookie", b"xincus-courier-session=abc")]) is None


def test_what_a_request_shows_openly_counts_before_its_session() -> None:
    """An Authorization header wins over the cookie, so that programs in a browser are who they say."""
    def authorization(*headers: tuple[bytes, bytes]) -> list[bytes]:
        state = {DOOR: None, VIA: Via("127.0.0.1"), FORWARDED: Forwarded("127.0.0.1")}
        return list(evidence_of({"method": "GET", "headers": list(headers), "state": state}).authorization)

    assert authorization(COOKIE, OWN) == [b"Bearer abc"]
    assert authorization(COOKIE, OWN, (b"authorization", b"Bearer other")) == [b"Bearer other"]
    assert authorization(COOKIE) == [b"Bearer abc"]
    assert authorization(OWN) == []


def test_cookie_is_out_of_reach_of_scripts_and_of_other_sites() -> None:
    """It is HttpOnly and SameSite=Strict, and over TLS it is Secure; signing out ends it at once."""
    assert beginning("abc", secure=False) == "incus-courier-session=abc; Path=/; HttpOnly; SameSite=Strict"
    assert beginning("abc", secure=True).endswith("; SameSite=Strict; Secure")
    assert ending(secure=True) == "incus-courier-session=; Path=/; HttpOnly; SameSite=Strict; Secure; Max-Age=0"
