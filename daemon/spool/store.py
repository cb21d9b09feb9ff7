"""The spool: uploads on the disk. A linked file is an upload; its row in the queue is the index to it.

A file holds the bytes of the upload, then the upload as JSON, then a footer (`_FOOTER`). It exists under its
name only once all of that is on the disk. Guarantees:

- a crash before the link leaves nothing; after it, the whole upload;
- the writer holds a lock on the file until its row is decided, so that recovery never meets a half-done one;
- the name's suffix tells dead letters and held uploads apart without the queue (`Mark`).

What it does not do: it never deletes what it does not understand, and it keeps no counts.
"""

import errno
import io
import os
import stat
from collections.abc import Iterable
from enum import Enum
from functools import cached_property
from typing import BinaryIO, Final, NamedTuple

from daemon import failpoints
from daemon.errors import Undelivered
from daemon.model.upload import BUCKETS, Upload, is_task_id
from daemon.spool.file_format import ends_with, read_meta
from daemon.spool.writer import Incoming, rejected
from daemon.state.layout import Layout

#: What opening a symbolic link, or a socket, ends with.
_NO_FILE: Final = frozenset({errno.ELOOP, errno.ENXIO})
#: Room is set aside on the disk beforehand for uploads of at least this size.
_PREALLOCATE_BYTES: Final = 2**20


class Mark(Enum):
    """What a file's name says of its upload: a rebuild revives neither dead letters nor held ones."""

    PENDING = ""
    FAILED = ".failed"
    HELD = ".held"


#: What is known of an upload that only its mark says something of.
STOPPED: Final = {Mark.FAILED: "It had failed before; why, and what came after, is lost.",
                  Mark.HELD: "It was held before; by whom, and what came after, is lost."}


class Stopped(Undelivered):
    """Raised for an upload that is to be delivered as its row says, and not as its file's name says (`mark`).

    A worker marks the file before it writes the row: the row is older than the name, and what came after is lost.
    """

    def __init__(self, mark: Mark) -> None:
        super().__init__("order_unknown", STOPPED[mark])
        self.mark: Final = mark


class Name(NamedTuple):
    """One file of the spool. `mark` is None for a name that is no upload's."""

    bucket: int
    file: str
    task_id: str
    mark: Mark | None


