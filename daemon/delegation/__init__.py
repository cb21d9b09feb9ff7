"""What was handed on: tokens that somebody made for a part of his own rights, and how far amounts are used up.

This is the door to it, for the API alone: all of its processes share one store. `capabilities` says what can be done,
in small parts; `values` what goes in and out. Guarantees: what a method returned for is on the disk; of a limited
amount never more is handed out than there is, whatever processes and crashes there are; what was ended does not come
back. A store that is damaged is set aside, and begun anew: all that was handed on ends then, and amounts
count from nothing.

What keeps it is behind the door, in `sqlite`.
"""

from daemon.delegation.capabilities import Delegations, HandOn, Meter, Recognize
from daemon.delegation.sqlite.store import SqliteDelegations
from daemon.delegation.values import MOST_BELOW, Budget, Child
from daemon.state.layout import Layout

__all__ = ["MOST_BELOW", "Budget", "Child", "Delegations", "HandOn", "Meter", "Recognize", "open_delegations"]


def open_delegations(layout: Layout) -> Delegations:
    """The store of a state directory, once for each process. Opened when first needed; made by the first change."""
    return SqliteDelegations(layout)
