"""Connections to a database."""

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from daemon.task_queue.sqlite.connect import begin, connect
from tests.support.processes import ROOT

#: Connects where nothing more can be imported.
_CONNECT = """
import sys
from pathlib import Path
from daemon.task_queue.sqlite.connect import connect
sys.path.clear()
connect(Path(sys.argv[1])).close()
"""


@pytest.mark.parametrize("name", ["database", "a space", "50%", "?mode=ro", "#1", "grün", "\udcff"])
def test_database_is_found_whatever_its_directory_is_called(tmp_path: Path, name: str) -> None:
    """Nothing in a name has a meaning of its own."""
    (tmp_path / name).mkdir()
    database = tmp_path / name / "data.db"
    with closing(connect(database, "mode=rwc")) as connection:
        connection.execute("CREATE TABLE found (x)")
    assert database.stat().st_size > 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_nothing_is_imported_for_a_connection(tmp_path: Path) -> None:
    """Root may have become a user who cannot read Python's own files."""
    database = tmp_path / "data.db"
    connect(database, "mode=rwc").close()
    done = subprocess.run([sys.executable, "-c", _CONNECT, str(database)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""


#: Another process's part: it was killed while it wrote the log's index, and now holds the locks of who mends that
#: (https://sqlite.org/walformat.html#wal_locks: WRITE, CKPT and RECOVER), until its standard input ends.
_RECOVER = """
import fcntl, os, sys
index = os.open(sys.argv[1], os.O_RDWR)
for byte in (120, 121, 122):
    fcntl.lockf(index, fcntl.LOCK_EX, 1, byte)
os.pwrite(index, b"\\xff" * 8, 8)
print("locked", flush=True)
sys.stdin.read()
"""


def test_transaction_waits_for_who_mends_the_log(tmp_path: Path) -> None:
    """As for who writes: SQLite has a code of its own for that."""
    database = tmp_path / "data.db"
    with closing(connect(database, "mode=rwc")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE found (x)")
        with subprocess.Popen([sys.executable, "-c", _RECOVER, f"{database}-shm"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdin is not None
            assert other.stdout.readline() == b"locked\n"
            connection.execute("PRAGMA busy_timeout = 0")
            with pytest.raises(sqlite3.OperationalError) as refused:
                connection.execute("BEGIN IMMEDIATE")
            assert refused.value.sqlite_errorcode == sqlite3.SQLITE_BUSY_RECOVERY
            threading.Timer(0.1, other.stdin.close).start()
            begin(connection)
            connection.execute("ROLLBACK")
