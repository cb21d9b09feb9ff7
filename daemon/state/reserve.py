"""The reserve: room on the disk that is given free when the disk is full, so that work can still be finished."""

import contextlib
import errno
import os
from typing import Final

from daemon.log import log
from daemon.state.layout import Layout

#: What the system says when a disk or a quota is full.
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Reserve:
    """One preallocated file of a shard, made by its worker and released when nothing else helps."""

    def __init__(self, layout: Layout, shard: int, size_bytes: int) -> None:
        self._path = layout.reserve(shard)
        self._mode = layout.file_mode
        self._size_bytes = size_bytes
        self._shard = shard
        self._released = False

    @property
    def whole(self) -> bool:
        """True when the file is there, or none is wanted."""
        return not self._size_bytes or (self._path.exists() and self._path.stat().st_size >= self._size_bytes)

    def resize(self, size_bytes: int) -> None:
        """Want another size from now on. What is too much is given free at once; what is missing, `restore` makes."""
        self._size_bytes = size_bytes
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size > size_bytes:
                os.truncate(self._path, size_bytes)

    def restore(self) -> None:
        """Make the file if it is missing and there is room for it twice over."""
        if self.whole:
            return
        room = os.statvfs(self._path.parent)
        if room.f_bavail * room.f_frsize < 2 * self._size_bytes:
            return
        descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, self._mode)
        try:
            os.posix_fallocate(descriptor, 0, self._size_bytes)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            os.ftruncate(descriptor, 0)
            return
        finally:
            os.close(descriptor)
        if self._released:
            self._released = False
            log("disk.reserve_back", shard=self._shard)

    def release(self) -> bool:
        """Give the room free; return False when there was none left to give."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        self._released = True
        log("disk.full", shard=self._shard)
        return True
