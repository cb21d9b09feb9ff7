"""Leases: the right of a worker to serve a shard. This is the door to it.

`capabilities` says what can be done. Guarantees: a shard has one holder at a time; one whose process ended, however,
keeps no other out; one that was taken over, as by another host, finds out as soon as it asks, and its epoch is lower.

What keeps them is behind the door, in `files`: the lock of a file and the token of the host.
tests/unit/daemon/conformance holds them to what is promised here.
"""

from daemon.lease.capabilities import Lease, Leases
from daemon.lease.files import FileLeases
from daemon.state.layout import Layout
from daemon.state.tenure import Host

__all__ = ["Lease", "Leases", "open_leases"]


def open_leases(layout: Layout, host: Host, shards: int, *, take_over: bool = False) -> Leases:
    """Use a state directory of so many shards from now on, durably.

    Raises CannotStart('state_in_use') when another host may still be using it, unless it is to be taken over. Raises
    OSError.
    """
    return FileLeases(layout, host, shards, take_over=take_over)
