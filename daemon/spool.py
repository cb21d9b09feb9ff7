"""The spool: uploads on the disk. A linked file is an upload; its row in the queue is the index to it.

A file holds the bytes of the upload, then the upload as JSON, then a footer (`_FOOTER`). It exists under its
name only once all of that is on the disk. Guarantees:

- a crash before the link leaves nothing; after it, the whole upload;
- the writer holds a lock on the file until its row is decided, so that recovery never meets a half-done one;
- the name's suffix tells dead letters and held uploads apart without the queue (`Mark`).

What it does not do: it never deletes what it does not understand, and it keeps no counts.
"""

import errno
import fcntl
import hashlib
import io
import os
import stat
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO, Final, NamedTuple

from daemon import seam
from daemon.errors import Rejected, Undelivered
from daemon.layout import Layout
from daemon.task import Upload, is_task_id

#: magic, length of the JSON in bytes, its CRC-32
_FOOTER: Final = struct.Struct(">8sII")
#: What a file holds besides the bytes and the description of its upload.
FOOTER_BYTES: Final = _FOOTER.size
_MAGIC: Final = b"courier1"
#: No description of an upload is longer (path 4095 bytes, name, key; JSON escapes).
_MAX_META_BYTES: Final = 64 * 1024
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: Room is set aside on the disk beforehand for uploads of at least this size.
_PREALLOCATE_BYTES: Final = 2**20


class Mark(Enum):
    """What a file's name says of its upload: a rebuild revives neither dead letters nor held ones."""

    PENDING = ""
    FAILED = ".failed"
    HELD = ".held"


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

    def begin(self, expected_bytes: int | None = None) -> "Incoming":
        """Start an upload in an unnamed file; set `expected_bytes` of room aside for it if that is much.

        Raises Rejected('no_room') or Rejected('storage_failed'); nothing is left then.
        """
        try:
            seam.reach("spool.open")
            flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
            incoming = Incoming(self, os.open(self._layout.spool, flags, self._layout.file_mode))
        except OSError as error:
            raise _rejected(error) from error
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

    def open(self, upload: Upload) -> BinaryIO:
        """Open the bytes of an upload for reading, at 0; they end after `upload.size`, then comes the footer.

        Trusts nothing: the file must be a regular file with one name, owned by the spool's owner or this user,
        and describe the same upload. Raises Undelivered: bytes_missing, bytes_damaged, invalid_row, io_error.
        """
        for mark in Mark:
            try:
                return self._open_checked(upload, upload.task_id + mark.value)
            except FileNotFoundError:
                continue
            except OSError as error:
                code = "invalid_row" if error.errno == errno.ELOOP else "io_error"
                raise Undelivered(code, f"{upload.task_id}: {error.strerror}") from error
        raise Undelivered("bytes_missing")

    def _open_checked(self, upload: Upload, name: str) -> BinaryIO:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=self.directory(upload.destination.bucket))
        file = os.fdopen(descriptor, "rb", buffering=0)
        try:
            self._check_owner(os.fstat(descriptor))
            if not same_upload(read_meta(descriptor), upload):
                raise Undelivered("invalid_row", "The spooled file describes another upload.")
        except ValueError as error:
            file.close()
            raise Undelivered("bytes_damaged", str(error)) from error
        except BaseException:
            file.close()
            raise
        return io.BufferedReader(file, 1024 * 1024) if upload.size > 2**16 else io.BufferedReader(file)

    def _check_owner(self, found: os.stat_result) -> None:
        if not self.is_own(found):
            raise Undelivered("invalid_row", "The spooled file is not a plain file of the service's own.")

    def is_own(self, found: os.stat_result) -> bool:
        """True for a regular file with one name that belongs to the spool's owner or to this user."""
        owners = {os.getuid(), os.stat(self._layout.spool).st_uid}
        return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid in owners

    def mark(self, upload: Upload, mark: Mark) -> None:
        """Rename an upload's file so that its name says `mark`, durably. A file that is gone is left gone."""
        directory = self.directory(upload.destination.bucket)
        seam.reach("spool.mark")
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
                if seam.reach("spool.unlink"):
                    _unlink_any(upload.task_id, directory)
            except OSError as error:
                failed[upload.task_id] = error
        seam.reach("spool.unlinked")
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


