"""Looking into the spool for recovery: what is there, whether it is whole, and moving what is not.

Nothing is deleted here, and nothing is overwritten.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from typing import Final

from daemon.model.upload import Upload
from daemon.spool.file_format import portion_in, read_list, read_meta
from daemon.spool.store import FileSpool
from daemon.spool.values import Found, Mark, Name, Undecided, name_of
from daemon.state.layout import Layout
from daemon.state.quarantine import retire

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: What opening something says that is no plain file.
_NO_FILE: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.EACCES, errno.EPERM})


class FileSpoolCheck(FileSpool):
    """The spool as recovery sees it. One thread at a time."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        #: The pack that was looked at last, and its list: the uploads in it are looked for one after the other.
        self._last_pack: tuple[tuple[int, ...], bytes] = ((), b"")

    def changed_at(self, bucket: int) -> float:
        """When a name in the bucket last came or went, in seconds since the epoch."""
        return os.stat(self._layout.bucket(bucket)).st_mtime

    def scan(self, bucket: int) -> Iterator[Name]:
        """What is in a bucket, as it comes. What is no plain file is no upload's, whatever its name."""
        with os.scandir(self._layout.bucket(bucket)) as entries:
            for entry in entries:
                name = name_of(bucket, entry.name)
                yield name if entry.is_file(follow_symlinks=False) else name._replace(mark=None)

    def look(self, bucket: int, task_id: str, expected: Mark = Mark.PENDING) -> Found | None:
        """The file of an upload, looked for under its `expected` name first; None when there is none."""
        directory = self.directory(bucket)
        for mark in (expected, *(mark for mark in Mark if mark is not expected)):
            try:
                found = os.stat(task_id + mark.value, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(found.st_mode):
                return Found(mark, self._size(found, task_id, task_id + mark.value, directory))
        return None

    def _size(self, found: os.stat_result, task_id: str, file: str, directory: int) -> int:
        """What an upload takes in its file; all that is in the file where that is not told at once."""
        if found.st_nlink == 1:
            return found.st_size
        try:
            portion = portion_in(self._list(found, file, directory), task_id)
        except (OSError, ValueError):
            # Whoever examines it learns why.
            return found.st_size
        return portion.end - portion.start

    def _list(self, found: os.stat_result, file: str, directory: int) -> bytes:
        stamp = (found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)
        if stamp != self._last_pack[0]:
            descriptor = os.open(file, _READ, dir_fd=directory)
            try:
                self._last_pack = stamp, read_list(descriptor, found.st_size) or b""
            finally:
                os.close(descriptor)
        return self._last_pack[1]

    def examine(self, name: Name) -> Upload:
        """The upload that a file holds.

        Raises Undecided while a writer holds the lock, FileNotFoundError when it has gone, ValueError saying why
        it is no whole upload of that name, and OSError when the disk cannot read it.
        """
        try:
            descriptor = os.open(name.file, _READ, dir_fd=self.directory(name.bucket))
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in _NO_FILE:
                raise ValueError(f"It is not a plain file: {error.strerror}.") from error
            raise
        try:
            # A writer never takes the lock again, so what it has decided can be seen from here on.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return self._read(descriptor, name)
        except BlockingIOError as error:
            raise Undecided from error
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int, name: Name) -> Upload:
        found = os.fstat(descriptor)
        if found.st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        portion = self._own_portion(descriptor, found, name.task_id)
        if portion is None:
            raise ValueError("It is not a plain file of the service's own.")
        upload = read_meta(descriptor, portion)
        if upload.task_id != name.task_id:
            raise ValueError(f"It holds the upload {upload.task_id}.")
        return upload

    def move(self, name: Name, bucket: int) -> bool:
        """Move a file into another bucket, durably; False when something there has a name of its upload."""
        if self.holds(bucket, name.task_id):
            return False
        source, target = self.directory(name.bucket), self.directory(bucket)
        os.rename(name.file, name.file, src_dir_fd=source, dst_dir_fd=target)
        os.fsync(target)
        os.fsync(source)
        return True

    def where(self, name: Name) -> str:
        """The path of a file."""
        return str(self._layout.bucket(name.bucket) / name.file)

    def set_aside(self, name: Name) -> str:
        """Move a doubtful file to lost+found, durably, and return its new path."""
        return str(retire(self._layout, self._layout.bucket(name.bucket) / name.file))

    def keep_note(self, name: str, text: str) -> str:
        """Write a file into lost+found, durably, and return its path."""
        draft = self._layout.queue / name
        descriptor = self._layout.open(draft, os.O_CREAT | os.O_WRONLY)
        with os.fdopen(descriptor, "w") as file:
            file.truncate(0)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        return str(retire(self._layout, draft))
