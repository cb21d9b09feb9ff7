"""What a shard's database is made of: exactly what this program makes, or it is damaged.

Whoever may write the file can add a trigger, a view, an index, or a constraint, and SQLite finds nothing wrong with
them. They would run in every transaction of the service. So each database is compared with one that is made anew.
"""

import sqlite3
from collections.abc import Set
from contextlib import closing
from functools import cache
from typing import Final, NamedTuple

from daemon.errors import QueueFault
from daemon.model.names import printable
from daemon.task_queue.sqlite.schema import SCHEMAS, TABLE

#: What a file says of itself besides its schema and its version.
_SETTINGS: Final = ("page_size", "auto_vacuum", "encoding", "application_id")
#: The highest numbers that were given to rows, and in tables by which the next ones are found.
_HIGHEST: Final = (f"SELECT max(seq) FROM sqlite_sequence UNION ALL SELECT max(_id) FROM {TABLE}"
                   " UNION ALL SELECT max(id) FROM commands")
#: A million rows a second for a hundred thousand years; half of what SQLite has.
_MOST_ROWS_EVER: Final = 2**62
#: So much of a name is told to people.
_NAME_LENGTH: Final = 64


class _Form(NamedTuple):
    """A schema, as (type, name, table, text), and the settings of the file."""

    parts: Set[tuple[object, ...]]
    settings: tuple[object, ...]


def require_form(connection: sqlite3.Connection, version: int) -> int:
    """Compare a database with what that version makes; return the number by which SQLite knows the schema.

    The number changes with the schema. Raises QueueFault('queue_damaged') when anything is not as it is made.
    """
    connection.execute("BEGIN")
    try:
        foreign = what_is_strange(connection, version)
        number = schema_number(connection)
    finally:
        connection.execute("ROLLBACK")
    if foreign is not None:
        raise QueueFault("queue_damaged", f"The queue's database: {foreign}.")
    return number


def version_of(connection: sqlite3.Connection) -> int:
    """The version that a database says it has; 0 when it was not made yet."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def schema_number(connection: sqlite3.Connection, name: str = "main") -> int:
    """SQLite's number for the schema, as it is in this transaction, of the database that has that name in it."""
    return int(connection.execute(f"PRAGMA {name}.schema_version").fetchone()[0])


def what_is_strange(connection: sqlite3.Connection, version: int) -> str | None:
    """What in a database is not as that version makes it, in words, or None.

    One without a version may have some parts of version 1, the only one whose making could be cut off half-way. Of a
    newer version, which is refused anyway, nothing is known.
    """
    if version > max(SCHEMAS):
        return None
    if version < 0:
        return f"no program makes version {version}"
    wanted = _made(version or 1)
    parts = _parts(connection, len(wanted.parts) + 1)
    strange = next((part for part in parts if part not in wanted.parts), None)
    if strange is not None:
        return f"this program has not made {_named(strange)}"
    if len(parts) != len(wanted.parts) and version:
        return f"it has {len(parts)} parts of {len(wanted.parts)}"
    if version and not _has_numbers_left(connection):
        return "its rows have no numbers left"
    settings = _settings(connection)
    return None if settings == wanted.settings else f"its {', '.join(_SETTINGS)} are {settings}"


def _has_numbers_left(connection: sqlite3.Connection) -> bool:
    """False where no row could be inserted any more: SQLite calls that a full disk. Text is more than any number."""
    highest = connection.execute(_HIGHEST).fetchall()
    return all(number is None or (isinstance(number, int) and number < _MOST_ROWS_EVER) for (number,) in highest)


def _named(part: tuple[object, ...]) -> str:
    kind, name, *_ = part
    return printable(f"the {kind} {name}", _NAME_LENGTH)


@cache
def _made(version: int) -> _Form:
    """What a database of that version has, as this SQLite writes it down."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMAS[version])
        return _Form(frozenset(_parts(connection, -1)), _settings(connection))


def _parts(connection: sqlite3.Connection, most: int) -> list[tuple[object, ...]]:
    return connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema LIMIT ?", (most,)).fetchall()


def _settings(connection: sqlite3.Connection) -> tuple[object, ...]:
    return tuple(connection.execute(f"PRAGMA {setting}").fetchone()[0] for setting in _SETTINGS)
