"""Whose token somebody shows. Pure."""

from dataclasses import replace
from typing import Final

from daemon.access.caller import Caller, Link
from daemon.access.token_file import Token, Tokens
from daemon.access.token_text import is_same, read

#: The digest of no token: what is compared where there is no such id, so that both cases take as long.
_NOBODYS: Final = "0" * 64


def find_caller(tokens: Tokens, token_text: str, now: float, address: str | None) -> Caller | None:
    """Who shows that token; None when it is none of these, has ended, or one that it is under has."""
    shown = read(token_text)
    if shown is None:
        return None
    found = tokens.find(shown.key_id)
    same = is_same(shown.sha256, _NOBODYS if found is None else found[1].sha256)
    if found is None or not same:
        return None
    token, key = found
    callers = tokens.callers
    caller = callers[key.id] if key.id in callers else callers.setdefault(key.id, _caller(tokens, token, key.until))
    if caller is None or (caller.expires_at is not None and caller.expires_at <= now):
        return None
    if caller.address != address:
        caller = callers[key.id] = replace(caller, address=address)
    return caller


def _caller(tokens: Tokens, token: Token, until: float | None) -> Caller | None:
    """Who shows that token, from nowhere yet; None when it, or one that it is under, was revoked."""
    if any(link.revoked_at is not None for link in tokens.chain(token)):
        return None
    links = links_of(tokens, token)
    ends = [at for at in (tokens.expires_at(token), until) if at is not None]
    return Caller(name=links[0].name, links=links, expires_at=min(ends, default=None))


def links_of(tokens: Tokens, token: Token) -> tuple[Link, ...]:
    """The grants that bound a token: its own, then those of the tokens that it is under."""
    chain = tokens.chain(token)
    names = [link.name for link in reversed(chain)]
    return tuple(Link(f"token:{'/'.join(names[:len(names) - at])}", link.grant) for at, link in enumerate(chain))
