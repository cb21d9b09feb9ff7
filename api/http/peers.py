"""Who is at the other end of a connection, and how many places of something limited each of them may hold.

Guarantees: nobody who holds few places is locked out by one who holds many, as long as peers can be told apart.
"""

import contextlib
import errno
import fcntl
import ipaddress
import socket
import struct
from array import array
from asyncio import StreamWriter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from daemon.access.peers import Credentials
from daemon.process.shared_counts import Column, SharedCount, SharedCounts

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

#: This part of the places is for those who hold few. Source: dynamic thresholds, Choudhury and Hahne (1998).
KEPT_SHARE: Final = 1 / 4
#: Bits of an IPv6 address that tell one customer from another (RFC 6177).
_NETWORK_BITS: Final = 64
#: `struct ucred`: pid, uid, gid (unix(7)).
_CREDENTIALS: Final = struct.Struct("iII")
#: The groups of the user besides; Python has no name for it. Of more than 256 groups it can be told none.
_SO_PEERGROUPS: Final = 59
_MAX_GROUPS_BYTES: Final = 1024
#: The address of who went away before it could be seen who it was: nobody's.
_UNSPECIFIED: Final = ("0.0.0.0", 0)
#: Asks for the IPv4 addresses of all interfaces (netdevice(7)), and how each of them is told: `struct ifreq`.
_SIOCGIFCONF: Final = 0x8912
_INTERFACE: Final = struct.Struct("20s4s16x")
_MAX_INTERFACES: Final = 1024
#: Any port: nothing is sent there.
_DISCARD: Final = 9


@dataclass(frozen=True, slots=True)
class Via:
    """Who is at the other end of a connection."""

    #: None at a Unix socket.
    address: str | None
    #: The user at a Unix socket; None elsewhere.
    credentials: Credentials | None = None
    #: True when the address is one of this machine's own, from which each of its users may come.
    is_local: bool = False

    @property
    def peer(self) -> str:
        """A value to be compared: an address, an IPv6 network, or a user at a Unix socket.

        Where the kernel hides the users of a Unix socket (a user namespace), all of them are one.
        """
        return f"uid:{self.credentials.uid}" if self.credentials else network_of(self.address or _UNSPECIFIED[0])


def via_of(writer: StreamWriter) -> Via:
    """Look at a connection that has just begun."""
    connection = writer.get_extra_info("socket")
    if connection.family == socket.AF_UNIX:
        return Via(None, _credentials(connection))
    name = writer.get_extra_info("peername") or _UNSPECIFIED
    return Via(str(plain_address(name[0])), is_local=is_local(connection, name))


def _credentials(connection: socket.socket) -> Credentials:
    _, uid, gid = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    groups = b""
    with contextlib.suppress(OSError):
        groups = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_GROUPS_BYTES)
    return Credentials(uid, gid, frozenset(group for (group,) in struct.iter_unpack("I", groups)))


def is_local(connection: socket.socket, name: tuple[Any, ...]) -> bool:
    """True when that address, of the other end, is one of this machine, or when that cannot be told."""
    address = plain_address(name[0])
    if address.is_loopback or address.is_unspecified or name[0] == connection.getsockname()[0]:
        return True
    try:
        return address in _own_ipv4(connection) if address.version == 4 else _is_own(connection.family, name)
    except OSError:
        return True


def _own_ipv4(connection: socket.socket) -> set[IpAddress]:
    """The machine's IPv4 addresses: of the network of the connection, which may be another than the process's."""
    room = array("B", bytes(_MAX_INTERFACES * _INTERFACE.size))
    asked = struct.pack("iP", len(room), room.buffer_info()[0])
    size, _ = struct.unpack("iP", fcntl.ioctl(connection, _SIOCGIFCONF, asked))
    if size == len(room):
        raise OSError(errno.ENOBUFS, "more addresses than there is room for")
    return {ipaddress.IPv4Address(packed) for _, packed in _INTERFACE.iter_unpack(room[:size].tobytes())}


def _is_own(family: int, name: tuple[Any, ...]) -> bool:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        # Whoever sends to an address of his own has that address.
        probe.connect((name[0], _DISCARD, *name[2:]))
        return bool(probe.getsockname()[0] == name[0])


def network_of(address: str) -> str:
    """An IPv4 address as it is; of an IPv6 address the part that tells customers apart."""
    found = plain_address(address)
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(ipaddress.IPv6Network((found, _NETWORK_BITS), strict=False))


def plain_address(text: str) -> IpAddress:
    """An address without its zone, and as IPv4 where it stands for one; raises ValueError for anything else."""
    found = ipaddress.ip_address(text.partition("%")[0])
    return getattr(found, "ipv4_mapped", None) or found


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
