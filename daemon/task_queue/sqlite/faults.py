"""What SQLite and the disk say when they fail, as QueueFault."""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from daemon.errors import QueueFault

_FAULTS: Final = {sqlite3.SQLITE_FULL: "queue_full", sqlite3.SQLITE_BUSY: "queue_locked",
                  sqlite3.SQLITE_LOCKED: "queue_locked"}
#: What SQLite says of a database that was emptied under a running process.
_EMPTIED: Final = ("no such table", "no such column")
_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def commit(connection: sqlite3.Connection, *, alone: bool) -> None:
    """Commit into one database (`alone`) or several.

    Raises QueueFault; its `certainly_failed` says whether nothing was committed.
    """
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        certain = alone and _primary(error) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY}
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise _fault(error, certainly_failed=certain) from error


@contextmanager
def faults() -> Iterator[None]:
    """Turn what SQLite and the disk raise into QueueFault; nothing was committed then."""
    try:
        yield
    except sqlite3.Error as error:
        raise _fault(error, certainly_failed=True) from error
    except OSError as error:
        code = "queue_full" if error.errno in _DISK_FULL else "queue_failed"
        raise QueueFault(code, f"The queue: {error.strerror}.", certainly_failed=True) from error


def is_damage(error: sqlite3.Error) -> bool:
    """True when SQLite says that what is in the files is wrong, and not that they cannot be read just now.

    A short read is one: a part of the log is gone that another process still has open.
    """
    return (_primary(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
            or getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHORT_READ
            or str(error).startswith(_EMPTIED))


def _primary(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _fault(error: sqlite3.Error, *, certainly_failed: bool) -> QueueFault:
    code = "queue_damaged" if is_damage(error) else _FAULTS.get(_primary(error), "queue_failed")
    return QueueFault(code, f"The queue's database: {error}.", certainly_failed=certainly_failed)
