"""Resumable uploads that are not finished: their bytes, and how each stands. This is the door to them.

`capabilities` says what can be done, `values` what is said of them. Guarantees: an offset that was told is on the disk,
and never goes down; one request at a time changes an upload, over all processes, and the newest gets it; which task all
bytes become is durable before anything else is done about it. Nothing here is an upload before the spool has it.

What keeps them is behind the door: two files each, in `files`.
"""

from daemon.partials.capabilities import Partial, Partials, Turn
from daemon.partials.files import FilePartials, count_files
from daemon.partials.values import Census, PartialState, Phase, Plan
from daemon.spool import Spool
from daemon.state.layout import Layout

__all__ = ["Census", "Partial", "PartialState", "Partials", "Phase", "Plan", "Turn", "count", "open_partials"]


def open_partials(layout: Layout, spool: Spool) -> Partials:
    """Open the resumable uploads of a state directory; what is complete goes to `spool`."""
    return FilePartials(layout, spool)


def count(layout: Layout) -> Census:
    """What there is of unfinished ones, for somebody who may not read them; what is owed is not known then.

    The oldest is the one to which nothing was added for longest. Raises OSError.
    """
    return count_files(layout)
