"""Giving a name that nothing has yet: what Python's own rename cannot promise."""

import ctypes
import os
from typing import Final

#: renameat2(2).
_NO_REPLACE: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def rename_new(old: bytes, new: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    """Give what is at `old` in one open directory the name `new` in another.

    Raises OSError: FileExistsError when the name is taken, be it by an empty directory.
    """
    if _LIBC.renameat2(src_dir_fd, old, dst_dir_fd, new, _NO_REPLACE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
