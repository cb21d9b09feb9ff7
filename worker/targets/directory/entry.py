"""Where a file goes: an open directory and a name in it."""

import errno
import os
from typing import Final

from daemon.errors import Undelivered
from worker.targets.attributes import Attributes, where
from worker.targets.base import Delivery
from worker.targets.directory.content import ACCESS_LIST, attributes_of

#: What Linux says when a file has no access list: no such file, none of it, none of any.
_NO_ACCESS_LIST: Final = frozenset({errno.ENOENT, errno.ENODATA, errno.ENOTSUP})


class Entry:
    """An open directory, a name in it, and the name of the file that is being filled. Its methods raise OSError."""

    def __init__(self, directory: int, name: bytes, part: bytes) -> None:
        """`directory` is somebody else's to close."""
        self.directory = directory
        self.name = name
        self.part = part

    def look(self) -> Attributes | None:
        """What is there, or None."""
        try:
            return attributes_of(os.stat(self.name, dir_fd=self.directory, follow_symlinks=False))
        except FileNotFoundError:
            return None

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
