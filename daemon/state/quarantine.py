"""Setting aside what is doubtful: it is moved to lost+found, never deleted, and nothing there is overwritten."""

import os
import time
from itertools import count
from pathlib import Path
from typing import Final

from daemon.log import log
from daemon.state.files import NotOwn
from daemon.state.layout import Layout, sync_directory

#: So much of a name is kept, in bytes: with a date and a number behind it, it is still one (255 bytes, NAME_MAX).
_NAME_BYTES: Final = 200


def retire(layout: Layout, path: Path) -> Path:
    """Move a file or directory to lost+found in one step, durably; return its new path. Raises OSError.

    The kernel lets nobody but its owner move a directory that only he may write in (rename(2)).
    """
    return _move(path, layout.lost_found)


def set_aside(layout: Layout, path: Path) -> Path:
    """As `retire`; what may not be moved to lost+found gets another name beside its own. Raises OSError."""
    try:
        return retire(layout, path)
    except PermissionError:
        return _move(path, path.parent)


def clear_name(layout: Layout, path: Path) -> None:
    """Free a name that the service needs: what has it goes, but a directory, which may hold anything, is set aside.

    Raises OSError.
    """
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        kept = set_aside(layout, path)
        log("name.cleared", path=str(path), kept=str(kept))


def open_cleared(layout: Layout, path: Path) -> int:
    """A descriptor of a file of the service's own, as `Layout.open_made`; what else has the name is cleared away.

    Raises OSError.
    """
    try:
        return layout.open_made(path)
    except (NotOwn, PermissionError):
        clear_name(layout, path)
        return layout.open_made(path)


def _move(path: Path, directory: Path) -> Path:
    target = _free_name(path, directory)
    os.rename(path, target)
    sync_directory(directory)
    sync_directory(path.parent)
    return target


def _free_name(path: Path, directory: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name = os.fsdecode(os.fsencode(path.name)[:_NAME_BYTES])
    suffixes = (f"-{number}" if number else "" for number in count())
    return next(target for suffix in suffixes if not os.path.lexists(target := directory / f"{name}-{stamp}{suffix}"))
