"""Lines of text to stderr that never wait for whoever reads them.

A pipe that nobody reads, a terminal that is stopped, a journal that hangs: what does not fit now is dropped and
counted. A line that was begun is always finished before the next one.
"""

import os
import select
import socket
import stat
import threading
from collections.abc import Callable


class Lines:
    """One place to write lines to. Safe from several threads; no method raises."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor` is borrowed and stays as it is: other processes write to it too."""
        self._lock = threading.Lock()
        self._descriptor = descriptor
        self._own = -1
        self._socket: socket.socket | None = None
        self._rest = b""
        self._lost = 0
        self._later: Callable[[Callable[[], None]], object] | None = None
        self._gathering_thread = 0
        self._gathered: list[bytes] = []
        #: True when a write could wait for a reader, so that it has to be asked first.
        self._may_wait = True
        try:
            self._prepare(os.fstat(descriptor).st_mode)
        except OSError:
            # It is closed, or nobody has the pipe open for reading: writing will tell.
            return

    def _prepare(self, mode: int) -> None:
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(self._descriptor))
        elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            # Opened anew, so that not waiting is a matter of ours alone.
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            self._descriptor = self._own = os.open(f"/proc/self/fd/{self._descriptor}", flags)
        elif not stat.S_ISREG(mode):
            return
        self._may_wait = False

    def write(self, line: str) -> bool:
        """Write one line, or drop it and return False."""
        data = f"{line}\n".encode(errors="backslashreplace")
        if self._later is None or threading.get_ident() != self._gathering_thread:
            return self._put(data, 1)
        self._gathered.append(data)
        if len(self._gathered) == 1:
            self._later(self.write_gathered)
        return True

    def gather(self, later: Callable[[Callable[[], None]], object] | None) -> None:
        """Keep the lines of this thread until `later` calls back, and write them together then; None: no more."""
        self.write_gathered()
        self._later = later
        self._gathering_thread = threading.get_ident()

    def write_gathered(self) -> None:
        """Write what was gathered. Only the gathering thread calls it."""
        lines, self._gathered = self._gathered, []
        if lines:
            self._put(b"".join(lines), len(lines))

    def _put(self, data: bytes, lines: int) -> bool:
        with self._lock:
            if self._finish():
                self._rest = data
                if self._finish() or len(self._rest) < len(data):
                    return True
                self._rest = b""
            self._lost += lines
            return False

    def take_lost(self) -> int:
        """How many lines were dropped since the last call; 0 as long as there is no room to say so."""
        if not self._lost:
            return 0
        with self._lock:
            if not (self._finish() and self._writable()):
                return 0
            lost, self._lost = self._lost, 0
            return lost

    def close(self) -> None:
        """Let go of what was opened here. May be called again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._own >= 0:
            os.close(self._own)
            self._own = -1

    def _finish(self) -> bool:
        """Write what is left of the current line; return True when nothing is left."""
        try:
            while self._rest and (not self._may_wait or self._writable()):
                self._rest = self._rest[self._write(self._rest):]
        except OSError:
            return False
        return not self._rest

    def _write(self, data: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        return os.write(self._descriptor, data)

    def _writable(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(0))
