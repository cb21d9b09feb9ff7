"""What SQLite and the disk say when they fail, as QueueFault."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from daemon.errors import QueueFault
from daemon.state.layout import DATABASE_FILE
from daemon.state.room import NO_ROOM, explained, trouble_in

_FAULTS: Final = {sqlite3.SQLITE_FULL: "queue_full", sqlite3.SQLITE_BUSY: "queue_locked",
                  sqlite3.SQLITE_LOCKED: "queue_locked"}
#: What SQLite says of a database that was emptied under a running process, and of one whose head says too much.
_NOT_OURS: Final = ("no such table", "no such column", "no such index", "unsupported file format")
#: Where SQLite keeps the system's reason to itself. It takes no errno but ENOSPC for a lack of room, and not each time.
_HIDES_REASON: Final = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL,
                                  sqlite3.SQLITE_READONLY})


def commit(connection: sqlite3.Connection, directory: Path) -> None:
    """Commit into the database in `directory`.

    Raises QueueFault; its `certainly_failed` says whether nothing was committed.
    """
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        code, detail = _judge(error, directory)
        raise QueueFault(code, detail, certainly_failed=_undone(error, code)) from error


def _undone(error: sqlite3.Error, code: str) -> bool:
    """True when a commit that failed so wrote no last page to the log, without which its others do not count."""
    return (_primary(error) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY}
            or (_code(error), code) == (sqlite3.SQLITE_IOERR_WRITE, "queue_full"))


@contextmanager
def faults(directory: Path) -> Iterator[None]:
    """Turn what SQLite says of a database in `directory`, and the disk, into QueueFault; nothing was committed then."""
    try:
        yield
    except sqlite3.Error as error:
        code, detail = _judge(error, directory)
        raise QueueFault(code, detail, certainly_failed=True) from error
    except OSError as error:
        code = "queue_full" if error.errno in NO_ROOM else "queue_failed"
        raise QueueFault(code, f"The queue: {explained(error, directory).strerror}.", certainly_failed=True) from error


def is_damage(error: sqlite3.Error) -> bool:
    """True when SQLite says that what is in the files is wrong, and not that they cannot be read just now.

    A short read is one: a part of the log is gone that another process still has open. So is a value that nobody
    here writes, as large as it is.
    """
    return (_primary(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG}
            or _code(error) == sqlite3.SQLITE_IOERR_SHORT_READ
            or str(error).startswith(_NOT_OURS))


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0))


def _primary(error: sqlite3.Error) -> int:
    return _code(error) & 0xFF


def _judge(error: sqlite3.Error, directory: Path) -> tuple[str, str]:
    """The code for what SQLite says of a database in `directory`, and that in words with the system's reason."""
    trouble = trouble_in(directory) if _primary(error) in _HIDES_REASON and not is_damage(error) else None
    why = f" ({trouble.strerror})" if trouble else ""
    return _code_for(error, trouble, directory), f"The queue's database: {error}{why}."


def _says_read_only(error: sqlite3.Error, directory: Path) -> bool:
    """True when it is the head of a database that forbids to write, where the system does not."""
    return _code(error) == sqlite3.SQLITE_READONLY and os.access(
        directory / DATABASE_FILE, os.W_OK, effective_ids=True)


def _code_for(error: sqlite3.Error, trouble: OSError | None, directory: Path) -> str:
    if is_damage(error) or (trouble is None and _says_read_only(error, directory)):
        return "queue_damaged"
    if trouble is not None and trouble.errno in NO_ROOM:
        return "queue_full"
    return _FAULTS.get(_primary(error), "queue_failed")
