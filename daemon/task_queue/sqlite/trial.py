"""Trying whether SQLite does here what the queue needs of it."""

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final

from daemon.state.layout import Layout
from daemon.task_queue.sqlite.connect import connect

#: persist-queue's statements need RETURNING (3.35).
_OLDEST: Final = (3, 35, 0)


def try_out(layout: Layout) -> str:
    """Make a database in the state directory; say, for people, with what. Raises OSError saying why it cannot."""
    if sqlite3.sqlite_version_info < _OLDEST:
        raise OSError(f"SQLite {sqlite3.sqlite_version} is too old")
    with tempfile.TemporaryDirectory(dir=layout.queue) as directory:
        try:
            mode = _make(Path(directory) / "check.db")
        except sqlite3.Error as error:
            raise OSError(str(error)) from error
    if mode != "wal":
        raise OSError("this filesystem does not take SQLite's write-ahead log")
    return f"version {sqlite3.sqlite_version}, write-ahead log works"


def _make(file: Path) -> str:
    with closing(connect(file, "mode=rwc")) as connection:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        connection.execute("CREATE TABLE try (x)")
        return str(mode)
