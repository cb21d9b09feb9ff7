"""Who may speak at a door that everyone on the machine reaches: no web page of another origin.

A browser runs other people's programs. A page of theirs that sends a request here says so in `Origin` or
`Sec-Fetch-Site`; one that comes by DNS rebinding, where a name of theirs was made to lead to this machine, is
of this site as far as the browser knows, and only the name in `Host` tells. No page can change these headers.
Programs, which come in their user's name, may use any host. Pure functions of what a request announces.
Sources: RFC 9110, 7.4; RFC 6454; Fetch Metadata (W3C).
"""

import ipaddress
import re
from collections.abc import Collection, Iterable
from typing import Final

from api.http.parameters import Headers
from daemon.errors import Rejected
from daemon.model.names import printable

_AUTHORITY: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]*))?")
_ORIGIN: Final = re.compile(r"(https?)://(.+)", re.IGNORECASE)
#: The ports that addresses leave out (RFC 9110, 4.2).
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
#: What a browser says of a request that no page of another origin made (Fetch Metadata, 2.3).
_OWN_SITES: Final = frozenset({b"same-origin", b"none"})
_LOCALHOST: Final = "localhost"


def from_browser(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """True when a browser may have sent it: what a page uploads has an `Origin`, all else the browser's name."""
    return any(name == b"origin" or name.startswith(b"sec-fetch-") or (name == b"user-agent" and b"Mozilla/" in value)
               for name, value in headers)


def check(headers: Headers, authority: bytes | None, names: Collection[str]) -> None:
    """Raise Rejected('unknown_host') or Rejected('cross_site') unless the request may come from this site.

    `authority` is that of an absolute target; it counts instead of the Host header. `names` are the host names of
    this service besides `localhost`, in small letters. A request without a host is no browser's.
    """
    given = authority if authority is not None else next(iter(headers.get(b"host", ())), None)
    shown = None if given is None else given.decode("latin-1")
    if shown is not None and not _is_ours(_host_of(shown), names):
        raise Rejected("unknown_host", f"{printable(shown)!r} is not a name of this service.")
    for origin in headers.get(b"origin", ()):
        _check_origin(origin.decode("latin-1"), shown)
    if not {site.lower() for site in headers.get(b"sec-fetch-site", ())} <= _OWN_SITES:
        raise Rejected("cross_site")


def _check_origin(origin: str, host: str | None) -> None:
    """Refuse a page of another host or port. The scheme is known only to a proxy that ends TLS."""
    found = _ORIGIN.fullmatch(origin)
    default_port = _DEFAULT_PORTS[found[1].lower()] if found else ""
    if found is None or host is None or _place(found[2], default_port) != _place(host, default_port):
        raise Rejected("cross_site", f"The request comes from a page of {printable(origin)!r}.")


def _place(authority: str, default_port: str) -> tuple[str, str] | None:
    """Host and port, as they are compared; None when they cannot be read."""
    found = _AUTHORITY.fullmatch(authority)
    return (found[1].lower(), found[2] or default_port) if found else None


def _host_of(authority: str) -> str | None:
    """The host of `host:port`, as it is compared; None when it cannot be read."""
    place = _place(authority, "")
    return place[0] if place else None


def _is_ours(host: str | None, names: Collection[str]) -> bool:
    if not host:
        return False
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
