"""Resumable uploads that are not finished: their bytes, and how each stands. This is the door to them.

`capabilities` says what can be done, `values` what is said of them. Guarantees: an offset that was told is on the disk,
and never goes down; one request at a time changes an upload, over all processes, and the newest gets it; which task all
bytes become is durable before anything else is done about it. Nothing here is an upload before the spool has it.

What keeps them is behind the door: two files each, in `files`.
"""

from daemon.partials.capabilities import Partial, Partials
from daemon.partials.values import Census, PartialState, Phase, Plan

__all__ = ["Census", "Partial", "PartialState", "Partials", "Phase", "Plan"]
