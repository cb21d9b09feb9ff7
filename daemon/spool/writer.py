"""An upload on its way into the spool: unnamed while it is received, then sealed under its name, then decided about."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from daemon import failpoints
from daemon.errors import Rejected
from daemon.model.upload import Upload
from daemon.spool.file_format import ending
from daemon.state.room import NO_ROOM

#: Bytes, and pieces, that are held in memory until they are written together: a small upload is written once, whole.
_HELD_BYTES: Final = 256 * 1024
_HELD_PIECES: Final = 512


class FileIncoming:
    """An upload that is being received. One thread at a time; every method may block on the disk."""

    def __init__(self, descriptor: int, directory_of: Callable[[int], int]) -> None:
        """`descriptor` is of an unnamed file; `directory_of` gives a descriptor of a bucket's directory."""
        self._directory_of = directory_of
        self._descriptor = descriptor
        self._digest = hashlib.sha256()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._written_bytes = 0
        self._reserved = False
        #: Bytes received so far.
        self.size = 0

    def reserve(self, expected_bytes: int) -> None:
        """Keep room on the disk for it. Raises Rejected('no_room'); nothing is left then."""
        try:
            os.posix_fallocate(self._descriptor, 0, expected_bytes)
            self._reserved = True
        except OSError as error:
            if error.errno in NO_ROOM:
                self.discard()
                raise rejected(error) from error
            # A filesystem that cannot preallocate: the writes will tell.

    def write(self, data: bytes) -> None:
        """Add bytes. Raises Rejected('no_room') or Rejected('storage_failed'); discard it then."""
        self._digest.update(data)
        self.size += len(data)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _HELD_BYTES or len(self._held) >= _HELD_PIECES:
            try:
                self._write_held()
            except OSError as error:
                raise rejected(error) from error

    def _write_held(self, flags: int = 0) -> None:
        failpoints.reach("spool.write")
        _write_all(self._descriptor, self._held, self._written_bytes, flags)
        self._written_bytes += self._held_bytes
        self._held.clear()
        self._held_bytes = 0

    def hexdigest(self) -> str:
        """Hexadecimal sha256 of the bytes so far."""
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Leave nothing of it. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def seal(self, upload: Upload) -> "FileSealed":
        """Make the upload durable and give it its name. From here it exists.

        Raises Rejected('no_room') or Rejected('storage_failed') when nothing is left of it, and
        Rejected('outcome_unknown') when it may have stayed. It needs no discard after that.
        """
        bucket = upload.destination.bucket
        try:
            self._complete(upload)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            directory = self._directory_of(bucket)
            failpoints.reach("spool.link")
            os.link(f"/proc/self/fd/{self._descriptor}", upload.task_id, dst_dir_fd=directory, follow_symlinks=True)
        except OSError as error:
            self.discard()
            raise rejected(error) from error
        try:
            if failpoints.reach("spool.dirsync"):
                os.fsync(directory)
        except OSError as error:
            self.discard()
            raise Rejected("outcome_unknown", f"The spool's directory: {error.strerror}.") from error
        sealed = FileSealed(upload, self._descriptor, directory)
        self._descriptor = -1
        return sealed

    def _complete(self, upload: Upload) -> None:
        """Write what is held, and the ending; all of the file is on the disk then."""
        if self._reserved:
            os.ftruncate(self._descriptor, self._written_bytes)
        self._held.append(ending(upload))
        sync = failpoints.reach("spool.sync")
        if not self._written_bytes:
            self._write_held(os.RWF_DSYNC if sync else 0)
            return
        self._write_held()
        if sync:
            os.fdatasync(self._descriptor)


@dataclass
class FileSealed:
    """A durable upload whose row is not decided yet; its file is locked until `release` or `withdraw`."""

    upload: Upload
    _descriptor: int
    _directory: int

    def release(self) -> None:
        """Let go of the file; it stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def withdraw(self) -> None:
        """Take the upload back. Only right when its row is certainly not in the queue."""
        try:
            os.unlink(self.upload.task_id, dir_fd=self._directory)
            os.fsync(self._directory)
        finally:
            self.release()


def _write_all(descriptor: int, pieces: Sequence[bytes], at: int, flags: int) -> None:
    written = os.pwritev(descriptor, pieces, at, flags)
    if written < sum(map(len, pieces)):
        # A filling disk shows first as a short write.
        rest = memoryview(b"".join(pieces))
        while written < len(rest):
            written += os.pwritev(descriptor, [rest[written:]], at + written, flags)


def rejected(error: OSError) -> Rejected:
    """The answer to a client whose upload met this."""
    if error.errno in NO_ROOM:
        return Rejected("no_room", f"The spool's disk: {error.strerror}.")
    return Rejected("storage_failed", f"The spool: {error.strerror}.")
