"""Open files: their bytes, their owners and what else they have."""

import os
from collections.abc import Iterator
from typing import Final

from daemon.spool import Source
from worker.targets import source as spool
from worker.targets.attributes import Attributes, Wanted, refuse_unless_exact
from worker.targets.base import Delivery

#: How a file is opened.
OPEN_FILE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
#: Where Linux keeps a file's access list.
ACCESS_LIST: Final = "system.posix_acl_access"
_PIECE_BYTES: Final = 256 * 1024


def fill(
    part: int, delivery: Delivery, source: Source, want: Wanted, access_list: bytes | None,
) -> Attributes:
    """Make the open file what the delivery says, byte for byte; return what it is then.

    Raises OSError, and Undelivered when the file is not what was wanted.
    """
    for piece in spool.pieces(source, delivery.size, _PIECE_BYTES):
        written = 0
        while written < len(piece):
            written += os.write(part, piece[written:])
    os.ftruncate(part, delivery.size)
    want = own(part, delivery, want)
    if access_list:
        os.setxattr(part, ACCESS_LIST, access_list)
    os.fchmod(part, want.mode)
    found = attributes_of(os.fstat(part))
    refuse_unless_exact(delivery, want, found)
    if delivery.verify == "digest":
        spool.refuse_unless_same(spool.digest(contents(part)), source, delivery)
    return found


def own(file: int, delivery: Delivery, want: Wanted) -> Wanted:
    """Set the owner and return what could be had: an owner that nobody asked for is left out if it is not allowed.

    Raises OSError.
    """
    try:
        os.fchown(file, want.uid, want.gid)
    except PermissionError:
        asked = [-1 if owner is None else owner for owner in (delivery.uid, delivery.gid)]
        if asked != [-1, -1]:
            os.fchown(file, *asked)
        found = os.fstat(file)
        return Wanted(want.mode, found.st_uid, found.st_gid)
    return want


def contents(file: int) -> Iterator[bytes]:
    """The bytes of an open file, in pieces, from its beginning. Raises OSError."""
    offset = 0
    while piece := os.pread(file, _PIECE_BYTES, offset):
        offset += len(piece)
        yield piece


def attributes_of(found: os.stat_result) -> Attributes:
    """What `stat` found, as every target says it."""
    return Attributes(found.st_size, found.st_uid, found.st_gid, found.st_mode)