class Incoming:
    """An upload that is being received. One thread at a time; every method may block on the disk."""

    def __init__(self, spool: Spool, descriptor: int) -> None:
        self._spool = spool
        self._descriptor = descriptor
        self._digest = hashlib.sha256()
        #: Bytes written so far.
        self.size = 0

    def set_aside(self, expected_bytes: int) -> None:
        """Reserve room on the disk. Raises Rejected('no_room'); nothing is left then."""
        try:
            os.posix_fallocate(self._descriptor, 0, expected_bytes)
        except OSError as error:
            if error.errno in _NO_ROOM:
                self.discard()
                raise _rejected(error) from error
            # A filesystem that cannot preallocate: the writes will tell.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes. Raises Rejected('no_room') or Rejected('storage_failed'); discard it then."""
        try:
            seam.reach("spool.write")
            _write_all(self._descriptor, data)
        except OSError as error:
            raise _rejected(error) from error
        self._digest.update(data)
        self.size += len(data)

    def hexdigest(self) -> str:
        """Hexadecimal sha256 of the bytes so far."""
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Leave nothing of it. May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def seal(self, upload: Upload) -> "Sealed":
        """Make the upload durable and give it its name. From here it exists.

        Raises Rejected('no_room') or Rejected('storage_failed') when nothing is left of it, and
        Rejected('outcome_unknown') when it may have stayed. It needs no discard after that.
        """
        bucket = upload.destination.bucket
        try:
            self._append(upload)
            if seam.reach("spool.sync"):
                os.fdatasync(self._descriptor)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            directory = self._spool.directory(bucket)
            seam.reach("spool.link")
            os.link(f"/proc/self/fd/{self._descriptor}", upload.task_id, dst_dir_fd=directory, follow_symlinks=True)
        except OSError as error:
            self.discard()
            raise _rejected(error) from error
        try:
            if seam.reach("spool.dirsync"):
                os.fsync(directory)
        except OSError as error:
            self.discard()
            raise Rejected("outcome_unknown", f"The spool's directory: {error.strerror}.") from error
        sealed = Sealed(upload, self._descriptor, directory)
        self._descriptor = -1
        return sealed

    def _append(self, upload: Upload) -> None:
        meta = upload.to_json().encode()
        os.ftruncate(self._descriptor, self.size)
        seam.reach("spool.write")
        _write_all(self._descriptor, meta + _FOOTER.pack(_MAGIC, len(meta), zlib.crc32(meta)))


@dataclass
class Sealed:
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


def read_meta(descriptor: int) -> Upload:
    """The upload that an open spool file describes. Raises ValueError when the file is not whole."""
    size = os.fstat(descriptor).st_size
    footer = os.pread(descriptor, _FOOTER.size, max(0, size - _FOOTER.size))
    if len(footer) != _FOOTER.size:
        raise ValueError("The file is too short for an upload.")
    magic, length, checksum = _FOOTER.unpack(footer)
    if magic != _MAGIC or length > min(_MAX_META_BYTES, size - _FOOTER.size):
        raise ValueError("The file does not end like an upload.")
    meta = os.pread(descriptor, length, size - _FOOTER.size - length)
    if zlib.crc32(meta) != checksum:
        raise ValueError("The description of the upload is damaged.")
    try:
        upload = Upload.from_json(meta)
    except Rejected as error:
        raise ValueError(error.detail) from error
    if upload.size != size - _FOOTER.size - length:
        raise ValueError("The file is not as long as its upload.")
    return upload


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


def _write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    # A filling disk shows first as a short write.
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view):]


def _rejected(error: OSError) -> Rejected:
    if error.errno in _NO_ROOM:
        return Rejected("no_room", f"The spool's disk: {error.strerror}.")
    return Rejected("storage_failed", f"The spool: {error.strerror}.")
