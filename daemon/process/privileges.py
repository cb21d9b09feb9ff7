"""Root never works in a state that others may change: it becomes the state's owner first, or refuses."""

import errno
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from daemon.errors import CannotStart
from daemon.state.layout import Layout

#: Why there may be nothing of that name, or nothing that even root sees: whoever opens it next says so.
_NOT_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EACCES})
#: As many links as the kernel follows on the way to one file (path_resolution(7)).
_MAX_LINKS: Final = 40


@dataclass(frozen=True)
class Identity:
    """A user and its groups, as numbers."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def identity_of(uid: int, gid: int) -> Identity:
    """The user `uid` with the group `gid`, and with the other groups of that user."""
    return Identity(uid, gid, _groups(uid, gid))


def _groups(uid: int, gid: int) -> tuple[int, ...]:
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return (gid,)
    return tuple(sorted({gid, *os.getgrouplist(name, gid)}))


def identity_to_take(layout: Layout) -> Identity | None:
    """Who root has to become before it opens the state; None for anyone else, and where all of it is root's alone.

    That is whoever decides about the queue: the first owner on the way to it who is not root. None, too, while there is
    no queue yet. Raises CannotStart('unsafe_state') when it cannot be told who that is, and OSError.
    """
    if os.geteuid() != 0:
        return None
    found = _first_of_others(layout.queue)
    if found is None:
        layout.check_roots()
        return None
    _check_same_owner(layout.queue, found)
    return identity_of(found.st_uid, found.st_gid)


def _check_same_owner(queue: Path, found: os.stat_result) -> None:
    try:
        owner = os.stat(queue).st_uid
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        return
    if owner != found.st_uid:
        raise CannotStart("unsafe_state", f"{queue} belongs to the user {owner}, but the user {found.st_uid} may put"
                                          " another in its place: root does not work there")


def _first_of_others(path: Path) -> os.stat_result | None:
    """The first thing on the way to `path` that is not root's; None when there is none, or nothing of that name.

    Only root can change the names above it, so what they lead to stays the same while this is looked at.
    """
    at, rest, links = Path("/"), _parts(path.absolute()), 0
    while rest and links <= _MAX_LINKS:
        step = at / rest.pop()
        try:
            found = os.lstat(step)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            return None
        if found.st_uid != 0:
            return found
        if not stat.S_ISLNK(found.st_mode):
            _check_roots_alone(step, found)
            at = step
            continue
        rest += _parts(Path(os.readlink(step)))
        links += 1
    return None


def _parts(path: Path) -> list[str]:
    """The parts of a path, the last one first."""
    return list(reversed(path.parts))


def _check_roots_alone(path: Path, found: os.stat_result) -> None:
    """Refuse a directory of root's in which others may rename what is not theirs."""
    others = found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid != 0)
    if others and not found.st_mode & stat.S_ISVTX:
        raise CannotStart("unsafe_state", f"{path} is root's, but others may replace what is in it: whose the state is"
                                          " cannot be told, and root does not work there")


def drop_to_owner(layout: Layout) -> None:
    """As root, become the owner of the state, for good; anyone else stays who they are. Raises as `identity_to_take`.

    Call it before the state is opened and after the configuration is read.
    """
    identity = identity_to_take(layout)
    if identity is not None:
        become(identity, layout)


def become(identity: Identity, layout: Layout) -> None:
    """As root, become this owner of the state, for good, and leave the user's other groups, as that of Incus, alone."""
    os.umask(0o007 if layout.shared else 0o077)
    os.setgroups([identity.gid])
    os.setgid(identity.gid)
    os.setuid(identity.uid)


def invoking_user() -> str:
    """The name of the person who gives the command, for the log. Ask before `drop_to_owner`."""
    name = os.environ.get("SUDO_USER") if os.getuid() == 0 else None
    if name:
        return name
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
