"""The spool in files. A name is an upload; its row in the queue is the index to it.

The file behind it holds the upload, or several small ones that were sealed together (`file_format`). It gets a name
only once all of it is on the disk. Guarantees:

- a crash before the link leaves nothing; after it, the whole upload, whatever became of others in its file;
- the writer holds a lock on the file until the rows of all that is in it are decided, so that recovery never meets a
  half-done one;
- what is done to an upload is done to its name, and touches no other;
- the name's suffix tells dead letters and held uploads apart without the queue (`Mark`).
"""

import errno
import io
import os
from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Final, cast

from daemon import failpoints
from daemon.errors import Rejected, Undelivered
from daemon.model.upload import BUCKETS, Destination, Upload
from daemon.spool.capabilities import Incoming, Opened, Sealed
from daemon.spool.file_format import MAX_PACKED, Portion, ends_with, portion_of, read_meta, read_whole
from daemon.spool.values import Mark, Stopped, same_upload
from daemon.spool.writer import FileIncoming, FileSealed, seal_all, withdraw_all
from daemon.state.files import Removal, is_own
from daemon.state.layout import Layout
from daemon.state.room import explained

#: What opening a symbolic link, or a socket, ends with.
_NO_FILE: Final = frozenset({errno.ELOOP, errno.ENXIO})
#: Bytes of an upload that are read at once, together with what follows them.
_SMALL_BYTES: Final = 64 * 1024