class Spool:
    """The uploads under one state directory. May be used from several threads and processes."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._directories: dict[int, int] = {}

    def free_bytes(self) -> int:
        """Room on the spool's filesystem for an unprivileged user."""
        room = os.statvfs(self._layout.spool)
        return room.f_bavail * room.f_frsize

    def begin(self, expected_bytes: int | None = None) -> Incoming:
        """Start an upload in an unnamed file; set `expected_bytes` of room aside for it if that is much.

        Raises Rejected('no_room') or Rejected('storage_failed'); nothing is left then.
        """
        try:
            failpoints.reach("spool.open")
            flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
            incoming = Incoming(os.open(self._layout.spool, flags, self._layout.file_mode), self.directory)
        except OSError as error:
            raise rejected(error) from error
        if expected_bytes is not None and expected_bytes >= _PREALLOCATE_BYTES:
            incoming.set_aside(expected_bytes)
        return incoming

    def directory(self, bucket: int) -> int:
        """A descriptor of the bucket's directory, opened once."""
        if bucket not in self._directories:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            opened = os.open(self._layout.bucket(bucket), flags)
            if self._directories.setdefault(bucket, opened) != opened:
                os.close(opened)
        return self._directories[bucket]

    def is_in_place(self) -> bool:
        """False when a bucket's directory is gone, or is not the one that is open here: nothing can be stored then."""
        return all(self._is_in_place(bucket) for bucket in range(BUCKETS))

    def _is_in_place(self, bucket: int) -> bool:
        try:
            named = os.stat(self._layout.bucket(bucket))
        except OSError:
            return False
        return bucket not in self._directories or os.path.samestat(named, os.fstat(self._directories[bucket]))

    def open(self, upload: Upload) -> BinaryIO:
        """Open the bytes of an upload for reading, at 0; they end after `upload.size`, then comes the footer.

        Trusts nothing: the file must be a regular file with one name, owned by the spool's owner or this user,
        and describe the same upload. Raises Undelivered: bytes_missing, bytes_damaged, invalid_row, io_error.
        """
        return self._open_marked(upload)[0]

    def open_pending(self, upload: Upload) -> BinaryIO:
        """Open the bytes of an upload that is to be delivered, as `open` does.

        Raises Stopped besides, when the name says that it is a dead letter, or held.
        """
        file, mark = self._open_marked(upload)
        if mark is not Mark.PENDING:
            file.close()
            raise Stopped(mark)
        return file

    def _open_marked(self, upload: Upload) -> tuple[BinaryIO, Mark]:
        for mark in Mark:
            try:
                return self._open_checked(upload, upload.task_id + mark.value), mark
            except FileNotFoundError:
                continue
            except OSError as error:
                code = "invalid_row" if error.errno in _NO_FILE else "io_error"
                raise Undelivered(code, f"{upload.task_id}: {error.strerror}") from error
        raise Undelivered("bytes_missing")

    def _open_checked(self, upload: Upload, name: str) -> BinaryIO:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=self.directory(upload.destination.bucket))
        try:
            self._check_owner(os.fstat(descriptor))
            if not (ends_with(descriptor, upload) or same_upload(read_meta(descriptor), upload)):
                raise Undelivered("invalid_row", "The spooled file describes another upload.")
        except ValueError as error:
            os.close(descriptor)
            raise Undelivered("bytes_damaged", str(error)) from error
        except BaseException:
            os.close(descriptor)
            raise
        file = os.fdopen(descriptor, "rb", buffering=0)
        return io.BufferedReader(file, 1024 * 1024) if upload.size > 2**16 else io.BufferedReader(file)

    def _check_owner(self, found: os.stat_result) -> None:
        if not self.is_own(found):
            raise Undelivered("invalid_row", "The spooled file is not a plain file of the service's own.")

    def is_own(self, found: os.stat_result) -> bool:
        """True for a regular file with one name that belongs to the spool's owner or to this user."""
        return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid in self._owners

    @cached_property
    def _owners(self) -> frozenset[int]:
        return frozenset({os.getuid(), os.stat(self._layout.spool).st_uid})

    def mark(self, upload: Upload, mark: Mark) -> None:
        """Rename an upload's file so that its name says `mark`, durably. A file that is gone is left gone."""
        directory = self.directory(upload.destination.bucket)
        failpoints.reach("spool.mark")
        for old in Mark:
            if old is mark:
                continue
            try:
                os.rename(upload.task_id + old.value, upload.task_id + mark.value,
                          src_dir_fd=directory, dst_dir_fd=directory)
            except FileNotFoundError:
                continue
            os.fsync(directory)
            return

    def remove(self, uploads: Iterable[Upload]) -> dict[str, OSError]:
        """Unlink the files of uploads, in the order given, and make that durable.

        The order matters: of one path the older goes first, so that a rebuild never finds an older without
        the newer. A file that is gone already counts as removed. Returns, by task id, those that could not be
        removed and why. Raises OSError when it cannot be made durable: treat them all as still there then.
        """
        touched = set()
        failed = {}
        for upload in uploads:
            directory = self.directory(upload.destination.bucket)
            touched.add(directory)
            try:
                if failpoints.reach("spool.unlink"):
                    _unlink_any(upload.task_id, directory)
            except OSError as error:
                failed[upload.task_id] = error
        failpoints.reach("spool.unlinked")
        for directory in touched:
            os.fsync(directory)
        return failed

    def names(self, bucket: int) -> list[Name]:
        """Every file of a bucket, by name: uploads in the order of their acceptance."""
        return [name_of(bucket, file) for file in sorted(os.listdir(self.directory(bucket)))]

    def read(self, name: Name) -> Upload:
        """The upload that a file holds. Raises ValueError when the file is not whole, OSError when unreadable."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name.file, flags, dir_fd=self.directory(name.bucket))
        try:
            return read_meta(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of the directories."""
        while self._directories:
            os.close(self._directories.popitem()[1])


def same_upload(found: Upload, wanted: Upload) -> bool:
    """True when two descriptions are of one upload."""
    return (found.task_id, found.destination, found.size, found.sha256) == (
        wanted.task_id, wanted.destination, wanted.size, wanted.sha256)


def name_of(bucket: int, file: str) -> Name:
    """What a file's name in a bucket says."""
    task_id, dot, suffix = file.partition(".")
    marks = {mark.value: mark for mark in Mark}
    return Name(bucket, file, task_id, marks.get(dot + suffix) if is_task_id(task_id) else None)


def _unlink_any(task_id: str, directory: int) -> None:
    for mark in Mark:
        try:
            os.unlink(task_id + mark.value, dir_fd=directory)
        except FileNotFoundError:
            continue
        return
