"""Renaming a file without ever replacing another: renameat2(2), which Python does not have."""

import ctypes
import os
from typing import Final

#: RENAME_NOREPLACE of linux/fs.h.
_NO_REPLACE: Final = 1

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def rename_new(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    """Give a file another name in one step.

    Raises FileExistsError when something has that name, and OSError as rename(2) does; nothing has changed then.
    """
    if _libc.renameat2(src_dir_fd, os.fsencode(source), dst_dir_fd, os.fsencode(target), _NO_REPLACE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source, None, target)
