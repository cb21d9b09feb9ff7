"""Whether a disk, a quota or a limit leaves room for what the service has to write, and how to say what is missing.

SQLite says "disk I/O error" or "unable to open database file" and keeps the errno to itself, so the disk is asked.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

#: What the system says when there is no room: on the disk (bytes or inodes), in a quota, in a file (RLIMIT_FSIZE).
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: SQLite lets its files grow by less at a time.
_STEP_BYTES: Final = 64 * 1024


@contextmanager
def where_there_is_room() -> Iterator[None]:
    """Do what a full disk may leave undone, as far as there is room. Raises OSError for other trouble."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise


def trouble_in(directory: Path) -> OSError | None:
    """What keeps this process from making a file in a directory, or from letting the largest one there grow; or None.

    It is tried: a file without a name is made, as large as the largest, with a hole for all but the end, and synced.
    """
    try:
        descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        with closing(os.fdopen(descriptor, "wb", buffering=0)):
            _write(descriptor, _largest_bytes(directory))
            os.fdatasync(descriptor)
    except OSError as error:
        return explained(error, directory)
    return None


def _write(descriptor: int, start: int) -> None:
    end = start + _STEP_BYTES
    while start < end:
        # The first write that finds too little room is a short one.
        start += os.pwrite(descriptor, bytes(end - start), start)


def _largest_bytes(directory: Path) -> int:
    largest = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                largest = max(largest, entry.stat(follow_symlinks=False).st_size)
    return largest


def explained(error: OSError, directory: Path) -> OSError:
    """The error that a file to be made in `directory` met; it says so where inodes are missing, and not bytes."""
    if error.errno == errno.ENOSPC and not _has_inodes(directory):
        return OSError(errno.ENOSPC, "No inodes left on device: it has too many files", error.filename)
    return error


def _has_inodes(directory: Path) -> bool:
    try:
        found = os.statvfs(directory)
    except OSError:
        return True
    # Where they are made as they are needed, as on btrfs, there are none at all to be counted.
    return not found.f_files or found.f_favail > 0

