"""An upload on its way into the spool: unnamed while it is received, then sealed under its name, then decided about."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
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
    """An upload that is being received; see `daemon.spool.Incoming`. Every method may block on the disk."""

    def __init__(self, descriptor: int, directory_of: Callable[[int], int]) -> None:
        """`descriptor` is of an unnamed file; `directory_of` gives a descriptor of a bucket's directory."""
        self._directory_of = directory_of
        self._descriptor = descriptor
        self._digest = hashlib.sha256()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._written_bytes = 0
        self._reserved = False
        #: Its description follows its bytes; all of it is on the disk.
        self._ended = False
        self._synced = False
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
        self.hash((data,))
        self.store((data,))

    def hash(self, pieces: Sequence[bytes]) -> None:
        """The half of `write` that needs a processor."""
        for piece in pieces:
            self._digest.update(piece)

    def store(self, pieces: Sequence[bytes]) -> None:
        """The half of `write` that needs the disk. Raises as `write` does."""
        for piece in pieces:
            self.size += len(piece)
            self._held.append(piece)
            self._held_bytes += len(piece)
            if self._held_bytes > _HELD_BYTES or len(self._held) >= _HELD_PIECES:
                try:
                    self._write_held()
                except OSError as error:
                    raise rejected(error) from error

    def _write_held(self) -> None:
        failpoints.reach("spool.write")
        _write_all(self._descriptor, self._held, self._written_bytes)
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

    def complete(self, upload: Upload) -> None:
        """Bring all of the upload to the disk, ahead of sealing it. Nothing is written after that.

        Raises Rejected('no_room') or Rejected('storage_failed'); discard it then.
        """
        try:
            self.end(upload)
            self.sync(upload)
        except OSError as error:
            raise rejected(error) from error

    def seal(self, upload: Upload) -> "FileSealed":
        """Seal it alone; raise the Rejected that `seal_all` answers."""
        [answer] = seal_all([(self, upload)])
        if isinstance(answer, Rejected):
            raise answer
        return answer

    # --- the steps of sealing: each raises OSError, and does nothing the second time -----------------------

    def end(self, upload: Upload) -> None:
        """Write what is held, and the ending."""
        if self._ended:
            return
        if self._reserved:
            os.ftruncate(self._descriptor, self._written_bytes)
        self._held.append(ending(upload))
        self._write_held()
        self._ended = True

    def begin_sync(self, _upload: Upload) -> None:
        """Have it on its way to the disk; wait for nothing."""
        if not self._synced:
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def sync(self, _upload: Upload) -> None:
        """Wait until all of it is on the disk."""
        if not self._synced and failpoints.reach("spool.sync"):
            os.fdatasync(self._descriptor)
        self._synced = True

    def link(self, upload: Upload) -> "FileSealed":
        """Lock it and give it its name."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        directory = self._directory_of(upload.destination.bucket)
        failpoints.reach("spool.link")
        os.link(f"/proc/self/fd/{self._descriptor}", upload.task_id, dst_dir_fd=directory, follow_symlinks=True)
        sealed = FileSealed(upload, self._descriptor, directory)
        self._descriptor = -1
        return sealed


@dataclass
class FileSealed:
    """A durable upload whose row is not decided yet; its file is locked until it is released or withdrawn."""

    upload: Upload
    _descriptor: int
    directory: int

    def release(self) -> None:
        """Let go of the file; it stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


Answer = FileSealed | Rejected


def seal_all(batch: Sequence[tuple[FileIncoming, Upload]]) -> list[Answer]:
    """Seal uploads together, and answer for each by itself; see `daemon.spool.Receive.seal_all`.

    Each step is done for all of them before the next one begins: the disk brings many files to rest in the time that a
    few take, and a directory is synced once. None gets its name before all of it is on the disk.
    """
    answers: list[Answer | None] = [None] * len(batch)
    for step in _STEPS:
        answers = [answer or _try(step, *one) for answer, one in zip(answers, batch, strict=True)]
    return _sync_directories([answer for answer in answers if answer is not None])


#: The steps of sealing one upload. The last one gives it its name.
_STEPS: Final[Sequence[Callable[[FileIncoming, Upload], FileSealed | None]]] = (
    FileIncoming.end, FileIncoming.begin_sync, FileIncoming.sync, FileIncoming.link)


def _try(
    step: Callable[[FileIncoming, Upload], FileSealed | None], incoming: FileIncoming, upload: Upload,
) -> Answer | None:
    try:
        return step(incoming, upload)
    except OSError as error:
        incoming.discard()
        return rejected(error)


def _sync_directories(answers: Sequence[Answer]) -> list[Answer]:
    """Make the names durable; who has one in a directory for which that fails may have it or not."""
    failed = _sync_each(answer.directory for answer in answers if isinstance(answer, FileSealed))
    return [answer if isinstance(answer, Rejected) else _unless(failed.get(answer.directory), answer)
            for answer in answers]


def _sync_each(directories: Iterable[int]) -> dict[int, Rejected]:
    """Sync directories, each once; return those for which that failed."""
    failed: dict[int, Rejected] = {}
    for directory in dict.fromkeys(directories):
        try:
            if failpoints.reach("spool.dirsync"):
                os.fsync(directory)
        except OSError as error:
            failed[directory] = Rejected("outcome_unknown", f"The spool's directory: {error.strerror}.")
    return failed


def _unless(failure: Rejected | None, sealed: FileSealed) -> Answer:
    if failure is None:
        return sealed
    sealed.release()
    return failure


def withdraw_all(sealed: Sequence[FileSealed]) -> list[Rejected | None]:
    """Take uploads back together, and answer for each; see `daemon.spool.Receive.withdraw_all`."""
    stayed = {one.upload.task_id: error for one in sealed if (error := _unlink(one)) is not None}
    failed = _sync_each(one.directory for one in sealed)
    for one in sealed:
        one.release()
    return [stayed.get(one.upload.task_id) or failed.get(one.directory) for one in sealed]


def _unlink(sealed: FileSealed) -> Rejected | None:
    try:
        os.unlink(sealed.upload.task_id, dir_fd=sealed.directory)
    except OSError as error:
        return Rejected("outcome_unknown", f"The spool: {error.strerror}.")
    return None


def _write_all(descriptor: int, pieces: Sequence[bytes], at: int) -> None:
    written = os.pwritev(descriptor, pieces, at)
    if written < sum(map(len, pieces)):
        # A filling disk shows first as a short write.
        rest = memoryview(b"".join(pieces))
        while written < len(rest):
            written += os.pwrite(descriptor, rest[written:], at + written)


def rejected(error: OSError) -> Rejected:
    """The answer to a client whose upload met this."""
    if error.errno in NO_ROOM:
        return Rejected("no_room", f"The spool's disk: {error.strerror}.")
    return Rejected("storage_failed", f"The spool: {error.strerror}.")
