"""The instances that this cell has let go of, so that another one may have them: one small file, a line for each.

Guarantees: who reads it finds the old lines or the new ones, never half of them; what `release` and `adopt` return from
is durable. Nothing is delivered to an instance that is in it.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from daemon import failpoints
from daemon.state.files import opened, stamp_of
from daemon.state.layout import Layout, sync_directory

#: More than any site has instances.
_LIMIT_BYTES: Final = 64 * 2**20


class ReleasedInstances:
    """The instances that the cell has let go of, as the file has them now. To ask costs one look. From any thread."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._path = os.fspath(layout.released)
        #: What the file looked like, and what was in it: together, for several threads.
        self._known: tuple[object, frozenset[str]] = (None, frozenset())

    def has(self, instance_key: str) -> bool:
        """True when the cell has let go of the instance. Raises OSError when that cannot be told."""
        seen = stamp_of(self._path)
        known = self._known
        if known[0] != seen:
            self._known = known = (seen, read(self._layout))
        return instance_key in known[1]


def read(layout: Layout) -> frozenset[str]:
    """The instances that the cell has let go of. Raises OSError, also when the file is damaged (EUCLEAN)."""
    try:
        text = layout.read(layout.released, _LIMIT_BYTES).decode()
    except FileNotFoundError:
        return frozenset()
    except UnicodeDecodeError:
        text = ""
    lines = [line for line in text.split("\n") if line]
    if not text.endswith("\n") or any(line.count("/") != 2 for line in lines):
        raise OSError(errno.EUCLEAN, "the file is damaged", str(layout.released))
    return frozenset(lines)


def release(layout: Layout, instance_key: str) -> None:
    """Have the cell let go of an instance, durably; it may have already. Raises OSError."""
    _change(layout, lambda keys: keys | {instance_key})


def adopt(layout: Layout, instance_key: str) -> None:
    """Have the cell take an instance back, durably. Raises OSError."""
    _change(layout, lambda keys: keys - {instance_key})


def _change(layout: Layout, change: Callable[[frozenset[str]], frozenset[str]]) -> None:
    lock = layout.open_made(layout.locks / "cells")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _replace(layout, sorted(change(read(layout))))
    finally:
        os.close(lock)


def _replace(layout: Layout, keys: Iterable[str]) -> None:
    draft: Path = layout.queue / f".{layout.released.name}.new"
    descriptor = layout.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with open(descriptor, "w", encoding="utf-8") as file:
        # The API reads it, whatever the umask of who gives the command; only the worker's user writes it.
        os.fchmod(descriptor, layout.file_mode & ~stat.S_IWGRP)
        failpoints.reach("cells.write")
        file.write("".join(f"{key}\n" for key in keys) or "\n")
        file.flush()
        if failpoints.reach("cells.sync"):
            os.fsync(descriptor)
    with opened(layout.directory, layout.queue) as queue:
        failpoints.reach("cells.rename")
        os.rename(draft.name, layout.released.name, src_dir_fd=queue, dst_dir_fd=queue)
    if failpoints.reach("cells.dirsync"):
        sync_directory(layout.queue)
