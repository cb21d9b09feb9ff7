"""Who asks: a name, and the grants that he acts under."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from daemon.model.grant import EVERYTHING, Grant


@dataclass(frozen=True, slots=True)
class Link:
    """One grant that counts, and the name of whose it is: limits on rates and amounts count for that name."""

    name: str
    grant: Grant


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, for one request. Rights that were handed on are cut to those of each one who handed them on."""

    #: Such as `token:ci`, and `token:ci/0mF3…` for what was handed on under it; what `Upload.client` holds.
    name: str
    #: His own grant first, then that of who handed it on, and so forth: all have to allow what he asks for.
    links: tuple[Link, ...]
    #: The address that he comes from; None at a Unix socket.
    address: str | None = None
    #: How many of the first links were handed on; the one behind them is the administrator's.
    handed_on: int = 0
    #: When what he shows expires, as far as that is known, in seconds since the epoch.
    expires_at: float | None = None

    @property
    def root(self) -> str:
        """The name of the administrator's identity that he is, or that his rights come down from."""
        return self.links[self.handed_on].name

    @property
    def client(self) -> str | None:
        """What his tasks say about who sent them; None for anonymous ones."""
        return None if self.name == ANONYMOUS else self.name


#: The name of who shows no credential.
ANONYMOUS: Final = "anonymous"


@lru_cache(1024)
def anonymous(address: str | None) -> Caller:
    """Whoever comes, where everybody may do everything."""
    return Caller(name=ANONYMOUS, links=(Link(ANONYMOUS, EVERYTHING),), address=address)
