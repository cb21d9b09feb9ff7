"""An upload on its way into the spool: unnamed while it is received, then sealed under its name, then decided about."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from daemon import failpoints
from daemon.errors import Rejected
from daemon.model.upload import Upload
from daemon.spool.file_format import ending
from daemon.state.room import NO_ROOM

#: Bytes, and pieces, that are held in memory until they are written together: a small upload is written once, whole.
_HELD_BYTES: Final = 256 * 1024
_HELD_PIECES: Final = 512
#: The steps in which a large file is sent on its way to the disk.
STEP_BYTES: Final = 8 * 2**20


class Naming(Protocol):
    """How a file that is on the disk gets its name in a bucket's directory, and how that is taken back."""

    #: A descriptor of the directory that it leaves, and comes back to; None when it has no name before.
    origin: int | None

    def name(self, descriptor: int, directory: int, task_id: str) -> None:
        """Give the open file its name in the directory. Raises OSError; it has none there then."""

    def take_back(self, directory: int, task_id: str) -> None:
        """Take the name from it. Raises OSError; it stays then."""


class _Linked(Naming):
    """An unnamed file is linked; when that is taken back, nothing is left of it."""

    origin = None

    def name(self, descriptor: int, directory: int, task_id: str) -> None:
        failpoints.reach("spool.link")
        os.link(f"/proc/self/fd/{descriptor}", task_id, dst_dir_fd=directory, follow_symlinks=True)

    def take_back(self, directory: int, task_id: str) -> None:
        os.unlink(task_id, dir_fd=directory)


_LINKED: Final = _Linked()


class FileIncoming:
    """An upload that is being received; see `daemon.spool.Incoming`. Every method may block on the disk."""

    def __init__(self, descriptor: int, directory_of: Callable[[int], int], naming: Naming = _LINKED) -> None:
        """`descriptor` is of a file without a name in a bucket; `directory_of` gives one of a bucket's directory."""
        self._directory_of = directory_of
        self._naming = naming
        self._descriptor = descriptor
        self._digest = hashlib.sha256()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._written_bytes = 0
        #: So many of the first bytes are on the disk.
        self._durable_bytes = 0
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
        write_all(self._descriptor, self._held, self._written_bytes)
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
            os.posix_fadvise(self._descriptor, self._durable_bytes, 0, os.POSIX_FADV_DONTNEED)

    def sync(self, _upload: Upload) -> None:
        """Wait until all of it is on the disk."""
        if not self._synced and failpoints.reach("spool.sync"):
            os.fdatasync(self._descriptor)
        self._synced = True

    def link(self, upload: Upload) -> "FileSealed":
        """Lock it and give it its name."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        directory = self._directory_of(upload.destination.bucket)
        self._naming.name(self._descriptor, directory, upload.task_id)
        sealed = FileSealed(upload, self._descriptor, directory, self._naming)
        self._descriptor = -1
        return sealed


@dataclass
class FileSealed:
    """A durable upload whose row is not decided yet; its file is locked until it is released or withdrawn."""

    upload: Upload
    _descriptor: int
    directory: int
    naming: Naming = _LINKED

    @property
    def directories(self) -> tuple[int, ...]:
        """The directories in which a name came or went; the new one first."""
        return (self.directory,) if self.naming.origin is None else (self.directory, self.naming.origin)

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
    failed = _sync_each(answer for answer in answers if isinstance(answer, FileSealed))
    return [answer if isinstance(answer, Rejected) else _unless(_first_of(failed, answer), answer)
            for answer in answers]


def _first_of(failed: dict[int, Rejected], sealed: FileSealed) -> Rejected | None:
    found = (failed[directory] for directory in sealed.directories if directory in failed)
    return next(found, None) if failed else None


def _sync_each(some: Iterable[FileSealed]) -> dict[int, Rejected]:
    """Sync the directories of uploads, each once; return those for which that failed."""
    failed: dict[int, Rejected] = {}
    for directory in dict.fromkeys(directory for sealed in some for directory in sealed.directories):
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
    stayed = {one.upload.task_id: error for one in sealed if (error := _take_back(one)) is not None}
    failed = _sync_each(sealed)
    for one in sealed:
        one.release()
    return [stayed.get(one.upload.task_id) or _first_of(failed, one) for one in sealed]


def _take_back(sealed: FileSealed) -> Rejected | None:
    try:
        sealed.naming.take_back(sealed.directory, sealed.upload.task_id)
    except OSError as error:
        return Rejected("outcome_unknown", f"The spool: {error.strerror}.")
    return None


def write_all(descriptor: int, pieces: Sequence[bytes], at: int) -> None:
    """Write all of the pieces, at most IOV_MAX of them, from there on. Raises OSError.

    Each whole step is sent on its way: the disk works while more comes, and the sync finds little left to do.
    """
    written = os.pwritev(descriptor, pieces, at)
    size = sum(map(len, pieces))
    if written < size:
        # A filling disk shows first as a short write.
        rest = memoryview(b"".join(pieces))
        while written < len(rest):
            written += os.pwrite(descriptor, rest[written:], at + written)
    _send_on_its_way(descriptor, at, at + size)


def _send_on_its_way(descriptor: int, since: int, until: int) -> None:
    """Of what was written there, send all whole steps to the disk that were not sent yet; wait for none of it."""
    first, last = (end - end % STEP_BYTES for end in (since, until))
    if first < last:
        os.posix_fadvise(descriptor, first, last - first, os.POSIX_FADV_DONTNEED)


def rejected(error: OSError) -> Rejected:
    """The answer to a client whose upload met this."""
    if error.errno in NO_ROOM:
        return Rejected("no_room", f"The spool's disk: {error.strerror}.")
    return Rejected("storage_failed", f"The spool: {error.strerror}.")
