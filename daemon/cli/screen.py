"""The whole of a terminal, for what is shown live: lines in place of those before, and keys as they are hit."""

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from daemon.cli.tables import whole_screen


class Screen:
    """It."""

    def __init__(self, show: Callable[[Sequence[str]], None], resized: int) -> None:
        """`resized` can be read from whenever the terminal has another size."""
        self.show = show
        self._resized = resized

    def wait(self, seconds: float) -> str:
        """The key that is hit; '' when the time is over or the terminal has another size."""
        ready, _, _ = select.select([sys.stdin, self._resized], [], [], seconds)
        if self._resized in ready:
            os.read(self._resized, 64)
        # Who has gone hits no key: a terminal that ends ends what it showed.
        return (os.read(sys.stdin.fileno(), 1).decode("latin-1") or "q") if sys.stdin in ready else ""


@contextmanager
def open_screen() -> Iterator[Screen]:
    """Have the terminal of standard input and output; it is as it was afterwards."""
    resized, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = termios.tcgetattr(sys.stdin)
    handler = signal.signal(signal.SIGWINCH, lambda *_: _tell(wakes))
    try:
        tty.setcbreak(sys.stdin)
        with whole_screen() as show:
            yield Screen(show, resized)
    finally:
        signal.signal(signal.SIGWINCH, handler)
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        os.close(wakes)
        os.close(resized)


def _tell(wakes: int) -> None:
    try:
        os.write(wakes, b"\0")
    except BlockingIOError:
        # It was told often enough.
        return
