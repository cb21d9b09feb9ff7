"""The reserve: room on the disk that is given free when the disk is full, so that work can still be finished."""

import os
import stat
from pathlib import Path
from typing import Final

from daemon.log import log
from daemon.state.layout import Layout
from daemon.state.quarantine import clear_name, open_cleared
from daemon.state.room import NO_ROOM, trouble_in

#: Files of a worker that may be missing when it begins: SQLite's log and its index, and the mark that it runs; and one
#: to spare.
INODES: Final = 4


class Reserve:
    """Preallocated files of a shard, made by its worker and released when nothing else helps.

    The first has the bytes. Each of them has an inode, for a disk that has no other left.
    """

    def __init__(self, layout: Layout, shard: int, size_bytes: int) -> None:
        self._layout = layout
        self._paths = layout.reserves(shard, INODES)
        self._size_bytes = size_bytes
        self._shard = shard
        self._released = False
        #: True when all of it is there, as far as was seen, or none is wanted.
        self.whole = self._is_whole()

    def _is_whole(self) -> bool:
        first, *others = (_size_of(path) for path in self._paths)
        return not self._size_bytes or (first >= self._size_bytes and min(others) >= 0)

    def resize(self, size_bytes: int) -> None:
        """Want another size from now on; `restore` makes it so."""
        self._size_bytes = size_bytes

    def restore(self) -> None:
        """Give free what is too much, and make what is missing if there is room for all of it twice over.

        Raises OSError for other trouble.
        """
        self._shrink()
        self.whole = self._is_whole()
        if self.whole or not self._has_room():
            return
        try:
            self._fill()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self._remove()
            return
        self.whole = True
        if self._released:
            self._released = False
            log("disk.reserve_back", shard=self._shard)

    def _shrink(self) -> None:
        if not self._size_bytes:
            self._remove()
        elif _size_of(self._paths[0]) > self._size_bytes:
            self._cut()

    def _cut(self) -> None:
        descriptor = open_cleared(self._layout, self._paths[0])
        try:
            os.ftruncate(descriptor, self._size_bytes)
        finally:
            os.close(descriptor)

    def _has_room(self) -> bool:
        room = os.statvfs(self._paths[0].parent)
        inodes = room.f_favail if room.f_files else 2 * INODES
        return room.f_bavail * room.f_frsize >= 2 * self._size_bytes and inodes >= 2 * INODES

    def _fill(self) -> None:
        """Make all the files. What is free on the disk says nothing of a quota, so twice the bytes are tried."""
        for path in self._paths:
            os.close(open_cleared(self._layout, path))
        descriptor = self._layout.open(self._paths[0], os.O_RDWR)
        try:
            os.posix_fallocate(descriptor, 0, 2 * self._size_bytes)
            os.ftruncate(descriptor, self._size_bytes)
        finally:
            os.close(descriptor)

    def release(self) -> bool:
        """Give the room free; return False when there was none left to give. Raises OSError."""
        self.whole = not self._size_bytes
        if not self._remove():
            return False
        self._released = True
        log("disk.full", shard=self._shard)
        return True

    def release_where_full(self) -> bool:
        """Give the room free before it is missed: SQLite may not live to say so. True when there was no room.

        Without room btrfs kills (SIGBUS) who writes to a mapped file, as SQLite's index of the log is; so does every
        filesystem whose blocks are smaller than a page. Raises OSError.
        """
        trouble = trouble_in(self._paths[0].parent)
        if trouble is None or trouble.errno not in NO_ROOM:
            return False
        self.release()
        return True

    def _remove(self) -> bool:
        there = [path for path in self._paths if os.path.lexists(path)]
        for path in there:
            clear_name(self._layout, path)
        return bool(there)


def _size_of(path: Path) -> int:
    """The size of a plain file in bytes; -1 when there is none."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return -1
    return found.st_size if stat.S_ISREG(found.st_mode) else -1
