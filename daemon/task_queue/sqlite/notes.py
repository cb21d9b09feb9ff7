"""What the files beside a shard's database say of it to whoever opens it next. All raise OSError."""

import os
import stat
from pathlib import Path

from daemon.state.files import NotOwn
from daemon.state.layout import Layout, inode, sync_directory
from daemon.state.quarantine import clear_name, retire
from daemon.state.reserve import INODES


def exists(layout: Layout, shard: int) -> bool:
    """True when the shard has a database, or something is where its directory should be."""
    return not _has_place(layout, shard) or inode(layout.database(shard)) != 0


def has_log(layout: Layout, shard: int) -> bool:
    """False when the write-ahead log is not there: after a crash the database says what was, not what is."""
    return _has_place(layout, shard) and inode(layout.log(shard)) != 0


def note_open(layout: Layout, shard: int) -> None:
    """Note, durably, that the holder of the shard's lock works with the database."""
    layout.touch(layout.in_use(shard))
    sync_directory(layout.shard(shard))


def note_closed(layout: Layout, shard: int) -> None:
    """Note that whoever held the shard's lock ended in order. Call it after `compact`."""
    clear_name(layout, layout.in_use(shard))


def was_left_open(layout: Layout, shard: int) -> bool:
    """True when whoever held the shard's lock did not end in order."""
    return inode(layout.in_use(shard)) != 0


def condemn(layout: Layout, shard: int) -> None:
    """Note, durably, that the database is damaged: the next start sets it aside."""
    layout.touch(layout.condemned(shard))
    sync_directory(layout.shard(shard))


def is_condemned(layout: Layout, shard: int) -> bool:
    """True when the database is to be set aside."""
    return inode(layout.condemned(shard)) != 0


def is_suspected(layout: Layout, shard: int) -> bool:
    """True when somebody asks for the database to be read through."""
    return inode(layout.suspect(shard)) != 0


def clear_suspicion(layout: Layout, shard: int) -> None:
    """The database was read through, and nothing is wrong with it."""
    clear_name(layout, layout.suspect(shard))


def taken(layout: Layout, shard: int) -> list[Path]:
    """The names beside the database, or that of the shard's directory, that something foreign has."""
    if not _has_place(layout, shard):
        return [layout.shard(shard)]
    names = (layout.in_use(shard), layout.suspect(shard), layout.condemned(shard), *layout.reserves(shard, INODES))
    return [path for path in names if not _is_free_or_own(layout, path)]


def _has_place(layout: Layout, shard: int) -> bool:
    """False when the name of the shard's directory leads to something else."""
    try:
        return stat.S_ISDIR(os.lstat(layout.shard(shard)).st_mode)
    except FileNotFoundError:
        return True


def _is_free_or_own(layout: Layout, path: Path) -> bool:
    try:
        layout.check(path)
    except NotOwn:
        return False
    except FileNotFoundError:
        # The shard has no directory.
        return True
    return True


def set_aside(layout: Layout, shard: int) -> str:
    """Move the shard's database to lost+found, durably; return its new path."""
    for path in layout.reserves(shard, INODES):
        # Room that was kept back is nothing doubtful.
        clear_name(layout, path)
    return str(retire(layout, layout.shard(shard)))
