"""Who is at the other end of a connection, and how many places of something limited each of them may hold.

Guarantees: nobody who holds few places is locked out by one who holds many, as long as peers can be told apart.
"""

import ipaddress
import socket
import struct
from asyncio import StreamWriter
from collections.abc import Callable
from typing import Final

from daemon.process.shared_counts import Column, SharedCount, SharedCounts

#: This part of the places is for those who hold few. Source: dynamic thresholds, Choudhury and Hahne (1998).
KEPT_SHARE: Final = 1 / 4
#: Bits of an IPv6 address that tell one customer from another (RFC 6177).
_NETWORK_BITS: Final = 64
#: `struct ucred`: pid, uid, gid (unix(7)).
_CREDENTIALS: Final = struct.Struct("iII")
#: Who went away before it could be seen who it was.
_NOBODY: Final = "nobody"


def peer_of(writer: StreamWriter) -> str:
    """The peer of a connection as a value to be compared: an address, an IPv6 network, or a user at a Unix socket.

    Where the kernel hides the users of a Unix socket (a user namespace), all of them are one.
    """
    connection = writer.get_extra_info("socket")
    if connection.family == socket.AF_UNIX:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return f"uid:{_CREDENTIALS.unpack(credentials)[1]}"
    name = writer.get_extra_info("peername")
    return network_of(name[0]) if name else _NOBODY


def network_of(address: str) -> str:
    """An IPv4 address as it is; of an IPv6 address the part that tells customers apart."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.IPv6Network((found, _NETWORK_BITS), strict=False))


class Shares:
    """Who holds how many of `limit()` places, in all processes together. Asked on the event loop only."""

    def __init__(self, limit: Callable[[], int], counts: SharedCounts, column: Column) -> None:
        self._limit = limit
        self._tally = counts.tally(column)
        self._holders = counts.holders(column)

    @property
    def taken(self) -> int:
        """How many places are held, by the peers of all processes."""
        return self._tally.total

    @property
    def own(self) -> SharedCount:
        """How many of them are held in this process, beside the others."""
        return self._tally

    @property
    def full(self) -> bool:
        """True when no place is left."""
        return self.taken >= self._limit()

    def take(self, peer: str) -> bool:
        """Take a place for `peer`, who gives it back; False when there is none for it: nothing is taken then.

        Of the last quarter nobody gets one who holds as many already as are left: so there are always some left. It is
        counted before the others are looked at, so that of two processes none overlooks the other; of two peers who
        ask for the last place at the same moment, both may be refused.
        """
        self.count(peer)
        if self._is_due_to(peer):
            return True
        self.give_back(peer)
        return False

    def _is_due_to(self, peer: str) -> bool:
        limit = self._limit()
        left = limit - self.taken + 1
        return left > limit * KEPT_SHARE or self._holders.of(peer) <= left

    def count(self, peer: str) -> None:
        """Take a place for `peer`, who gives it back, whether there is one or not: another is about to be free."""
        self._add(peer, 1)

    def give_back(self, peer: str) -> None:
        """Let go of a place that `peer` took."""
        self._add(peer, -1)

    def _add(self, peer: str, number: int) -> None:
        self._tally.add(number)
        self._holders.add(peer, number)
