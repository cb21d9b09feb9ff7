"""Root gives its power away before it opens the state: what it made there would shut the service out."""

import errno
import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daemon.state.layout import Layout

#: Why there may be nothing of that name, or nothing to be seen: whoever opens it next says so.
_NOT_TO_BE_SEEN: Final = {errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG}


@dataclass(frozen=True)
class Identity:
    """A user and its groups, as numbers."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def identity_to_take(euid: int, owner_uid: int, owner_gid: int) -> Identity | None:
    """Who to become before opening what `owner_uid` and `owner_gid` own; None to stay who one is."""
    if euid != 0 or owner_uid == 0:
        return None
    return Identity(owner_uid, owner_gid, _groups(owner_uid, owner_gid))


def _groups(uid: int, gid: int) -> tuple[int, ...]:
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return (gid,)
    return tuple(sorted({gid, *os.getgrouplist(name, gid)}))


def drop_to_owner(layout: Layout) -> None:
    """As root, become the owner of the state, for good; anyone else stays who they are.

    That is the owner of the queue, or where root owns it and two users share it, the owner of the spool. Call it
    before the state is opened and after the configuration is read. Nothing happens while there is no state yet.
    Raises OSError when the kernel refuses.
    """
    identity = next(filter(None, map(_owner_to_become, (layout.queue, layout.spool))), None)
    if identity is None:
        return
    os.umask(0o007 if layout.shared else 0o077)
    os.setgroups(identity.groups)
    os.setgid(identity.gid)
    os.setuid(identity.uid)


def _owner_to_become(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except OSError as error:
        if error.errno not in _NOT_TO_BE_SEEN:
            raise
        return None
    return identity_to_take(os.geteuid(), found.st_uid, found.st_gid)


def invoking_user() -> str:
    """The name of the person who gives the command, for the log. Ask before `drop_to_owner`."""
    name = os.environ.get("SUDO_USER") if os.getuid() == 0 else None
    if name:
        return name
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
