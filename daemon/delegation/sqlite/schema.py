"""The form of the database of what was handed on, and an empty one of that form."""

import sqlite3
from contextlib import closing
from functools import cache
from typing import Final

#: What the file says of itself: another version is not read.
VERSION: Final = 1
_TABLES: Final = (
    """CREATE TABLE children (
        key_id TEXT PRIMARY KEY, sha256 TEXT NOT NULL, name TEXT NOT NULL, root TEXT NOT NULL, parent TEXT NOT NULL,
        grant_json TEXT NOT NULL, made_at REAL NOT NULL, expires_at REAL NOT NULL, label TEXT NOT NULL, made_from TEXT
    ) WITHOUT ROWID""",
    "CREATE INDEX living ON children (name, expires_at)",
    "CREATE INDEX of_root ON children (root, expires_at)",
    "CREATE INDEX ends ON children (expires_at)",
    """CREATE TABLE used (
        name TEXT PRIMARY KEY, uploads INTEGER NOT NULL, size_bytes INTEGER NOT NULL
    ) WITHOUT ROWID""",
    f"PRAGMA user_version = {VERSION}",
)
#: Where the header says how the file is written and read (https://sqlite.org/fileformat2.html, 1.3.3), and: by a log.
_JOURNAL: Final = slice(18, 20)
_WAL: Final = b"\x02\x02"


@cache
def empty() -> bytes:
    """A database without rows, as a file."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for statement in _TABLES:
            connection.execute(statement)
        image = bytearray(connection.serialize())
    # A database in memory has no log. Said here, no two processes ever argue about beginning one.
    image[_JOURNAL] = _WAL
    return bytes(image)


@cache
def _form() -> tuple[object, ...]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for statement in _TABLES:
            connection.execute(statement)
        return _form_of(connection)


def _form_of(connection: sqlite3.Connection) -> tuple[object, ...]:
    version = connection.execute("PRAGMA user_version").fetchone()
    return version, *connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")


def is_ours(connection: sqlite3.Connection) -> bool:
    """True when the database has exactly the form that is made here. Raises sqlite3.Error."""
    return _form_of(connection) == _form()
