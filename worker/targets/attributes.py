"""Mode and owner: what a file has, and what it is to have. Pure, and the same for every target."""

import stat
from dataclasses import dataclass, replace
from typing import Final

from daemon.errors import Undelivered
from daemon.model.names import printable
from worker.targets.base import Delivery, Receipt

#: Links that are followed before it is called a loop; Linux's own number (MAXSYMLINKS).
MAX_LINKS: Final = 40
#: How deep below the root directories are made. `incus copy` (rsync 3.5) can do 1,000 and fails at 1,900.
MAX_DEPTH: Final = 128
#: The user that files are delivered as, as the instance sees it.
ROOT: Final = 0

_ALL_READ: Final = stat.S_IRGRP | stat.S_IROTH
#: Like /tmp: everybody may make names there, and only the owner of one may remove it.
_SHARED: Final = stat.S_ISVTX | stat.S_IWOTH
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Attributes:
    """What the system says of a file. `mode` has the type bits too."""

    size: int
    uid: int
    gid: int
    mode: int
    #: When its contents changed last, in seconds since the epoch; 0 where nobody asks.
    mtime: int = 0

    @property
    def is_file(self) -> bool:
        """True for a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        """True for a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_directory(self) -> bool:
        """True for a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_shared(self) -> bool:
        """True for what is sticky and writable by everybody, as /tmp is."""
        return self.mode & _SHARED == _SHARED

    @property
    def keeps_names(self) -> bool:
        """True for a directory in which nobody but root can put something else in the place of what is root's.

        An access list is seen, too: what it allows at most is what these bits say of the group.
        """
        guarded = not self.mode & _OTHERS_WRITE or bool(self.mode & stat.S_ISVTX)
        return self.is_directory and self.uid == ROOT and guarded

    @property
    def bits(self) -> int:
        """The permission bits alone, setuid, setgid and sticky included."""
        return stat.S_IMODE(self.mode)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The exact mode and owner that a file is to have."""

    mode: int
    uid: int
    gid: int

    @property
    def special(self) -> bool:
        """True with setuid or setgid, which a write or a change of owner takes away again."""
        return bool(self.mode & (stat.S_ISUID | stat.S_ISGID))

    @property
    def secret(self) -> bool:
        """True unless everybody may read it."""
        return self.mode & _ALL_READ != _ALL_READ

    def met_by(self, found: Attributes) -> bool:
        """True if `found` has this mode and owner."""
        return (found.bits, found.uid, found.gid) == (self.mode, self.uid, self.gid)


def wanted(delivery: Delivery, existing: Attributes | None) -> Wanted:
    """Return what the delivered file is to have: what was asked for, else its own as before, else the defaults.

    A symbolic link that is to be replaced has no mode of its own and counts as nothing there.
    """
    if existing is None or existing.is_link:
        kept = Wanted(delivery.default_mode, delivery.default_uid, delivery.default_gid)
    else:
        kept = Wanted(existing.bits, existing.uid, existing.gid)
    return Wanted(
        mode=kept.mode if delivery.mode is None else delivery.mode,
        uid=kept.uid if delivery.uid is None else delivery.uid,
        gid=kept.gid if delivery.gid is None else delivery.gid,
    )


def wanted_instead(delivery: Delivery, existing: Attributes | None) -> Wanted:
    """Return what a new file is to have that takes the place of one whose access list cannot be seen.

    As `wanted`. With an access list the group's bits are its mask, and a new file without the list gives them to the
    group: with `replace_group` = "narrow" the group keeps only what all others have, too.
    """
    want = wanted(delivery, existing)
    if delivery.replace_group != "narrow" or delivery.mode is not None or existing is None or existing.is_link:
        return want
    return replace(want, mode=want.mode & (~stat.S_IRWXG | (want.mode & stat.S_IRWXO) << 3))


def wanted_directory(delivery: Delivery) -> Wanted:
    """Return what a directory made for the delivery is to have."""
    return Wanted(
        mode=delivery.dir_mode,
        uid=delivery.default_uid if delivery.uid is None else delivery.uid,
        gid=delivery.default_gid if delivery.gid is None else delivery.gid,
    )


