"""Opening what is in the state directory, where nobody trusts a name.

Whoever may write in a directory can put a link, a FIFO or a device where a file is expected. So each part of a path is
opened below the one before, no link is followed, nothing is waited for, and what was opened is looked at before it is
used.
"""

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_NEVER_WAIT: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
#: What opening a link, a socket, a FIFO that nobody reads, or a directory for writing ends with.
_NO_FILE: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.EISDIR})


class NotOwn(OSError):
    """Raised for a name that does not lead to a plain file of the service's own."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EPERM, "not a plain file of the service's own", str(path))


def open_own(
    root: Path, path: Path, flags: int, mode: int, *, owners: Collection[int],
    is_kind: Callable[[int], bool] = stat.S_ISREG,
) -> int:
    """A descriptor of the file at `path`, which is below `root`; `flags` are those of open(2).

    Raises NotOwn for whatever is not of the kind (a regular file), has a second name, or belongs to none of `owners`,
    and OSError as open(2) does.
    """
    with opened(root, path.parent) as directory:
        try:
            descriptor = os.open(path.name, flags | _NEVER_WAIT, mode, dir_fd=directory)
        except OSError as error:
            if error.errno in _NO_FILE:
                raise NotOwn(path) from error
            raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        if not is_own(os.fstat(descriptor), owners, is_kind):
            raise NotOwn(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_own(found: os.stat_result, owners: Collection[int], is_kind: Callable[[int], bool] = stat.S_ISREG) -> bool:
    """True for a regular file with no second name that belongs to one of `owners`."""
    return is_kind(found.st_mode) and found.st_nlink <= 1 and found.st_uid in owners


@contextmanager
def opened(root: Path, directory: Path) -> Iterator[int]:
    """A descriptor of a directory below `root`, or of `root` itself, to be used as `dir_fd`. Raises OSError."""
    descriptor = os.open(root, _DIRECTORY)
    try:
        for name in _names_below(os.fspath(root), os.fspath(directory)):
            above, descriptor = descriptor, _open_in(descriptor, name, directory)
            os.close(above)
        yield descriptor
    finally:
        os.close(descriptor)


def _names_below(root: str, directory: str) -> list[str]:
    # Plain text, as a bell is opened for each batch of uploads: pathlib takes several times as long.
    return [name for name in directory.removeprefix(root).split("/") if name]


def _open_in(above: int, name: str, whole: Path) -> int:
    try:
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(whole)) from error
