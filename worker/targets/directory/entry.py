"""Where a file goes: an open directory and a name in it."""

import errno
import os
import stat
from typing import Final

from daemon.errors import Undelivered
from worker.targets.attributes import Attributes, where
from worker.targets.base import Delivery
from worker.targets.directory.content import ACCESS_LIST, attributes_of

#: What Linux says when a file has no access list: no such file, none of it, none of any.
_NO_ACCESS_LIST: Final = frozenset({errno.ENOENT, errno.ENODATA, errno.ENOTSUP})

#: Whatever has the name by now: no link is followed, no FIFO waited for.
_NEVER_WAIT: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Entry:
    """An open directory, a name in it, and the name of the file that is being filled. Its methods raise OSError."""

    def __init__(self, directory: int, name: bytes, part: bytes) -> None:
        """`directory` is somebody else's to close."""
        self.directory = directory
        self.name = name
        self.part = part
        #: What `look` saw: its device and inode.
        self._seen: tuple[int, int] | None = None

    def look(self) -> Attributes | None:
        """What is there, or None."""
        try:
            found = os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        self._seen = (found.st_dev, found.st_ino)
        return attributes_of(found)

    def open_seen(self, delivery: Delivery, flags: int) -> int:
        """Open the very file that `look` saw. Nothing is waited for. Raises Undelivered('verify_failed') otherwise."""
        file = os.open(self.name, flags | _NEVER_WAIT, dir_fd=self.directory)
        found = os.fstat(file)
        # The number of a file that is gone may be another's by now.
        if (found.st_dev, found.st_ino) != self._seen or not stat.S_ISREG(found.st_mode):
            os.close(file)
            raise Undelivered("verify_failed", f"{where(delivery)}: another file is there than before")
        return file

    def access_list(self) -> bytes | None:
        """The access list of what is there, or None."""
        path = b"/proc/self/fd/%d/%b" % (self.directory, self.name)
        try:
            return os.getxattr(path, ACCESS_LIST, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NO_ACCESS_LIST:
                return None
            raise

    def rename_part(self, delivery: Delivery) -> None:
        """Give the part file its name. Raises Undelivered when it is gone, and OSError."""
        try:
            os.rename(self.part, self.name, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        except FileNotFoundError as error:
            raise Undelivered("verify_failed", f"{where(delivery)}: its part file is gone") from error

    def remove_part(self) -> bool:
        """Remove the part file; True if there was one."""
        try:
            os.unlink(self.part, dir_fd=self.directory)
        except FileNotFoundError:
            return False
        return True
