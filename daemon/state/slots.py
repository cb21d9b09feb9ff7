"""A small file that is written again and again in place, so that nobody ever reads half of what was written.

It has two slots of one size that are written in turn, each with a number and a checksum. While one is being written the
other one counts. Nothing is mapped: on a disk without room a mapped write can end a process.
"""

import errno
import os
import struct
import zlib
from typing import Final

#: The head of a slot: what it is, its number, how long the text is, and the checksum of number and text.
_HEAD: Final = struct.Struct("<8sQII")
_MAGIC: Final = b"courier1"
_NUMBER: Final = struct.Struct("<Q")
HEAD_BYTES: Final = _HEAD.size


def write_slot(descriptor: int, slot_bytes: int, number: int, text: bytes) -> None:
    """Write what is next; the number is one more than the one before, the text at most `slot_bytes - HEAD_BYTES` long.

    Not synced. Raises OSError, also where there is room for a part of it alone: then the other slot counts, and the
    same number is to be written again.
    """
    slot = _HEAD.pack(_MAGIC, number, len(text), _checksum(number, text)) + text
    if os.pwrite(descriptor, slot, number % 2 * slot_bytes) < len(slot):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def newest_slot(descriptor: int, slot_bytes: int) -> tuple[int, bytes] | None:
    """The number and the text that were written last; None when neither slot is whole. Raises OSError."""
    slots = (_read(os.pread(descriptor, slot_bytes, at)) for at in (0, slot_bytes))
    return max((slot for slot in slots if slot is not None), default=None)


def _read(found: bytes) -> tuple[int, bytes] | None:
    if len(found) < _HEAD.size:
        return None
    magic, number, length, checksum = _HEAD.unpack_from(found)
    text = found[_HEAD.size:_HEAD.size + length]
    whole = magic == _MAGIC and len(text) == length
    return (number, text) if whole and _checksum(number, text) == checksum else None


def _checksum(number: int, text: bytes) -> int:
    return zlib.crc32(text, zlib.crc32(_NUMBER.pack(number)))
