"""A listening socket for the event loop, which bears two things that asyncio does not.

- There is nothing left to accept a connection with. asyncio waits for a second then, but asks for the rest of its
  turn's connections first: each of them is an error, and each error asks again a second later, so that they multiply.
  Here one try is one error.
- The server is closed in the turn in which a connection was accepted: asyncio drops that connection. Here `end` comes
  a turn before the close, and nobody is accepted in between.
"""

import errno
import socket
from typing import Any, Final

#: Descriptors, or the kernel's memory, are used up: asyncio tries again a second later.
USED_UP: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listener(socket.socket):
    """A socket like the one it is made of; it has a descriptor of its own."""

    _used_up = False
    _ended = False

    @classmethod
    def of(cls, door: socket.socket) -> "Listener":
        """Listen where `door` does."""
        with door.dup() as copy:
            return cls(fileno=copy.detach())

    def end(self) -> None:
        """Accept nobody any more; who comes waits for whoever else listens there."""
        self._ended = True

    def accept(self) -> tuple[socket.socket, Any]:
        """See socket.accept; after an error for want of descriptors the next call finds nobody, and no error."""
        if self._ended:
            raise BlockingIOError
        if self._used_up:
            self._used_up = False
            raise BlockingIOError
        try:
            return super().accept()
        except OSError as error:
            self._used_up = error.errno in USED_UP
            raise
