"""A listening socket for the event loop, which sees to three things that asyncio does not.

- There is nothing left to accept a connection with. asyncio waits for a second then, but asks for the rest of its
  turn's connections first: each of them is an error, and each error asks again a second later, so that they multiply.
  Here one try is one error.
- The server is closed in the turn in which a connection was accepted: asyncio drops that connection. Here `end` comes
  a turn before the close, and nobody is accepted in between.
- Of several processes that listen at one door the first to wake takes all who wait there, and keeps them for as long as
  they stay. Here a connection is left to a process that holds fewer; not for long, for that one may be busy, or gone.
"""

import errno
import socket
import time
from collections.abc import Callable
from typing import Any, Final

#: Descriptors, or the kernel's memory, are used up: asyncio tries again a second later.
USED_UP: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


#: For so long a connection is left to others.
LEFT_FOR_S: Final = 0.005
#: Somebody who waits is seen in each turn of the event loop, so after a pause like this it is another one.
_PAUSE_S: Final = 0.1


class Listener(socket.socket):
    """A socket like the one it is made of; it has a descriptor of its own."""

    _used_up = False
    _ended = False
    #: Since when somebody waits whom others should take, and when that was last seen; on the monotonic clock.
    _left_since = 0.0
    _seen_at = 0.0
    _has_fewest: Callable[[], bool]

    @classmethod
    def of(cls, door: socket.socket, has_fewest: Callable[[], bool]) -> "Listener":
        """Listen where `door` does; `has_fewest` says whether no other process there holds fewer connections."""
        with door.dup() as copy:
            listener = cls(fileno=copy.detach())
        listener._has_fewest = has_fewest
        return listener

    def end(self) -> None:
        """Accept nobody any more; who comes waits for whoever else listens there."""
        self._ended = True

    def accept(self) -> tuple[socket.socket, Any]:
        """See socket.accept; after an error for want of descriptors the next call finds nobody, and no error."""
        if self._ended or self._is_for_others():
            raise BlockingIOError
        if self._used_up:
            self._used_up = False
            raise BlockingIOError
        try:
            return super().accept()
        except OSError as error:
            self._used_up = error.errno in USED_UP
            raise

    def _is_for_others(self) -> bool:
        """True when who waits is left to others: they hold fewer, and had no time yet to take it."""
        if self._has_fewest():
            self._seen_at = 0.0
            return False
        now = time.monotonic()
        if now - self._seen_at > _PAUSE_S:
            self._left_since = now
        self._seen_at = now
        return now - self._left_since < LEFT_FOR_S
