"""Reading the bytes to deliver: exactly as many as were accepted, whatever follows them in the file."""

import hashlib
from collections.abc import Iterator
from typing import Final

from daemon.errors import Undelivered
from daemon.spool import Source
from worker.targets.attributes import where
from worker.targets.base import Delivery

#: Read at once from a spooled file to compare it.
_PIECE_BYTES: Final = 256 * 1024


def pieces(source: Source, size: int, piece_bytes: int) -> Iterator[memoryview]:
    """Yield the `size` bytes of `source` in pieces of at most `piece_bytes`.

    A piece is good until the next one is asked for.
    Raises Undelivered: io_error, or bytes_damaged when the source ends too early.
    """
    # One buffer for all: a new one for each piece costs more than the sending.
    buffer = memoryview(bytearray(min(size, piece_bytes)))
    left = size
    while left:
        try:
            filled = source.readinto(buffer[:left])
        except OSError as error:
            raise Undelivered("io_error", f"the spooled file: {error}") from error
        if not filled:
            raise Undelivered("bytes_damaged", "the spooled file ends too early")
        left -= filled
        yield buffer[:filled]


def rewind(source: Source) -> None:
    """Go back to the first byte. Raises Undelivered('io_error')."""
    try:
        source.seek(0)
    except OSError as error:
        raise Undelivered("io_error", f"the spooled file: {error}") from error


def digest(data: Iterator[bytes]) -> str:
    """The hexadecimal sha256 of `data`."""
    total = hashlib.sha256()
    for piece in data:
        total.update(piece)
    return total.hexdigest()


def refuse_unless_same(read_back: str, source: Source, delivery: Delivery) -> None:
    """Raise Undelivered unless what has the digest `read_back` are the bytes that were accepted.

    bytes_damaged when those of `source` are others by now, and trying again cannot help; else verify_failed.
    """
    if read_back == delivery.sha256:
        return
    rewind(source)
    if digest(map(bytes, pieces(source, delivery.size, _PIECE_BYTES))) != delivery.sha256:
        raise Undelivered("bytes_damaged", f"{where(delivery)}: the spooled bytes are not those that were accepted")
    raise Undelivered("verify_failed", f"{where(delivery)}: the bytes read back are others")
