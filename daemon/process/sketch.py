"""Where a name has its two cells in a sketch: memory of a fixed size that has no names in it.

Of the two cells of a name the one that others disturbed least counts. Names that share both are as one: few do, and
as the hash is keyed, nobody can foresee which.
"""

import struct
from hashlib import blake2b
from typing import Final

_TWO_NUMBERS: Final = struct.Struct("=II")


def two_cells(secret: bytes, slots: int, name: str) -> tuple[int, int]:
    """The numbers of the cells of `name`: one among the first `slots` cells, and one among the next."""
    first, second = _TWO_NUMBERS.unpack(blake2b(name.encode(), key=secret, digest_size=_TWO_NUMBERS.size).digest())
    return first % slots, slots + second % slots