def refuse_unless_replaceable(delivery: Delivery, existing: Attributes | None) -> None:
    """Raise Undelivered if a file cannot, or must not, take the place of `existing`."""
    if existing is None or existing.is_link or existing.is_file:
        _refuse_set_id(delivery, existing)
        return
    code = "target_is_directory" if existing.is_directory else "target_not_regular"
    raise Undelivered(code, f"{where(delivery)}: {what_it_is(existing)} is there")


def _refuse_set_id(delivery: Delivery, existing: Attributes | None) -> None:
    """Raise Undelivered('not_allowed') if the file would give its bytes rights that it must not.

    One that is there keeps its set-id bits if the upload names no mode. And what is written in place has its old ones
    while the bytes come. The bits that the administrator gives to new files are left to him.
    """
    kept = None if existing is None or existing.is_link else Wanted(existing.bits, existing.uid, existing.gid)
    if delivery.set_id_rule is None or (kept is None and delivery.mode is None):
        return
    for has in [wanted(delivery, existing), *([kept] if kept and delivery.replace_group == "in-place" else [])]:
        reason = delivery.set_id_rule(has.mode, has.uid, has.gid)
        if reason is not None:
            raise Undelivered("not_allowed", f"{where(delivery)}: {reason}")


def refuse_unless_allowed(delivery: Delivery, path: bytes) -> None:
    """Raise Undelivered('not_allowed') if the file must not be written at `path`, in which no link is left."""
    reason = delivery.path_rule and delivery.path_rule(path.decode("utf-8", "surrogateescape"))
    if reason is not None:
        raise Undelivered("not_allowed", f"{where(delivery)} leads to {shown(path)}: {reason}")


def refuse_unless_trusted(delivery: Delivery, link: Attributes, directory: Attributes, follower: int = ROOT) -> None:
    """Raise Undelivered('link_not_trusted') if the user `follower` must not follow `link`, which is in `directory`.

    The kernel's own rule (fs.protected_symlinks, may_follow_link): in a directory like /tmp a link is followed only
    if the follower or the directory's owner made it.
    """
    if directory.is_shared and link.uid not in {follower, directory.uid}:
        raise Undelivered("link_not_trusted", f"{where(delivery)}: user {link.uid} made the link, where everybody may")


def refuse_unless_shallow(delivery: Delivery, depth: int) -> None:
    """Raise Undelivered('too_deep') if directories, the last of them `depth` below the root, would be too deep."""
    if depth > MAX_DEPTH:
        raise Undelivered("too_deep", f"{where(delivery)}: more than {MAX_DEPTH} directories deep")


def refuse_unless_exact(delivery: Delivery, want: Wanted, found: Attributes) -> None:
    """Raise Undelivered('verify_failed') unless `found` is a file of the delivery's size with what was wanted."""
    if found.is_file and found.size == delivery.size and want.met_by(found):
        return
    raise Undelivered(
        "verify_failed",
        f"{where(delivery)}: expected {delivery.size} bytes {want.mode:04o} {want.uid}:{want.gid}, "
        f"found {what_it_is(found)} of {found.size} bytes {found.bits:04o} {found.uid}:{found.gid}")


def receipt_for(
    found: Attributes, way: str, *, atomic: bool = False, unchanged: bool = False, whole_mode: bool = True,
) -> Receipt:
    """The receipt for a file that was last `found` so; without `whole_mode` some of its bits are hidden."""
    return Receipt(atomic=atomic, way=way, unchanged=unchanged, mode=found.bits if whole_mode else None,
                   uid=found.uid, gid=found.gid)


def where(delivery: Delivery) -> str:
    """The destination, for a message: `instance/path`, safe to print."""
    return printable(f"{delivery.destination.instance}{delivery.destination.path}", 200)


def shown(path: bytes) -> str:
    """A path of the instance, safe to print."""
    return printable(path.decode("utf-8", "backslashreplace"))


def what_it_is(found: Attributes) -> str:
    """The kind of a file, for a message."""
    kinds = {stat.S_IFREG: "a file", stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symbolic link",
             stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
             stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(found.mode), "something else")
