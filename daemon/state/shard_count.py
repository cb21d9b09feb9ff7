"""How many shards are in force: one small file in the state directory, changed only by a migration.

It says `4`, or `4 2` while the rows of four shards are being moved to two. It is replaced in one step, so it is
never half written; where it is missing, the databases that are there tell.
"""

import contextlib
import os
import re
from dataclasses import dataclass
from typing import Final

from daemon.errors import CannotStart
from daemon.state.layout import Layout, sync_directory

_CONTENT: Final = re.compile(r"(\d{1,4})(?: (\d{1,4}))?\n?")
_SHARD_DIRECTORY: Final = re.compile(r"shard-(\d{2,4})")


@dataclass(frozen=True)
class ShardCount:
    """The number of shards in force, and the number that a migration which has begun leads to."""

    in_force: int
    moving_to: int | None = None

    def serves(self, shards: int) -> bool:
        """True when a process that is configured for `shards` may go on."""
        return self.moving_to is None and self.in_force == shards


def read(layout: Layout) -> ShardCount | None:
    """What the file says; None when there is none. Raises CannotStart('bad_config') when it cannot be understood."""
    try:
        text = layout.shards_file.read_text(errors="replace")
    except FileNotFoundError:
        return None
    match = _CONTENT.fullmatch(text)
    if match is None or int(match[1]) < 1:
        raise CannotStart("bad_config", f"{layout.shards_file} is damaged: write the number of shards into it, which"
                                        f" is probably {_databases(layout)}")
    return ShardCount(int(match[1]), int(match[2]) if match[2] else None)


def establish(layout: Layout, shards: int) -> ShardCount:
    """What is in force; in a new state directory that is `shards` from now on."""
    while (found := read(layout)) is None:
        _write(layout, ShardCount(_databases(layout) or shards), replace=False)
    return found


def record(layout: Layout, count: ShardCount) -> None:
    """Put `count` in force, durably. Only for the migration that holds every lock."""
    _write(layout, count, replace=True)


def _databases(layout: Layout) -> int:
    """How many shards there seem to be: one more than the highest that has a directory, or 0."""
    matches = (_SHARD_DIRECTORY.fullmatch(name) for name in os.listdir(layout.queue))
    return max((int(match[1]) + 1 for match in matches if match), default=0)


def _write(layout: Layout, count: ShardCount, *, replace: bool) -> None:
    text = f"{count.in_force}\n" if count.moving_to is None else f"{count.in_force} {count.moving_to}\n"
    draft = layout.queue / f".shards-{os.getpid()}"
    descriptor = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, layout.file_mode)
    try:
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if replace:
        os.rename(draft, layout.shards_file)
    else:
        with contextlib.suppress(FileExistsError):
            os.link(draft, layout.shards_file)
        os.unlink(draft)
    sync_directory(layout.queue)
