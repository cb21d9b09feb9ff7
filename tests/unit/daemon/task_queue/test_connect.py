"""Connections to a database."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from daemon.task_queue.sqlite.connect import connect
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
