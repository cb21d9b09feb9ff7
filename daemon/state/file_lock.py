"""The lock of an open file: it ends with the descriptor, whatever ends its process; asking for it does not take it.

An open-file-description lock (fcntl(2)): two descriptors of one process stand against each other, too.
"""

import fcntl
import os
import struct
from typing import Final

#: struct flock of Linux on 64-bit machines: type, whence, start, length, pid (fcntl(2)).
_FLOCK: Final = struct.Struct("hhqqi4x")
_ALL_OF_IT: Final = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def try_lock(descriptor: int) -> bool:
    """Lock the file, which is open for writing, until the descriptor is closed; False when another one has the lock."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _ALL_OF_IT)
    except BlockingIOError:
        return False
    return True


def is_locked(descriptor: int) -> bool:
    """True when another descriptor has the lock."""
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _ALL_OF_IT)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
