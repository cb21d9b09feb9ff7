"""The form of a spool file: the bytes of an upload, the upload as JSON, a footer."""

import os
import struct
import zlib
from typing import Final

from daemon.model.upload import Upload

#: magic, length of the JSON in bytes, its CRC-32
_FOOTER: Final = struct.Struct(">8sII")
#: What a file holds besides the bytes and the description of its upload.
FOOTER_BYTES: Final = _FOOTER.size
_MAGIC: Final = b"courier1"
#: No description of an upload is longer (path 4095 bytes, name, key; JSON escapes).
_MAX_META_BYTES: Final = 64 * 1024


def ending(upload: Upload) -> bytes:
    """What follows the bytes of an upload in its file."""
    meta = upload.to_json().encode()
    return meta + _FOOTER.pack(_MAGIC, len(meta), zlib.crc32(meta))


def ends_with(descriptor: int, upload: Upload) -> bool:
    """True when an open spool file is whole and describes `upload` in the very bytes in which it is described now."""
    expected = ending(upload)
    # One byte more would be found, too.
    return os.pread(descriptor, len(expected) + 1, upload.size) == expected


def read_whole(descriptor: int, upload: Upload) -> bytes | None:
    """The bytes of `upload`; None unless an open spool file is whole and describes it as `ends_with` wants it."""
    expected = ending(upload)
    found = os.pread(descriptor, upload.size + len(expected) + 1, 0)
    is_whole = len(found) == upload.size + len(expected) and found.endswith(expected)
    return found[:upload.size] if is_whole else None


def read_meta(descriptor: int) -> Upload:
    """The upload that an open spool file describes. Raises ValueError when the file is not whole."""
    size = os.fstat(descriptor).st_size
    footer = os.pread(descriptor, _FOOTER.size, max(0, size - _FOOTER.size))
    if len(footer) != _FOOTER.size:
        raise ValueError("The file is too short for an upload.")
    magic, length, checksum = _FOOTER.unpack(footer)
    if magic != _MAGIC or length > min(_MAX_META_BYTES, size - _FOOTER.size):
        raise ValueError("The file does not end like an upload.")
    meta = os.pread(descriptor, length, size - _FOOTER.size - length)
    if zlib.crc32(meta) != checksum:
        raise ValueError("The description of the upload is damaged.")
    upload = Upload.from_json(meta)
    if upload.size != size - _FOOTER.size - length:
        raise ValueError("The file is not as long as its upload.")
    return upload
