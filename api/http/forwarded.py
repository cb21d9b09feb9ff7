"""What a proxy says of the client that it speaks for, and whether its word counts. Pure functions of a request's head.

Guarantees: nobody but a trusted proxy says who a client is or where it comes from. Every local user comes from loopback
and from this machine's own addresses, so no proxy is trusted there: a Unix socket tells one user from another. What is
said in these headers is read here and nowhere else; the rest of the service never sees them, whoever sent them, also
not written with `_`, which some take for `-`.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from api.http.peers import IpAddress, Via, plain_address
from daemon.access.peers import HIDDEN_ID, uid_of
from daemon.config import Proxy
from daemon.errors import Rejected
from daemon.model.text import is_plain

Header = tuple[bytes, bytes]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: RFC 7239. It is removed like the others, and not read.
_STANDARD: Final = b"forwarded"
_PREFIX: Final = b"x-forwarded-"
_FOR: Final = b"x-forwarded-for"
_PROTO: Final = b"x-forwarded-proto"
_HOST: Final = b"x-forwarded-host"
_SCHEMES: Final = frozenset({"http", "https"})
#: Longest name of a user.
_MAX_NAME: Final = 255
_USER: Final = "user:"
#: Names of headers of which it is remembered whose they are: every request has the same few.
_REMEMBERED: Final = 256


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """Whose word counts, and in which header it names a user."""

    networks: tuple[Network, ...]
    uids: frozenset[int]
    user_header: bytes


class Forwarded(NamedTuple):
    """What is known of the client of a request, whether a proxy speaks for it or not."""

    #: Where the request comes from; None when that is a Unix socket.
    address: str | None
    #: True when a trusted proxy passed it on. What follows is what that says, and None where it says nothing.
    trusted: bool = False
    user: str | None = None
    scheme: str | None = None
    host: str | None = None


def trusted_proxies(proxy: Proxy) -> TrustedProxies:
    """The configured proxies. Asks the machine's database of users; one that it does not know is nobody."""
    users = [text.removeprefix(_USER) for text in proxy.trusted if text.startswith(_USER)]
    networks = [ipaddress.ip_network(text) for text in proxy.trusted if not text.startswith(_USER)]
    uids = {uid for uid in map(uid_of, users) if uid is not None}
    # Whom the kernel hides may be anybody.
    return TrustedProxies(tuple(networks), frozenset(uids - {HIDDEN_ID}), proxy.user_header.encode("ascii"))


def read_forwarded(
    headers: Iterable[Header], via: Via, proxies: TrustedProxies,
) -> tuple[Forwarded, list[Header]]:
    """What is known of the client, and the headers without those of proxies. Raises Rejected('bad_forwarded')."""
    kept: list[Header] = []
    said: dict[bytes, list[bytes]] = {}
    for header in headers:
        if _is_proxys(header[0], proxies.user_header):
            said.setdefault(header[0].lower(), []).append(header[1])
        else:
            kept.append(header)
    if not _is_trusted(via, proxies):
        return Forwarded(via.address), kept
    scheme = _last(said.get(_PROTO, ())).lower()
    return Forwarded(
        address=_client_address(_entries(said.get(_FOR, ())), via, proxies), trusted=True,
        user=_user(said.get(proxies.user_header)), scheme=scheme if scheme in _SCHEMES else None,
        host=_last(said.get(_HOST, ())) or None), kept


@lru_cache(_REMEMBERED)
def _is_proxys(name: bytes, user_header: bytes) -> bool:
    plain = name.lower().replace(b"_", b"-")
    return plain.startswith(_PREFIX) or plain in {_STANDARD, user_header}


def _is_trusted(via: Via, proxies: TrustedProxies) -> bool:
    if via.address is None:
        return via.credentials is not None and via.credentials.uid in proxies.uids
    return bool(proxies.networks) and not via.is_local and _is_listed(plain_address(via.address), proxies)


def _is_listed(address: IpAddress, proxies: TrustedProxies) -> bool:
    return not address.is_loopback and any(address in network for network in proxies.networks)


def _client_address(entries: list[str], via: Via, proxies: TrustedProxies) -> str | None:
    """The last one that is no trusted proxy: whatever stands before it, the client may have written itself."""
    for text in reversed(entries):
        try:
            address = plain_address(text)
        except ValueError:
            break
        if not _is_listed(address, proxies):
            return str(address)
    return via.address


def _user(values: list[bytes] | None) -> str | None:
    if values is None:
        return None
    try:
        [name] = [value.decode("utf-8") for value in values]
    except ValueError as error:
        raise Rejected("bad_forwarded") from error
    if not 0 < len(name) <= _MAX_NAME or "," in name or not is_plain(name) or name != name.strip():
        raise Rejected("bad_forwarded")
    return name


def _entries(values: Iterable[bytes]) -> list[str]:
    return [entry.strip() for value in values for entry in value.decode("latin-1").split(",")]


def _last(values: Iterable[bytes]) -> str:
    """What the nearest proxy has added."""
    return (_entries(values) or [""])[-1]
