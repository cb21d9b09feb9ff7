"""The file of what was handed on: found, made, set aside when it is damaged, and found again.

    access/handed-on/data.db    and what SQLite keeps beside it

It is for the API's user alone. It is made whole, in one step, so that whatever else is found there is damage or
another's. Its directory is set aside as one, for a log that was left behind would be taken for the next database's.
Whoever makes it, opens it or sets it aside does so alone among all processes. No process opens the file otherwise than
by SQLite: closing it would drop SQLite's locks.
"""

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from daemon import failpoints
from daemon.delegation.sqlite.schema import empty, is_ours
from daemon.errors import Rejected
from daemon.log import log
from daemon.state.files import NotOwn, link_and_sync, opened
from daemon.state.layout import DATABASE_FILE, Layout, inode, sync_directory
from daemon.state.quarantine import set_aside
from daemon.state.room import NO_ROOM, explained, trouble_in

#: How long to wait for another process's short transaction, or for it to open the file.
BUSY_TIMEOUT_S: Final = 5.0
#: Between two tries to be alone. The others need milliseconds.
_RETRY_S: Final = 0.005
#: How often a change is made anew because its file was replaced meanwhile.
_TRIES: Final = 3
#: More than any row has. SQLite's own limit is a billion bytes.
_LIMIT_BYTES: Final = 2**20
#: What is durable when a transaction ends; and, as https://sqlite.org/security.html has it, trust in nothing.
_SETTINGS: Final = ("synchronous = FULL", "trusted_schema = OFF", "cell_size_check = ON")
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG})
_NOT_OURS: Final = "it is not of this version's making"

Result = TypeVar("Result")


class _Damaged(Exception):  # noted, and set aside
    """Raised for what is no database of this program's making, with the inode of its directory and why."""

    def __init__(self, found: int, why: str) -> None:
        super().__init__(why)
        self.found: Final = found


class Database:
    """The database, for all threads of a process: one reads and one writes at a time, beside each other."""

    def __init__(self, layout: Layout) -> None:
        self._file = _File(layout)
        self._reading = _Session(self._file)
        self._writing = _Session(self._file)

    def read(self, question: Callable[[sqlite3.Connection], Result], otherwise: Result) -> Result:
        """The answer to a question; `otherwise` where there is no database, or none any more. Raises Rejected."""
        with _explained(self._file.directory):
            for _ in range(_TRIES):
                try:
                    return self._reading.read(question, otherwise)
                except _Damaged as damaged:
                    self._file.set_aside(damaged)
        return otherwise

    def write(self, change: Callable[[sqlite3.Connection], Result]) -> Result:
        """What `change` returns, once it is on the disk; nothing of it where it raises. Raises Rejected.

        It may be called more than once, each time for a database that has nothing of the calls before.
        """
        with _explained(self._file.directory):
            for _ in range(_TRIES):
                self._file.make()
                try:
                    result, kept = self._writing.write(change)
                except _Damaged as damaged:
                    self._file.set_aside(damaged)
                else:
                    if kept:
                        return result
        raise Rejected("delegation_unreadable", "The database of tokens is replaced again and again.")

    def close(self) -> None:
        """Close the connections. May be called again."""
        self._reading.close()
        self._writing.close()


