"""What somebody who may write a shard's database leaves there, and SQLite finds nothing wrong with."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

_TRIGGER: Final = ("CREATE TRIGGER evil AFTER INSERT ON tasks_v1 BEGIN"
                   " UPDATE tasks_v1 SET status = 5 WHERE _id = NEW._id; END;")
_ENDLESS: Final = ("AS WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
                   " SELECT 1 AS status, 'local/default/c' || x AS instance, 1 AS tasks, 1 AS bytes FROM n;")


def _edited(old: str, new: str) -> str:
    return ("PRAGMA writable_schema = ON;"
            f" UPDATE sqlite_schema SET sql = replace(sql, '{old}', '{new}') WHERE name = 'tasks_v1';")


def _made_anew(setting: str) -> str:
    return f"PRAGMA journal_mode = DELETE; PRAGMA {setting}; VACUUM; PRAGMA journal_mode = WAL;"


#: By what it is: a script that makes it.
FOREIGN: Final = {
    "trigger": _TRIGGER,
    "trigger whose number of the schema was put back": _TRIGGER,
    "other trigger of a known name": "DROP TRIGGER tally_insert;" + _TRIGGER.replace("evil", "tally_insert"),
    "trigger that is gone": "DROP TRIGGER behind_delete;",
    "view": f"CREATE VIEW more {_ENDLESS}",
    "view in the place of a table": f"DROP TABLE tally; CREATE VIEW tally {_ENDLESS}",
    "table": "CREATE TABLE more (x);",
    "index": "CREATE UNIQUE INDEX more ON tasks_v1 (instance);",
    "index that is gone": "DROP INDEX tasks_lane;",
    "column": "ALTER TABLE tasks_v1 ADD COLUMN more;",
    "generated column": "ALTER TABLE tasks_v1 ADD COLUMN more AS (hex(zeroblob(100000000)));",
    "constraint": _edited("size INTEGER NOT NULL", "size INTEGER NOT NULL CHECK (size > 9)"),
    "default": _edited("open INTEGER NOT NULL DEFAULT 1", "open INTEGER NOT NULL DEFAULT 0"),
    "statistics": "ANALYZE;",
    "version": "PRAGMA user_version = -1;",
    "version of none": "PRAGMA user_version = 0; CREATE TABLE more (x);",
    "last number for a task": "INSERT INTO sqlite_sequence VALUES ('tasks_v1', 9223372036854775807);",
    "last number for a command": "INSERT INTO sqlite_sequence VALUES ('commands', 'x');",
    "application_id": "PRAGMA application_id = 7;",
    "page_size": _made_anew("page_size = 512"),
    "auto_vacuum": _made_anew("auto_vacuum = FULL"),
    "view behind a text that nothing understands":
        "PRAGMA writable_schema = ON; INSERT INTO sqlite_schema VALUES ('view', 'more', 'more', 0, 'CREATE VIEW');",
    "text as large as a disk":
        "PRAGMA writable_schema = ON; INSERT INTO sqlite_schema VALUES ('table', 'more', 'more', 0, zeroblob(9000000));",
}
#: What can be put into a database that others have open, and is in force before it is opened anew.
UNDER_OTHERS: Final = sorted(set(FOREIGN) - {"version", "version of none", "page_size", "auto_vacuum"})
#: A value that is larger than any that the service writes: SQLite finds nothing wrong with that either.
HUGE: Final = "huge value"
#: What can be written over its head, from which byte on: https://sqlite.org/fileformat.html
HEADS: Final = {"head of a format to come": (44, b"\0\0\0\x09"), "head that forbids to write": (18, b"\x03")}
_SCRIPTS: Final = {**FOREIGN, HUGE: "UPDATE tasks_v1 SET data = zeroblob(9000000);"}


def plant(database: Path, what: str) -> None:
    """Put one of them into a database, behind the service's back."""
    if what in HEADS:
        with database.open("r+b") as file:
            place, head = HEADS[what]
            file.seek(place)
            file.write(head)
        return
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        before = connection.execute("PRAGMA schema_version").fetchone()[0]
        connection.executescript(_SCRIPTS[what])
        if what.endswith("was put back"):
            connection.execute(f"PRAGMA schema_version = {before}")
