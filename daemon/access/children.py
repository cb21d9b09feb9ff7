"""Rights that are handed on: what may be, and who comes with them. Pure.

A child acts under its own grant and those of all above it, as they are now. So it can never do more than any of them,
and is nobody once one of them is.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from daemon.access.caller import ANONYMOUS, Caller, Link
from daemon.access.decide import decide
from daemon.delegation import Budget, Child
from daemon.model.grant import Grant, Permission

#: How often rights are handed on: each request is looked at by all who did.
MAX_HANDED_ON: Final = 4
#: The longest that a child lives.
MAX_LIFETIME_S: Final = 30 * 86400


def narrower(child: Grant, parents: Iterable[Link]) -> str | None:
    """The code of the error with which such a child is refused, or None: its permissions are those of all parents.

    Limits are not compared: those of all count at each request.
    """
    allowed = all(child.may <= link.grant.may and Permission.DELEGATE in link.grant.may for link in parents)
    return None if allowed else "action_not_allowed"


def hand_on_refusal(caller: Caller, child: Grant) -> str | None:
    """The code of the error with which the caller may not make such a child; None: he may."""
    if caller.name == ANONYMOUS:
        # There is nobody with whom it would end.
        return "action_not_allowed"
    code = decide(caller, Permission.DELEGATE) or narrower(child, caller.links)
    return "delegation_too_deep" if code is None and caller.handed_on >= MAX_HANDED_ON else code


def caller_of(
    lineage: Sequence[Child], root: Callable[[str], tuple[Link, ...] | None], *, now: float, address: str | None,
) -> Caller | None:
    """Who comes from `address` with the token of the first child of `lineage`; None when anything above it has ended.

    `root` tells under which grants the administrator's identity of a name acts now; None: there is none any more.
    """
    if not _hangs_together(lineage) or any(child.expires_at <= now for child in lineage):
        return None
    above = root(lineage[-1].root)
    if above is None:
        return None
    links = tuple(Link(child.name, child.grant) for child in lineage)
    return Caller(name=links[0].name, links=links + above, address=address, handed_on=len(links),
                  expires_at=min(child.expires_at for child in lineage))


def _hangs_together(lineage: Sequence[Child]) -> bool:
    if not lineage:
        return False
    parents = [*(child.name for child in lineage[1:]), lineage[-1].root]
    return all(child.parent == parent and child.root == lineage[-1].root
               for child, parent in zip(lineage, parents, strict=True))


def is_below(name: str, above: str) -> bool:
    """True for the name of what was handed on by who has the name `above`, or by somebody below him."""
    return name.startswith(f"{above}/")


def budgets_of(caller: Caller) -> list[Budget]:
    """The amounts that an upload of the caller uses up: his own, and those of all above him."""
    return [Budget(name=link.name, is_child=at < caller.handed_on, max_uploads=link.grant.max_uploads,
                   max_total_bytes=link.grant.max_total_bytes)
            for at, link in enumerate(caller.links)
            if link.grant.max_uploads is not None or link.grant.max_total_bytes is not None]
