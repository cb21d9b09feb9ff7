"""The id of an event in a stream: a position in each shard, as a text that may stand in a header. Pure.

Clients hand it back unread. Whatever else they hand back is no id: nothing of it is trusted.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from struct import Struct
from typing import Final

from daemon.task_queue import Position

#: An epoch, which is twelve hexadecimal digits, and a number.
_POSITION: Final = Struct(">6sQ")
_TEXT: Final = re.compile(r"[A-Za-z0-9_-]{1,2048}", re.ASCII)
#: SQLite's numbers have a sign.
_HIGHEST: Final = 2**63 - 1


def to_id(positions: Sequence[Position]) -> str:
    """The id of what happened up to these positions, one for each shard."""
    packed = b"".join(_POSITION.pack(bytes.fromhex(position.epoch), position.seq) for position in positions)
    return urlsafe_b64encode(packed).rstrip(b"=").decode("ascii")


def from_id(text: str, shards: int) -> tuple[Position, ...] | None:
    """The positions of an id, or None when it is not one for so many shards."""
    if _TEXT.fullmatch(text) is None or len(text) % 4 == 1:
        return None
    packed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if len(packed) != shards * _POSITION.size:
        return None
    positions = tuple(Position(epoch.hex(), seq) for epoch, seq in _POSITION.iter_unpack(packed))
    return positions if all(position.seq <= _HIGHEST for position in positions) else None