class FileSpool:
    """The uploads under one state directory. May be used from several threads and processes."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._directories: dict[int, int] = {}
        self._next_bucket = cycle(range(BUCKETS)).__next__

    def free_bytes(self) -> int:
        """Room on the spool's filesystem for an unprivileged user."""
        room = os.statvfs(self._layout.spool)
        return room.f_bavail * room.f_frsize

    def begin(self, expected_bytes: int | None = None) -> FileIncoming:
        """Start an upload, in an unnamed file with room for `expected_bytes` on the disk if they are known.

        Raises Rejected('no_room') or Rejected('storage_failed'); nothing is left then.
        """
        incoming = FileIncoming(self._unnamed, self.directory)
        if expected_bytes is not None:
            incoming.reserve(expected_bytes)
        return incoming

    def seal_all(self, batch: Sequence[tuple[Incoming, Upload]]) -> list[FileSealed | Rejected]:
        """Seal uploads together, and answer for each by itself; see `daemon.spool.Receive`."""
        # They are all of this spool's making.
        return seal_all(cast(Sequence[tuple[FileIncoming, Upload]], batch))

    def withdraw_all(self, sealed: Sequence[Sealed]) -> list[Rejected | None]:
        """Take uploads back, and answer for each; see `daemon.spool.Receive`."""
        return withdraw_all(cast(Sequence[FileSealed], sealed))

    def _unnamed(self) -> int:
        # Which bucket it belongs to is known later; the directory above them is for nobody to write in. Not always the
        # same: where many files came and went, ext4 without a journal looks at each of them before it makes one more.
        flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
        try:
            failpoints.reach("spool.open")
            return os.open(".", flags, self._layout.file_mode, dir_fd=self.directory(self._next_bucket()))
        except OSError as error:
            raise explained(error, self._layout.spool) from None

    def directory(self, bucket: int) -> int:
        """A descriptor of the bucket's directory, opened once."""
        if bucket not in self._directories:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            opened = os.open(self._layout.bucket(bucket), flags)
            if self._directories.setdefault(bucket, opened) != opened:
                os.close(opened)
        return self._directories[bucket]

    def is_in_place(self) -> bool:
        """False when a bucket's directory is gone, or is not the one that is open here: nothing can be stored then."""
        return all(self._is_in_place(bucket) for bucket in range(BUCKETS))

    def _is_in_place(self, bucket: int) -> bool:
        try:
            named = os.lstat(self._layout.bucket(bucket))
        except OSError:
            return False
        return bucket not in self._directories or os.path.samestat(named, os.fstat(self._directories[bucket]))

    def holds(self, bucket: int, task_id: str) -> bool:
        """True when an upload has a file, whatever its mark."""
        return any(_is_there(task_id + mark.value, self.directory(bucket)) for mark in Mark)

    def is_empty(self) -> bool:
        """True when there is nothing in any bucket, as far as that can be told."""
        return not any(self._may_hold(bucket) for bucket in range(BUCKETS))

    def _may_hold(self, bucket: int) -> bool:
        try:
            with os.scandir(self._layout.bucket(bucket)) as entries:
                return next(entries, None) is not None
        except PermissionError:
            return True

    def open(self, upload: Upload) -> Opened:
        """Open the bytes of an upload for reading, at 0; they end after `upload.size`, then comes the footer.

        Trusts nothing: the file must be a regular file with no more names than uploads, owned by one of the service's
        users, and describe the same upload. Raises Undelivered: bytes_missing, bytes_damaged, invalid_row, io_error.
        """
        return self._open_marked(upload)[0]

    def open_pending(self, upload: Upload) -> Opened:
        """Open the bytes of an upload that is to be delivered, as `open` does.

        Raises Stopped besides, when the name says that it is a dead letter, or held.
        """
        file, mark = self._open_marked(upload)
        if mark is not Mark.PENDING:
            file.close()
            raise Stopped(mark)
        return file

    def _open_marked(self, upload: Upload) -> tuple[Opened, Mark]:
        for mark in Mark:
            try:
                return self._open_checked(upload, upload.task_id + mark.value), mark
            except FileNotFoundError:
                continue
            except OSError as error:
                code = "invalid_row" if error.errno in _NO_FILE else "io_error"
                raise Undelivered(code, f"{upload.task_id}: {error.strerror}") from error
        raise Undelivered("bytes_missing")

    def _open_checked(self, upload: Upload, name: str) -> Opened:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=self.directory(upload.destination.bucket))
        try:
            return self._open_file(descriptor, upload)
        except ValueError as error:
            raise Undelivered("bytes_damaged", str(error)) from error
        finally:
            os.close(descriptor)

    def _open_file(self, descriptor: int, upload: Upload) -> Opened:
        """The bytes of `upload`, in an open file. Raises ValueError when it is not whole, and Undelivered."""
        portion = self._own_portion(descriptor, os.fstat(descriptor), upload.task_id)
        if portion is None:
            raise Undelivered("invalid_row", "The spooled file is not a plain file of the service's own.")
        if upload.size <= _SMALL_BYTES and (whole := read_whole(descriptor, portion, upload)) is not None:
            return io.BytesIO(whole)
        if not (ends_with(descriptor, portion, upload) or same_upload(read_meta(descriptor, portion), upload)):
            raise Undelivered("invalid_row", "The spooled file describes another upload.")
        if portion.of > 1:
            return io.BytesIO(os.pread(descriptor, upload.size, portion.start))
        # Whoever reads takes large pieces, and there may be many such files.
        return os.fdopen(os.dup(descriptor), "rb", buffering=0)

    def _own_portion(self, descriptor: int, found: os.stat_result, task_id: str) -> Portion | None:
        """Where an upload is in a file that looks like this. Raises ValueError when it is not in there.

        None unless that is a regular file of one of the service's users with no more names than it has uploads.
        """
        if not is_own(found, self._layout.users, most_names=MAX_PACKED):
            return None
        portion = portion_of(descriptor, found.st_size, task_id)
        return portion if found.st_nlink <= portion.of else None

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

    def remove(self, uploads: Iterable[Upload]) -> dict[str, str]:
        """Unlink the names of uploads, in the order given, and make that durable.

        The order matters: of one path the older goes first, so that a rebuild never finds an older without
        the newer; where the older has to stay, so does the newer. A file that is gone already counts as
        removed. Returns, by task id, those that could not be removed and why. Raises OSError when it cannot
        be made durable: treat them all as still there then.
        """
        touched = set()
        failed: dict[str, str] = {}
        stuck: dict[Destination, str] = {}
        with Removal(_sync_gone) as removal:
            for upload in uploads:
                if upload.destination not in stuck:
                    try:
                        touched.add(self._unlink(upload, removal))
                    except OSError as error:
                        stuck[upload.destination] = error.strerror or str(error)
                if upload.destination in stuck:
                    failed[upload.task_id] = stuck[upload.destination]
            removal.finish()
        failpoints.reach("spool.unlinked")
        for directory in touched:
            os.fsync(directory)
        return failed

    def _unlink(self, upload: Upload, removal: Removal) -> int:
        """Unlink the file of an upload; return its directory, which is to be synced. Raises OSError."""
        directory = self.directory(upload.destination.bucket)
        if failpoints.reach("spool.unlink"):
            _unlink_any(upload.task_id, directory, removal)
        return directory

    def close(self) -> None:
        """Let go of the directories."""
        while self._directories:
            os.close(self._directories.popitem()[1])


def _is_there(file: str, directory: int) -> bool:
    try:
        os.stat(file, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _sync_gone(descriptor: int) -> None:
    if failpoints.reach("spool.gonesync"):
        os.fsync(descriptor)


def _unlink_any(task_id: str, directory: int, removal: Removal) -> None:
    for mark in Mark:
        try:
            removal.unlink(task_id + mark.value, directory)
        except (FileNotFoundError, IsADirectoryError):
            # A directory has no bytes of the upload; whoever compares queue and spool sets it aside.
            continue
        return
