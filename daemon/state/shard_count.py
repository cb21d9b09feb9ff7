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
from daemon.state.files import NotOwn, link_and_sync, opened
from daemon.state.layout import SHARDS_FILE, Layout, sync_directory

_CONTENT: Final = re.compile(r"(\d{1,4})(?: (\d{1,4}))?\n?")
#: More than any number takes.
_LIMIT_BYTES: Final = 64
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
        text = layout.read(layout.shards_file, _LIMIT_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return None
    except NotOwn as error:
        raise CannotStart("bad_config", f"{error.filename}: {error.strerror}; {_advice(layout)}") from error
    match = _CONTENT.fullmatch(text)
    if match is None or int(match[1]) < 1:
        raise CannotStart("bad_config", f"{layout.shards_file} is damaged; {_advice(layout)}")
    return ShardCount(int(match[1]), int(match[2]) if match[2] else None)


def _advice(layout: Layout) -> str:
    return f"write a file with the number of shards, which is probably {_databases(layout)}"


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
    with opened(layout.directory, layout.queue) as queue:
        descriptor = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, layout.file_mode, dir_fd=queue)
        try:
            os.write(descriptor, text.encode())
            os.fsync(descriptor)
            _name(descriptor, queue, replace=replace)
        finally:
            os.close(descriptor)
    sync_directory(layout.queue)


def _name(descriptor: int, queue: int, *, replace: bool) -> None:
    """Give the new file its name. It never has two: such a file is refused (see `daemon.state.files`)."""
    if not replace:
        with contextlib.suppress(FileExistsError):
            link_and_sync(descriptor, SHARDS_FILE, queue)
        return
    draft = f".{SHARDS_FILE}-{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft, dir_fd=queue)
    link_and_sync(descriptor, draft, queue)
    os.rename(draft, SHARDS_FILE, src_dir_fd=queue, dst_dir_fd=queue)
