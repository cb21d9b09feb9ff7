"""The doorbell: a FIFO for each shard, by which the API wakes the shard's worker at once.

A ring says only «look». It may be lost or come twice: the worker also looks by itself, if more seldom.
"""

import os
import stat
from contextlib import suppress

from daemon.state.files import NotOwn
from daemon.state.layout import Layout
from daemon.state.quarantine import clear_name


def ring(layout: Layout, shard: int) -> None:
    """Wake the shard's worker if there is one. Never blocks, never raises: a ring that is lost only costs time."""
    try:
        descriptor = layout.open(layout.bell(shard), os.O_WRONLY, is_kind=stat.S_ISFIFO)
    except OSError:
        # Nobody listens, the bell is not hung yet, or this process has no descriptor left.
        return
    try:
        os.write(descriptor, b"!")
    except OSError:
        # It has been rung often enough already.
        return
    finally:
        os.close(descriptor)


class Doorbell:
    """The worker's end: `fileno` becomes readable when the bell was rung."""

    def __init__(self, layout: Layout, shard: int) -> None:
        try:
            self._descriptor = _open(layout, shard)
        except (NotOwn, PermissionError):
            # A plain file would always be readable; a bell holds nothing worth keeping.
            clear_name(layout, layout.bell(shard))
            self._descriptor = _open(layout, shard)

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._descriptor

    def answer(self) -> None:
        """Forget the rings so far."""
        try:
            while len(os.read(self._descriptor, 65536)) == 65536:
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Stop listening."""
        os.close(self._descriptor)


def _open(layout: Layout, shard: int) -> int:
    """A descriptor of the shard's FIFO, which is made if it is missing. Raises as `Layout.open`."""
    path = layout.bell(shard)
    with suppress(FileExistsError):
        os.mkfifo(path, layout.file_mode)
        os.chmod(path, layout.file_mode)
    # Open for writing too, so that there is never an end of file.
    return layout.open(path, os.O_RDWR, is_kind=stat.S_ISFIFO)
