"""A listening socket for the event loop, which sees to four things that asyncio does not.

- There is nothing left to accept a connection with. asyncio waits for a second then, but asks for the rest of its
  turn's connections first: each of them is an error, and each error asks again a second later, so that they multiply.
  Here one try is one error.
- The server is closed in the turn in which a connection was accepted: asyncio drops that connection. Here `end` comes
  a turn before the close, and nobody is accepted in between.
- Of several processes that listen at one door the first to wake takes all who wait there, and keeps them for as long as
  they stay. Here a connection is left to a process that holds fewer; not for long, for that one may be busy, or gone.
- Another process has shut the door: this one will be told to end, too, and until then nobody comes.
"""

import errno
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from daemon.process.listeners import BACKLOG

#: Descriptors, or the kernel's memory, are used up: asyncio tries again a second later.
USED_UP: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


#: For so long a connection is left to others.
LEFT_FOR_S: Final = 0.005
#: Once nobody else has come for one, all are taken for so long.
TAKES_FOR_S: Final = 0.1


class Listener(socket.socket):
    """A socket like the one it is made of; it has a descriptor of its own."""

    _used_up = False
    _ended = False
    #: Since when somebody waits whom others should take, on the monotonic clock.
    _left_since = 0.0
    #: In so many turns of the event loop, if he is not seen again, whoever is seen then is another one.
    _turns_left = 0
    _takes_until = 0.0
    _has_fewest: Callable[[], bool]
    _call_soon: Callable[[Callable[[], None]], object]

    @classmethod
    def of(
        cls, door: socket.socket, has_fewest: Callable[[], bool],
        call_soon: Callable[[Callable[[], None]], object],
    ) -> "Listener":
        """Listen where `door` does; `has_fewest` says whether no other process there holds fewer connections.

        `call_soon` is the event loop's.
        """
        with door.dup() as copy:
            listener = cls(fileno=copy.detach())
        listener._has_fewest = has_fewest
        listener._call_soon = call_soon
        return listener

    def listen(self, _accepted_at_once: int = 0, /) -> None:
        """See socket.listen; as many may wait as ever: for asyncio that is the number it accepts in a turn."""
        super().listen(BACKLOG)

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
            if error.errno == errno.EINVAL:
                self.end()
                raise BlockingIOError from error
            self._used_up = error.errno in USED_UP
            raise

    def _is_for_others(self) -> bool:
        """True when who waits is left to others: they hold fewer, and had no time yet to take him."""
        now = time.monotonic()
        if self._has_fewest() or now < self._takes_until:
            self._left_since = now
            return False
        if not self._turns_left:
            self._left_since = now
            self._call_soon(self._turn)
        # He is seen again in the next turn, unless another process takes him; this turn may be over after it.
        self._turns_left = 2
        if now - self._left_since < LEFT_FOR_S:
            return True
        self._takes_until = now + TAKES_FOR_S
        return False

    def _turn(self) -> None:
        self._turns_left -= 1
        if self._turns_left:
            self._call_soon(self._turn)
