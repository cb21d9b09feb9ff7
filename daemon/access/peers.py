"""Who comes through a Unix socket, as the kernel says, and what he may do. Pure."""

import grp
import os
import pwd
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from daemon.config import Peer
from daemon.model.grant import EVERYTHING, Grant
from daemon.model.upload import LOCAL

#: Who may everything at a Unix socket while no peer is configured, besides root and the service's own user.
DEFAULT_GROUP: Final = "incus-courier"

#: What the kernel says in place of users and groups that a user namespace does not know (user_namespaces(7)).
HIDDEN_ID: Final = 65534


@dataclass(frozen=True, slots=True)
class Credentials:
    """The user and the groups of who connected, as they were then (unix(7), SO_PEERCRED and SO_PEERGROUPS)."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class KnownPeer:
    """A peer with the number that its name stands for; None where the machine knows no such user or group."""

    #: As callers are named.
    name: str
    grant: Grant
    uid: int | None = None
    gid: int | None = None

    def is_(self, who: Credentials) -> bool:
        """True when it is that one; whom the kernel hides may be anybody."""
        return (self.uid == who.uid != HIDDEN_ID) or self.gid in {who.gid, *who.groups} - {HIDDEN_ID}


def known_peers(peers: Sequence[Peer]) -> list[KnownPeer]:
    """The configured peers, or who may everything where none is configured. Asks the machine's databases of users."""
    if peers:
        return [KnownPeer(f"peer:{peer.name}", peer.grant, uid=uid_of(peer.user), gid=gid_of(peer.group))
                for peer in peers]
    own = [KnownPeer(f"{LOCAL}root", EVERYTHING, uid=0),
           KnownPeer(f"{LOCAL}{DEFAULT_GROUP}", EVERYTHING, gid=gid_of(DEFAULT_GROUP))]
    return own if os.geteuid() == 0 else [
        *own, KnownPeer(f"{LOCAL}{_name_of(os.geteuid())}", EVERYTHING, uid=os.geteuid())]


def find_peer(peers: Sequence[KnownPeer], who: Credentials) -> KnownPeer | None:
    """The first of them that is that one; None: a stranger."""
    return next((peer for peer in peers if peer.is_(who)), None)


def uid_of(user: str) -> int | None:
    """The number of a user by name or number; None where there is none."""
    return _number_of(user, lambda name: pwd.getpwnam(name).pw_uid)


def gid_of(group: str) -> int | None:
    """The number of a group by name or number; None where there is none."""
    return _number_of(group, lambda name: grp.getgrnam(name).gr_gid)


def _number_of(name: str, look_up: Callable[[str], int]) -> int | None:
    if name.isdecimal():
        return int(name)
    try:
        return look_up(name) if name else None
    except KeyError:
        return None


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
