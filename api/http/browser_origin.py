"""Who may speak at a listener: no web page of another origin, unless it was named.

A browser runs other people's programs. A page of theirs that sends a request here says so in `Origin` or
`Sec-Fetch-Site`; one that comes by DNS rebinding, where a name of theirs was made to lead to this machine, is
of this site as far as the browser knows, and only the name in `Host` tells. No page can change these headers.
A site is a scheme, a host and a port: pages of other ports may be another user's, and cookies do not tell ports apart.
Programs, which come in their user's name, may use any host. Pure functions of what a request announces.
The configuration may name other sites whose pages are let in; what they are told is in `api.http.cors`.
Sources: RFC 9110, 7.4; RFC 6454; Fetch Metadata (W3C).
"""

import ipaddress
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from api.http.parameters import Headers
from daemon.errors import Rejected
from daemon.model.names import printable

_AUTHORITY: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{0,5}))?")
_ORIGIN: Final = re.compile(r"(https?)://(.+)", re.IGNORECASE)
#: The ports that addresses leave out (RFC 9110, 4.2).
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
#: What a browser says of a request that no page of another origin made (Fetch Metadata, 2.3).
_OWN_SITES: Final = frozenset({b"same-origin", b"none"})
_LOCALHOST: Final = "localhost"
#: What programs have no use for, and what such names begin with: client hints, and questions whether a page may send
#: something.
_BROWSER_FIELDS: Final = frozenset({b"origin", b"cookie", b"referer", b"upgrade-insecure-requests"})
_BROWSER_PREFIXES: Final = (b"sec-fetch-", b"sec-ch-", b"access-control-request-")
#: Names of headers of which it is remembered whether only browsers have them: every request has the same few.
_REMEMBERED: Final = 256
#: What every browser's name has in it.
_BROWSER_NAMES: Final = (b"Mozilla/", b"Opera/")


class Site(NamedTuple):
    """Where a page can be from."""

    scheme: str
    host: str
    #: None at a Unix socket: no page is from there.
    port: int | None


@dataclass(frozen=True, slots=True)
class Sites:
    """What this service is to a browser that comes by one listener: that listener, and what is said to lead there."""

    scheme: str
    #: None at a Unix socket.
    port: int | None
    #: Host names of the listener besides `localhost`, in small letters.
    names: Collection[str]
    #: Further sites, as browsers name them.
    origins: Collection[str]
    #: Sites of others whose pages may send here.
    strangers: Collection[str] = ()


def from_browser(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """True when a browser may have sent it: what a page uploads has an `Origin`, all else the browser's name."""
    for name, value in headers:
        if _is_browsers(name) or (name == b"user-agent" and any(known in value for known in _BROWSER_NAMES)):
            return True
    return False


@lru_cache(_REMEMBERED)
def _is_browsers(name: bytes) -> bool:
    return name in _BROWSER_FIELDS or name.startswith(_BROWSER_PREFIXES)


def check(headers: Headers, authority: str | None, sites: Sites, scheme: str | None = None) -> None:
    """Raise Rejected('unknown_host') or Rejected('cross_site') unless the request may come from one of `sites`.

    `authority` counts instead of the Host header: that of an absolute target, or what a trusted proxy was asked for.
    `scheme` is that of the target, or what the proxy was spoken to by; None: the listener's, or that of an origin. A
    request without a host is no browser's.
    """
    host = next(iter(headers.get(b"host", ())), None)
    shown = authority if authority is not None or host is None else host.decode("latin-1")
    asked = set() if shown is None else _asked_for(shown, sites, scheme)
    if shown is not None and not asked:
        raise Rejected("unknown_host", f"{printable(shown)!r} is not a name of this service.")
    if allowed_page(headers, sites.strangers) is not None:
        return
    for raw in headers.get(b"origin", ()):
        origin = raw.decode("latin-1")
        if _read_origin(origin) not in asked:
            raise Rejected("cross_site", f"The request comes from a page of {printable(origin)!r}.")
    if not {site.lower() for site in headers.get(b"sec-fetch-site", ())} <= _OWN_SITES:
        raise Rejected("cross_site")


def allowed_page(headers: Headers, strangers: Collection[str]) -> bytes | None:
    """The site, as the browser wrote it, whose page has sent this, when it is one of `strangers`; else None."""
    match headers.get(b"origin", []):
        case [origin] if strangers:
            site = _read_origin(origin.decode("latin-1"))
            return origin if site is not None and site in map(_read_origin, strangers) else None
    return None


def _asked_for(authority: str, sites: Sites, scheme: str | None) -> set[Site]:
    """The sites among ours that `authority` can mean: several, when it leaves a port out whose scheme nobody knows."""
    further = {site for site in map(_read_origin, sites.origins)
               if site is not None and scheme in {None, site.scheme} and site == _read_site(site.scheme, authority)}
    own = _read_site(sites.scheme, authority)
    if own is None or scheme not in {None, sites.scheme} or not _is_ours(own.host, sites.names):
        return further
    if sites.port is None:
        return further | {own._replace(port=None)}
    return further | {own} if own.port == sites.port else further


def _read_origin(origin: str) -> Site | None:
    found = _ORIGIN.fullmatch(origin)
    return _read_site(found[1].lower(), found[2]) if found else None


def _read_site(scheme: str, authority: str) -> Site | None:
    """The site at `authority`, as it is compared; None when that cannot be read."""
    found = _AUTHORITY.fullmatch(authority)
    return Site(scheme, _plain(found[1].lower()), int(found[2] or _DEFAULT_PORTS[scheme])) if found else None


def _plain(host: str) -> str:
    """An IPv6 address as browsers write it; anything else as it is."""
    try:
        return f"[{ipaddress.IPv6Address(host[1:-1])}]" if host.startswith("[") else host
    except ValueError:
        return host


def _is_ours(host: str, names: Collection[str]) -> bool:
    name = host.removesuffix(".")
    return name == _LOCALHOST or name in names or _is_address(host)


def _is_address(host: str) -> bool:
    try:
        if host.startswith("["):
            ipaddress.IPv6Address(host[1:-1])
        else:
            ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True
