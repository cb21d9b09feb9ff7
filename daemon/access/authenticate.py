"""Whose token somebody shows. Pure."""

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
    if (key.until is not None and key.until <= now) or not tokens.state(token, now).is_valid:
        return None
    links = links_of(tokens, token)
    return Caller(name=links[0].name, links=links, address=address)


def links_of(tokens: Tokens, token: Token) -> tuple[Link, ...]:
    """The grants that bound a token: its own, then those of the tokens that it is under."""
    chain = tokens.chain(token)
    names = [link.name for link in reversed(chain)]
    return tuple(Link(f"token:{'/'.join(names[:len(names) - at])}", link.grant) for at, link in enumerate(chain))
