"""A small file with two slots that are written in turn, each with a number and a checksum: nobody reads half of one.

Nothing is mapped: on a disk without room a mapped write can end a process.
"""

import os
import struct
import zlib
from typing import Final

#: The head of a slot: what it is, its number, how long the text is, and the checksum of number and text.
_HEAD: Final = struct.Struct("<8sQII")
_MAGIC: Final = b"courier1"
_NUMBER: Final = struct.Struct("<Q")
HEAD_BYTES: Final = _HEAD.size


def write(descriptor: int, number: int, text: bytes, slot_bytes: int) -> None:
    """Write a text under a number, the one after the newest, in place of the text before the last. Raises OSError."""
    head = _HEAD.pack(_MAGIC, number, len(text), _checksum(number, text))
    os.pwrite(descriptor, head + text, number % 2 * slot_bytes)


def read(descriptor: int, slot_bytes: int) -> tuple[int, bytes] | None:
    """The number and the text that were written last; None when neither slot is whole. Raises OSError."""
    return newest((os.pread(descriptor, slot_bytes, 0), os.pread(descriptor, slot_bytes, slot_bytes)))


def newest(slots: tuple[bytes, bytes]) -> tuple[int, bytes] | None:
    """The number and the text of the newer of two slots; None when neither is whole."""
    return max((found for found in map(_read, slots) if found is not None), default=None)


def _read(slot: bytes) -> tuple[int, bytes] | None:
    if len(slot) < _HEAD.size:
        return None
    magic, number, length, checksum = _HEAD.unpack_from(slot)
    text = slot[_HEAD.size:_HEAD.size + length]
    whole = magic == _MAGIC and len(text) == length
    return (number, text) if whole and checksum == _checksum(number, text) else None


def _checksum(number: int, text: bytes) -> int:
    return zlib.crc32(text, zlib.crc32(_NUMBER.pack(number)))
