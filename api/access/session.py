"""A browser's session: a cookie that has a token, and when it counts. Pure functions of a request's head.

A browser sends a cookie with whatever request it makes, so it counts for those alone that a page of this service has
made. The way in removes it from what pages of other sites send. Sources: Fetch Metadata (W3C); RFC 6265.
"""

from collections.abc import Sequence
from typing import Final

from api.http.parameters import collect

#: The name of the cookie. Its value is the token itself, so it ends with the token.
COOKIE: Final = "incus-courier-session"
_BEGIN: Final = f"{COOKIE}=".encode("ascii")
_READING: Final = frozenset({"GET", "HEAD"})


def session_token(method: str, headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """The token of the session that a request belongs to; None when it belongs to none, or to two."""
    sent = [value for name, value in headers if name == b"cookie"]
    if not sent:
        return None
    shown = {cookie.strip().removeprefix(_BEGIN) for value in sent for cookie in value.split(b";")
             if cookie.strip().startswith(_BEGIN)}
    return shown.pop() if len(shown) == 1 and is_same_origin(method, headers) else None


def is_same_origin(method: str, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """True when a page of this service has sent it, or its user, who wants to see an address.

    The way in has compared an `Origin` with the sites of this service. Over plain HTTP from another machine a browser
    says no `Sec-Fetch-Site`: then what changes anything needs an `Origin`, and no other page can read an answer.
    """
    said = collect(headers)
    match said.get(b"sec-fetch-site", []):
        case [b"same-origin"]:
            return True
        case [b"none"]:
            return method in _READING and said.get(b"sec-fetch-mode") == [b"navigate"]
        case []:
            return b"origin" in said or method in _READING
    return False


def beginning(token: str, *, secure: bool) -> str:
    """The value of `Set-Cookie` that begins a session; `secure` where TLS is spoken."""
    return f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"


def ending(*, secure: bool) -> str:
    """The value of `Set-Cookie` that ends it."""
    return f"{beginning('', secure=secure)}; Max-Age=0"
