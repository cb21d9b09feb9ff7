"""Connections to a database whose file another user may have written: SQLite trusts nothing that it says of itself."""

import os
import sqlite3
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote

#: How long to wait for another process's short transaction.
BUSY_TIMEOUT_S: Final = 10.0
#: Between two tries to begin a transaction. Another one takes about a millisecond; SQLite itself would wait for one
#: at first, then ever longer, and whoever comes later would be first.
_RETRY_S: Final = 0.0003
#: More than any row has, and any list of ids that a statement takes. SQLite's own limit is a billion bytes.
LIMIT_BYTES: Final = 2**20
#: https://sqlite.org/security.html: what a schema calls has no effects, and pages are looked at before they are used.
_DISTRUST: Final = ("trusted_schema = OFF", "cell_size_check = ON")
_WAIT: Final = f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000:.0f}"
#: How many KiB of pages SQLite keeps: the file may name any number. To say so, SQLite reads all of the schema.
SET_CACHE: Final = "PRAGMA cache_size = -16384"


def connect(database: Path, how: str = "mode=rw") -> sqlite3.Connection:
    """A connection without transactions of its own. Nothing is read yet. Raises sqlite3.Error.

    `how` is the query of SQLite's URI (https://sqlite.org/uri.html). Unless it says so no database is made: one of
    SQLite's making would be closed to the other user of the state.
    """
    # Not by `as_uri`: in Python 3.13 it imports something first, and root may have become a user who cannot read that.
    uri = f"file://{quote(os.fsencode(database.absolute()))}?{how}"
    connection = sqlite3.connect(uri, timeout=BUSY_TIMEOUT_S, check_same_thread=False, isolation_level=None, uri=True)
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LIMIT_BYTES)
        for setting in _DISTRUST:
            connection.execute(f"PRAGMA {setting}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def begin(connection: sqlite3.Connection) -> None:
    """Begin a transaction that writes, as soon as another connection's has ended. Raises sqlite3.Error."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        while not _begins(connection, last=time.monotonic() > deadline):
            time.sleep(_RETRY_S)
    finally:
        connection.execute(_WAIT)


def _begins(connection: sqlite3.Connection, *, last: bool) -> bool:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        # Without what the upper bits tell: why the other one is busy.
        if last or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True
