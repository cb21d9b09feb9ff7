"""The log of refusals: a client that is refused again and again fills neither the log nor the disk.

Guarantees: of each kind, and from each peer and identity, the first is logged at once, and then one a second, the
newest, which says how many it stands for besides itself. So what others are refused is never hidden by it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from daemon.log import log

#: Seconds between two lines of one kind from one peer.
PAUSE_S: Final = 1.0


#: An event, the code of its error, a peer, and who it is, as far as that is known.
Kind = tuple[str, object, str, str | None]


@dataclass
class _Kept:
    """What came since the last line."""

    number: int = 0
    newest: dict[str, Any] = field(default_factory=dict)


class RefusalLog:
    """Logs refusals. On the event loop only."""

    def __init__(self, count: Callable[[object], None] | None = None) -> None:
        """`count` is told the code of each."""
        self._count = count
        self._kept: dict[Kind, _Kept] = {}

    def log(self, event: str, *, peer: str, code: object = None, root: str | None = None, **fields: Any) -> None:
        """Log `event`, now or within PAUSE_S. Events with another code are of another kind.

        So are those of another `root`: the administrator's identity that somebody at the peer is, or acts under. Those
        are few, while somebody could hand on any number.
        """
        self.count(code)
        kind = (event, code, peer, root)
        kept = self._kept.get(kind)
        if kept is None:
            log(event, peer=peer, code=code, **fields)
            self._pause(kind)
        else:
            kept.number += 1
            kept.newest = fields

    def count(self, code: object) -> None:
        """Count a refusal that is not logged."""
        if self._count is not None:
            self._count(code)

    def close(self) -> None:
        """Log what was kept back."""
        for kind in list(self._kept):
            self._tell(kind)

    def _pause(self, kind: Kind) -> None:
        self._kept[kind] = _Kept()
        asyncio.get_running_loop().call_later(PAUSE_S, self._end_pause, kind)

    def _end_pause(self, kind: Kind) -> None:
        if self._tell(kind):
            self._pause(kind)

    def _tell(self, kind: Kind) -> bool:
        """Log the newest of what was kept back; False when there was nothing."""
        event, code, peer, _ = kind
        kept = self._kept.pop(kind, _Kept())
        if kept.number:
            log(event, peer=peer, code=code, left_out=kept.number - 1 or None, **kept.newest)
        return bool(kept.number)
