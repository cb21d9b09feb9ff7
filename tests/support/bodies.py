"""Bytes to upload: made on the way, so that a large body costs no memory, and the same for the same seed."""

import hashlib
from collections.abc import Iterator
from random import Random

_PIECE_BYTES = 2**20


def pieces(seed: int, size: int) -> Iterator[bytes]:
    """`size` bytes in pieces. A large body repeats one random piece, each time with its number in front."""
    block = Random(seed).randbytes(min(size, _PIECE_BYTES))
    for number, start in enumerate(range(0, size, _PIECE_BYTES)):
        length = min(_PIECE_BYTES, size - start)
        yield (number.to_bytes(8) + block[8:] if length == _PIECE_BYTES else block[:length])


def body(seed: int, size: int) -> bytes:
    """The same bytes in one piece."""
    return b"".join(pieces(seed, size))


def digest(seed: int, size: int) -> str:
    """Their hexadecimal sha256."""
    total = hashlib.sha256()
    for piece in pieces(seed, size):
        total.update(piece)
    return total.hexdigest()
