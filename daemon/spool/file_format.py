"""The form of a spool file: the bytes of an upload, the upload as JSON, a footer.

Small uploads that are accepted together share a file, a **pack**: one after the other in this form, and then a list
that says whose each is and where it ends. Each has a name of its own for the file, a hard link. So one write and one
sync make all of them durable, and what is done by name (marking, removing, setting aside) is done to each by itself;
the room on the disk is free once the last name is gone.
"""

import os
import struct
import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

from daemon.model.upload import Upload

#: magic, length of the JSON in bytes, its CRC-32; a pack's: of the list
_FOOTER: Final = struct.Struct(">8sII")
#: What a file holds besides the bytes and the description of its upload.
FOOTER_BYTES: Final = _FOOTER.size
_MAGIC: Final = b"courier1"
_PACK_MAGIC: Final = b"courierN"
#: One entry of a pack's list: the id of an upload, and where it ends.
_ENTRY: Final = struct.Struct(">16sI")
#: Most uploads in a pack, and most bytes of them: so much room one that stays may keep from being free.
MAX_PACKED: Final = 16
MAX_PACK_BYTES: Final = 64 * 1024
#: No description of an upload is longer (path 4095 bytes, name, key; JSON escapes).
_MAX_META_BYTES: Final = 64 * 1024
_MAX_LIST_BYTES: Final = MAX_PACKED * _ENTRY.size


class Portion(NamedTuple):
    """Where an upload is in a file, with its description and the footer: from `start` up to `end`."""

    start: int
    end: int
    #: So many uploads are in the file.
    of: int = 1


def ending(upload: Upload) -> bytes:
    """What follows the bytes of an upload in its file."""
    meta = upload.to_json().encode()
    return meta + _FOOTER.pack(_MAGIC, len(meta), zlib.crc32(meta))


def pack_ending(ends: Sequence[tuple[str, int]]) -> bytes:
    """What follows the uploads of a pack: their ids, in their order there, each with where it ends."""
    entries = b"".join(_ENTRY.pack(UUID(task_id).bytes, end) for task_id, end in ends)
    return entries + _FOOTER.pack(_PACK_MAGIC, len(entries), zlib.crc32(entries))


def read_list(descriptor: int, size: int) -> bytes | None:
    """The list of an open spool file of `size` bytes; None when it has none, as it is no pack.

    Raises ValueError when it is damaged, or the file is not as long as it says.
    """
    last = os.pread(descriptor, _MAX_LIST_BYTES + FOOTER_BYTES, max(0, size - _MAX_LIST_BYTES - FOOTER_BYTES))
    footer = last[-FOOTER_BYTES:]
    if len(footer) < FOOTER_BYTES or not footer.startswith(_PACK_MAGIC):
        return None
    _, length, checksum = _FOOTER.unpack(footer)
    entries = last[-FOOTER_BYTES - length:-FOOTER_BYTES]
    if not 0 < length == len(entries) or length % _ENTRY.size or zlib.crc32(entries) != checksum:
        raise ValueError("The list of the uploads in the file is damaged.")
    _, packed_bytes = _ENTRY.unpack(entries[-_ENTRY.size:])
    if packed_bytes > MAX_PACK_BYTES or size != packed_bytes + length + FOOTER_BYTES:
        raise ValueError("The file is not as long as the uploads in it.")
    return entries


def portion_in(entries: bytes, task_id: str) -> Portion:
    """Where the list of a pack says that an upload is. Raises ValueError when that is nowhere."""
    wanted, start = UUID(task_id).bytes, 0
    for packed_id, end in _ENTRY.iter_unpack(entries):
        if packed_id == wanted:
            return Portion(start, end, len(entries) // _ENTRY.size)
        start = end
    raise ValueError("The upload is not among those in the file.")


def portion_of(descriptor: int, size: int, task_id: str) -> Portion:
    """Where an upload is in an open spool file of `size` bytes. Raises ValueError when the file is a pack without it.

    What is no pack is taken for the upload's own, whatever it is.
    """
    entries = read_list(descriptor, size)
    return Portion(0, size) if entries is None else portion_in(entries, task_id)


def ends_with(descriptor: int, portion: Portion, upload: Upload) -> bool:
    """True when the portion of an open spool file is whole, and describes `upload` in the very bytes of now."""
    expected = ending(upload)
    at = portion.start + upload.size
    return portion.end == at + len(expected) and os.pread(descriptor, len(expected), at) == expected


def read_whole(descriptor: int, portion: Portion, upload: Upload) -> bytes | None:
    """The bytes of `upload`, read with what follows them; None unless `ends_with` is true of the portion."""
    expected = ending(upload)
    length = upload.size + len(expected)
    if portion.end - portion.start != length:
        return None
    found = os.pread(descriptor, length, portion.start)
    return found[:upload.size] if len(found) == length and found.endswith(expected) else None


def read_meta(descriptor: int, portion: Portion) -> Upload:
    """The upload that a portion of an open spool file describes. Raises ValueError when that is not whole."""
    size = portion.end - portion.start
    footer = os.pread(descriptor, FOOTER_BYTES, max(portion.start, portion.end - FOOTER_BYTES))
    if size < FOOTER_BYTES or len(footer) != FOOTER_BYTES:
        raise ValueError("The file is too short for an upload.")
    magic, length, checksum = _FOOTER.unpack(footer)
    if magic != _MAGIC or length > min(_MAX_META_BYTES, size - FOOTER_BYTES):
        raise ValueError("The file does not end like an upload.")
    meta = os.pread(descriptor, length, portion.end - FOOTER_BYTES - length)
    if zlib.crc32(meta) != checksum:
        raise ValueError("The description of the upload is damaged.")
    upload = Upload.from_json(meta)
    if upload.size != size - FOOTER_BYTES - length:
        raise ValueError("The file is not as long as its upload.")
    return upload