class _Session:
    """A connection to the file that has the name now, for one thread at a time."""

    def __init__(self, file: "_File") -> None:
        self._file = file
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    def read(self, question: Callable[[sqlite3.Connection], Result], otherwise: Result) -> Result:
        with self._lock, self._damage():
            connection = self._current()
            return otherwise if connection is None else question(connection)

    def write(self, change: Callable[[sqlite3.Connection], Result]) -> tuple[Result, bool]:
        """What the change returned, and whether the file that has it still has its name."""
        with self._lock, self._damage():
            connection = self._current()
            if connection is None:
                raise FileNotFoundError(self._file.path)
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = change(connection)
                failpoints.reach("delegation.commit")
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            failpoints.reach("delegation.committed")
            return result, self._file.inode() == self._inode

    def close(self) -> None:
        with self._lock:
            self._close()

    def _current(self) -> sqlite3.Connection | None:
        found = self._file.inode()
        if self._connection is not None and found == self._inode:
            return self._connection
        self._close()
        opened = self._file.open()
        if opened is not None:
            self._connection, self._inode = opened
        return self._connection

    @contextmanager
    def _damage(self) -> Iterator[None]:
        """Let go of a file that is damaged, and tell so."""
        try:
            yield
        except sqlite3.Error as error:
            if not _is_damage(error):
                raise
            found = inode(self._file.directory) if self._file.inode() == self._inode else 0
            self._close()
            raise _Damaged(found, str(error)) from error

    def _close(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection, self._inode = None, 0


class _File:
    """The file and its directory. All is done alone among all processes and threads."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.directory = layout.handed_on
        self.path = self.directory / DATABASE_FILE

    def inode(self) -> int:
        """The inode of the file that has the name now; 0 when there is none."""
        try:
            return inode(self.path)
        except NotADirectoryError:
            return 0

    def open(self) -> tuple[sqlite3.Connection, int] | None:
        """A connection and the file's inode; None when there is no file. Raises _Damaged, sqlite3.Error, OSError."""
        try:
            with self._alone():
                return self._open()
        except FileNotFoundError:
            return None

    def _open(self) -> tuple[sqlite3.Connection, int] | None:
        directory = inode(self.directory)
        try:
            self._layout.check(self.path)
        except (NotOwn, NotADirectoryError) as error:
            raise _Damaged(directory, str(error)) from error
        found = self.inode()
        if not found:
            return None
        try:
            return _connect(self.path), found
        except sqlite3.Error as error:
            if _is_damage(error):
                raise _Damaged(directory, str(error)) from error
            raise

    def make(self) -> None:
        """Make an empty database, durably, unless there is something. Raises OSError."""
        if self.inode():
            return
        with suppress(FileExistsError):
            self.directory.parent.mkdir(mode=0o700)
        with self._alone():
            if self.inode():
                return
            if inode(self.directory) and not (self.directory.is_dir() and not os.listdir(self.directory)):
                # A log without its database, or something else: the next database shall not meet it.
                self._set_aside("its database is gone")
            with suppress(FileExistsError):
                self.directory.mkdir(mode=0o700)
            self._make_file()
            sync_directory(self.directory)
            sync_directory(self.directory.parent)

    def _make_file(self) -> None:
        with opened(self.directory, self.directory) as directory:
            descriptor = os.open(self.directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb", buffering=0) as file:
                left = empty()
                while left:
                    left = left[file.write(left):]
                os.fsync(descriptor)
                link_and_sync(descriptor, self.path.name, directory)

    def set_aside(self, damaged: _Damaged) -> None:
        """Put what is damaged out of the way, unless somebody has done so already. Raises OSError."""
        with suppress(FileNotFoundError), self._alone():
            if damaged.found and inode(self.directory) == damaged.found:
                self._set_aside(str(damaged))

    def _set_aside(self, why: str) -> None:
        kept = set_aside(self._layout, self.directory)
        log("access.set_aside", path=str(self.directory), kept=str(kept), reason=why)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        descriptor = os.open(self.directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _lock(descriptor)
            yield
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> None:
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise Rejected("delegation_unreadable", "Another process holds the tokens for too long.") from error
            time.sleep(_RETRY_S)
        else:
            return


def _connect(path: Path) -> sqlite3.Connection:
    """A connection to a database of this version's making. Raises sqlite3.Error."""
    # Not by `as_uri`, as in the task queue.
    uri = f"file://{quote(os.fsencode(path.absolute()))}?mode=rw"
    connection = sqlite3.connect(uri, timeout=BUSY_TIMEOUT_S, check_same_thread=False, isolation_level=None, uri=True)
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LIMIT_BYTES)
        for setting in _SETTINGS:
            connection.execute(f"PRAGMA {setting}")
        if not is_ours(connection):
            raise sqlite3.DatabaseError(_NOT_OURS)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """Turn what SQLite and the disk say into Rejected."""
    try:
        yield
    except sqlite3.Error as error:
        trouble = trouble_in(directory) if directory.is_dir() else None
        full = _primary(error) == sqlite3.SQLITE_FULL or (trouble is not None and trouble.errno in NO_ROOM)
        why = f" ({trouble.strerror})" if trouble else ""
        code = "no_room" if full else "delegation_unreadable"
        raise Rejected(code, f"The database of tokens: {error}{why}.") from error
    except OSError as error:
        code = "no_room" if error.errno in NO_ROOM else "delegation_unreadable"
        raise Rejected(code, f"The database of tokens: {explained(error, directory.parent).strerror}.") from error


def _is_damage(error: sqlite3.Error) -> bool:
    return _primary(error) in _DAMAGE or str(error).startswith((_NOT_OURS, "no such table", "unsupported file format"))


def _primary(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
