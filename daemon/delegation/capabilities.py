"""What the store of what was handed on can do, in small parts, so that whoever uses one asks for no more than that.

Every method may be called from any thread, and may block on the disk. Each raises Rejected('delegation_unreadable') or
Rejected('no_room') when the store cannot do it; then it may have been done all the same.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from daemon.delegation.values import MOST_BELOW, Budget, Child


class Recognize(Protocol):
    """Telling who comes with a token."""

    def lineage(self, key_id: str) -> Sequence[Child]:
        """The child of that id, then those that it is below, up to the one that the administrator's identity made.

        Empty when any of them is missing. Whether they have expired is not looked at.
        """


class HandOn(Recognize, Protocol):
    """Making children, seeing them, and ending them."""

    def put(self, child: Child, *, now: float, most_below: int = MOST_BELOW) -> None:
        """Add a child.

        Raises Rejected('bad_credential') when its parent ended meanwhile, and Rejected('too_many_tokens') when so many
        live below the administrator's identity already.
        """

    def below(self, name: str, *, after: str = "", limit: int, now: float) -> Sequence[Child]:
        """Up to `limit` living children below that name, at any depth, in the order of their names, after that one."""

    def find_below(self, name: str, key_id: str, *, now: float) -> Child | None:
        """The living child of that id below that name; one that is elsewhere is looked for as one that is nowhere."""

    def revoke(self, name: str) -> int:
        """End the child of that name and all below it; return how many."""

    def clear_expired(self, now: float, limit: int) -> int:
        """Forget up to `limit` children that have expired; return how many. `put` does so for some."""


class Meter(Protocol):
    """Using up amounts that are limited for the whole life of a credential."""

    def reserve(self, budgets: Iterable[Budget], *, uploads: int, size_bytes: int) -> bool:
        """Use up so much of each, durably: of all or of none. False when one of them has not so much left, or ended.

        What is reserved and never used, as after a crash, stays used up.
        """

    def give_back(self, budgets: Iterable[Budget], *, uploads: int, size_bytes: int) -> None:
        """Return to each what was reserved for an upload that was not accepted."""


class Delegations(HandOn, Meter, Protocol):
    """All of it."""

    def close(self) -> None:
        """Let go of everything. May be called again."""
