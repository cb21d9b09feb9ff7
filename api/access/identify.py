"""Who sent a request: from what it shows, and from whom the service knows.

Guarantees: a credential that is wrong, expired or revoked never counts as none; a proxy's request never counts as the
proxy's own.
"""

import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from api.access.evidence import Evidence
from daemon.access.authenticate import find_caller, links_of
from daemon.access.caller import Caller, Link, anonymous
from daemon.access.certificates import holder_of
from daemon.access.openness import strangers_may
from daemon.access.peers import KnownPeer, find_peer
from daemon.access.token_file import Tokens
from daemon.access.token_text import TokenText, read
from daemon.config import Config, ProxyUser
from daemon.errors import Rejected
from daemon.model.glob import name_matches
from daemon.model.grant import Grant
from daemon.process.listeners import Door

_BEARER: Final = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9_-]{1,256})")
#: Somebody who may nothing.
NOBODY: Final = Caller(name="nobody", links=(Link("nobody", Grant()),))


@dataclass(frozen=True, slots=True)
class Known:
    """Whom the service knows now."""

    config: Config
    tokens: Tokens
    peers: list[KnownPeer]
    #: True when somebody was given rights once.
    closed: bool

    def lets_in_strangers(self, door: Door, *, proxied: bool = False) -> bool:
        """True when who shows no credential may do everything there; whom a proxy serves is not of this machine."""
        api = self.config.api
        return strangers_may(api.anonymous, closed=self.closed, at_home=door.is_local, proxied=proxied,
                             allow_anonymous=api.allow_anonymous)

    def links_of(self, name: str, now: float) -> tuple[Link, ...] | None:
        """The grants of the one of that name, his own first; None when he has none any more."""
        kind, _, own_name = name.partition(":")
        if kind == "token":
            token = self.tokens.by_name(own_name.rpartition("/")[2])
            links = links_of(self.tokens, token) if token and self.tokens.state(token, now).is_valid else ()
            # Under another one than before it is another one.
            return links if links and links[0].name == name else None
        peers = {peer.name: peer.grant for peer in self.peers}
        grant = peers.get(name) or self._grant_of(kind, own_name)
        return None if grant is None else (Link(name, grant),)

    def _grant_of(self, kind: str, name: str) -> Grant | None:
        if kind == "user":
            return grant_of_user(self.config.users, name)
        certificates = {holder.name: holder.grant for holder in self.config.certificates}
        return certificates.get(name) if kind == "cert" else None


def grant_of_user(users: list[ProxyUser], name: str) -> Grant | None:
    """What a user of the proxy may do: the entry of his name, else the first glob that fits; None: he is not listed."""
    fitting = [user for user in users if user.name == name or name_matches(user.name, name)]
    return min(fitting, key=lambda user: user.name != name).grant if fitting else None


def identify(evidence: Evidence, known: Known, now: float) -> Caller:
    """Who sent it: pure. Raises Rejected('no_credential' or 'bad_credential').

    What was handed on is not looked at: it is in a store.
    """
    address = evidence.address
    if evidence.authorization:
        return _by_token(evidence, known, now)
    if evidence.forwarded.trusted:
        user = evidence.forwarded.user
        return _by_grant(f"user:{user}", grant_of_user(known.config.users, user), address) if user else _stranger(
            evidence, known)
    if evidence.certificate is not None:
        ended = evidence.certificate.expires_at <= now
        holder = None if ended else holder_of(evidence.certificate, known.config.certificates)
        return _by_grant(f"cert:{holder.name}" if holder else "", holder.grant if holder else None, address)
    if evidence.credentials is not None and (peer := find_peer(known.peers, evidence.credentials)) is not None:
        return _by_grant(peer.name, peer.grant, address)
    return _stranger(evidence, known)


def _by_token(evidence: Evidence, known: Known, now: float) -> Caller:
    text = token_of(evidence)
    caller = find_caller(known.tokens, text, now, evidence.address) if text else None
    if caller is None:
        raise Rejected("bad_credential")
    return caller


def token_of(evidence: Evidence) -> str | None:
    """The token that the request shows; None when what it shows instead is none."""
    if len(evidence.authorization) != 1:
        return None
    found = _BEARER.fullmatch(evidence.authorization[0])
    return found[1].decode("ascii") if found else None


def _by_grant(name: str, grant: Grant | None, address: str | None) -> Caller:
    if grant is None:
        raise Rejected("bad_credential")
    return Caller(name=name, links=(Link(name, grant),), address=address)


def _stranger(evidence: Evidence, known: Known) -> Caller:
    if known.lets_in_strangers(evidence.door, proxied=evidence.forwarded.trusted):
        return anonymous(evidence.address)
    raise Rejected("no_credential")


#: Looks for a token in the store of what was handed on.
FindChild = Callable[[TokenText, Known, Evidence], Awaitable[Caller | None]]


class Doorkeeper:
    """Tells who sent a request, by whom the service knows at that moment."""

    def __init__(self, known: Callable[[], Known], find_child: FindChild) -> None:
        self._known = known
        self._find_child = find_child

    async def identify(self, evidence: Evidence) -> Caller:
        """Who sent it. Raises Rejected('no_credential' or 'bad_credential')."""
        known = self._known()
        try:
            return identify(evidence, known, time.time())
        except Rejected:
            text = token_of(evidence) if evidence.authorization else None
            shown = read(text) if text else None
            # An administrator's token is nobody else's, and what else there is may be unreadable just now.
            if shown is None or known.tokens.find(shown.key_id) is not None:
                raise
            child = await self._find_child(shown, known, evidence)
            if child is None:
                raise
            return child
