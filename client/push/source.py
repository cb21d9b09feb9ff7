"""The file that is sent: opened once, and looked at again before its last byte goes, so that none is sent that changed.

Guarantees: what was read is what the file was when it was opened, or FileChanged is raised. Where the service compares
the digest as well, not even a change that leaves size and time as they were gets through.
"""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Self

from client.push.plan import PlannedFile
from client.push.unsent import Unsent

#: What is read at once, in bytes.
PIECE_BYTES: Final = 256 * 1024
#: A file written so short a time ago may be written again without another time of its last change: the kernel's clock
#: for these ticks every 4 to 10 ms.
_TICK_S: Final = 0.02


class FileChanged(Unsent):
    """Raised when a file is not the same any more."""

    def __init__(self) -> None:
        super().__init__("file_changed")


@dataclass(frozen=True)
class FileIdentity:
    """What tells that a file is still the same."""

    device: int
    inode: int
    size: int
    mtime_ns: int


class SourceFile:
    """A plain file of this machine, open for reading."""

    def __init__(self, file: PlannedFile) -> None:
        """Open it. Raises Unsent when it cannot be read, or is no plain file."""
        self._name = file.source
        try:
            # Whatever stands there by now: a pipe does not hang, and a link is followed only if that was asked for.
            self._descriptor = os.open(
                file.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if file.follow else os.O_NOFOLLOW))
        except OSError as error:
            raise Unsent("unreadable_file", f"{error.strerror}.") from None
        try:
            found = os.fstat(self._descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise Unsent("not_a_file")
            if time.time_ns() - found.st_mtime_ns < _TICK_S * 1e9:
                time.sleep(_TICK_S)
            self.identity: Final = self._look()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)

    def _look(self) -> FileIdentity:
        found = os.fstat(self._descriptor)
        return FileIdentity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def check_unchanged(self) -> None:
        """Raise FileChanged unless the file is as it was when it was opened."""
        if self._look() != self.identity:
            raise FileChanged

    def read(self, begin: int, size: int) -> bytes:
        """So many bytes from `begin` on. Raises FileChanged where there are fewer, and Unsent if it cannot be read."""
        pieces = []
        while size:
            try:
                piece = os.pread(self._descriptor, size, begin)
            except OSError as error:
                raise Unsent("unreadable_file", f"{error.strerror}.") from None
            if not piece:
                raise FileChanged
            pieces.append(piece)
            begin += len(piece)
            size -= len(piece)
        return b"".join(pieces)

    def read_whole(self) -> bytes:
        """All of it, as it was when it was opened."""
        content = self.read(0, self.identity.size)
        if os.pread(self._descriptor, 1, self.identity.size):
            raise FileChanged
        self.check_unchanged()
        return content

    def pieces(self, begin: int, end: int, passed: Callable[[int], None]) -> Iterator[bytes]:
        """The bytes from `begin` to `end`; the last piece only if the file has not changed until then.

        `passed` is told the size of each piece after it was used.
        """
        while begin < end:
            piece = self.read(begin, min(PIECE_BYTES, end - begin))
            begin += len(piece)
            if begin == end:
                self.check_unchanged()
            yield piece
            passed(len(piece))

    def sha256(self, passed: Callable[[int], None]) -> bytes:
        """The digest of all of it; `passed` is told of each piece that was read."""
        digest = hashlib.sha256()
        for piece in self.pieces(0, self.identity.size, passed):
            digest.update(piece)
        return digest.digest()
