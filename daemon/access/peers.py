"""Who comes through a Unix socket, as the kernel says."""

import pwd
from dataclasses import dataclass
from typing import Final

#: What the kernel shows for users and groups that it hides: those of another user namespace (user_namespaces(7)).
HIDDEN_ID: Final = 65534


@dataclass(frozen=True, slots=True)
class Credentials:
    """The user and the groups of who connected, as they were then (unix(7), SO_PEERCRED and SO_PEERGROUPS)."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()


def uid_of(user: str) -> int | None:
    """The number of a user by name or number; None where there is none."""
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid if user else None
    except KeyError:
        return None
