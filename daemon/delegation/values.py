"""What goes in and out of the store of what was handed on."""

from dataclasses import dataclass
from typing import Final

from daemon.model.grant import Grant

#: Living tokens that there may be below one identity of the administrator's.
MOST_BELOW: Final = 10_000
#: Between the name of who made a child and the child's id.
SEPARATOR: Final = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A token for a part of somebody's rights. It allows no more than each one above it."""

    #: The public part of the token; letters, digits, `_` and `-`.
    key_id: str
    #: Hexadecimal sha256 of the token.
    sha256: str
    #: The name of the administrator's identity that it comes down from, such as `token:ci`.
    root: str
    #: The name of who made it: the same, or that of another child.
    parent: str
    grant: Grant
    #: Seconds since the epoch.
    made_at: float
    expires_at: float
    label: str = ""
    #: The address of who made it; None: a Unix socket.
    made_from: str | None = None
    #: What is used up of its amounts.
    used_uploads: int = 0
    used_bytes: int = 0

    @property
    def name(self) -> str:
        """Its own name, below its parent's."""
        return f"{self.parent}{SEPARATOR}{self.key_id}"

    @property
    def parent_id(self) -> str | None:
        """The id of the child that made it; None: the administrator's identity did."""
        return None if self.parent == self.root else self.parent.rpartition(SEPARATOR)[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Amounts that somebody may use in all; None: without limit."""

    name: str
    #: True for a child: its amounts end with it.
    is_child: bool = False
    max_uploads: int | None = None
    max_total_bytes: int | None = None
