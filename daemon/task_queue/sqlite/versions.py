"""The version of a shard's database: which one a file has, and the step from each version to the next.

A program works with one version alone. It refuses a newer one, and an older one too unless it may bring that up to
date: each step is one transaction together with its number, so that whoever is cut off leaves a version behind, whole.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Final

from daemon.errors import QueueFault
from daemon.model.counters import EVENTS
from daemon.model.upload import Upload
from daemon.state.layout import Layout
from daemon.task_queue.sqlite import numbers
from daemon.task_queue.sqlite.connect import connect
from daemon.task_queue.sqlite.faults import faults
from daemon.task_queue.sqlite.form import require_form, version_of
from daemon.task_queue.sqlite.inspection import what_is_foreign
from daemon.task_queue.sqlite.schema import (
    ACTION,
    CLIENT,
    CREATE_CLIENTS,
    CREATE_COUNTERS,
    CREATE_EVENTS,
    CREATE_KEYS,
    CREATE_OUTBOX,
    EPOCH_FACT,
    EVENTS_BEFORE,
    HISTORY,
    TABLE,
    key_row,
)

Step = Callable[[sqlite3.Connection], None]


def _keep_keys_beside_tasks(connection: sqlite3.Connection) -> None:
    """1 to 2: a shard holds the idempotency keys of its tasks. Every row carries its own; the last one counts."""
    for statement in CREATE_KEYS:
        connection.execute(statement)
    rows = connection.execute(
        f"SELECT data FROM {TABLE} WHERE instr(data, '\"idempotency_key\":\"') ORDER BY task_id")
    connection.executemany("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?)", _keys(data for (data,) in rows))
    connection.execute("DELETE FROM facts WHERE name = 'keys'")


def _keys(texts: Iterator[str | bytes]) -> Iterator[tuple[str, str | None, str, str]]:
    for text in texts:
        try:
            upload = Upload.from_json(text)
        except ValueError:
            # A damaged row gets its key again when it is written anew from its file.
            continue
        yield key_row(upload)


def _tell_clients_apart(connection: sqlite3.Connection) -> None:
    """2 to 3: a row says who sent its task. All that are there already are of anonymous clients."""
    connection.execute(f"ALTER TABLE {TABLE} ADD COLUMN {CLIENT}")
    for statement in CREATE_CLIENTS:
        connection.execute(statement)


def _keep_what_happened(connection: sqlite3.Connection) -> None:
    """3 to 4: what happens to tasks is kept, and what webhooks are told. Of what happened before nothing is known."""
    connection.execute(f"ALTER TABLE {TABLE} ADD COLUMN {HISTORY}")
    for statement in (*CREATE_EVENTS, *CREATE_OUTBOX):
        connection.execute(statement)
    connection.execute("INSERT OR REPLACE INTO facts VALUES (?, lower(hex(randomblob(6))))", (EPOCH_FACT,))
    numbers.begin(connection)


def _count_for_good(connection: sqlite3.Connection) -> None:
    """4 to 5: what is done is counted, and what people ask is kept. All sums begin with nothing."""
    connection.execute(f"ALTER TABLE commands ADD COLUMN {ACTION}")
    for statement in CREATE_COUNTERS:
        connection.execute(statement)
    connection.execute(f"INSERT INTO counters {EVENTS_BEFORE}", EVENTS)


def _let_uploads_share_files(_connection: sqlite3.Connection) -> None:
    """5 to 6: rows stand for packs of the spool, too. A program of version 5 knows none, and would give them up."""


#: What leads from each version to the next. A step stays as it is for good.
STEPS: Final[Mapping[int, Step]] = {
    1: _keep_keys_beside_tasks, 2: _tell_clients_apart, 3: _keep_what_happened, 4: _count_for_good,
    5: _let_uploads_share_files}
#: The version that this program works with.
SCHEMA_VERSION: Final = len(STEPS) + 1


def admit(version: int, shard: int, *, upgrade: bool) -> None:
    """Refuse a version that is not this program's: a new database (0) and, with `upgrade`, an older one may go on.

    Raises QueueFault: 'schema_newer' or 'schema_older'.
    """
    if version > SCHEMA_VERSION:
        raise QueueFault("schema_newer", f"The database of shard {shard} has version {version}; this program knows"
                                         f" versions up to {SCHEMA_VERSION}.")
    if 0 < version < SCHEMA_VERSION and not upgrade:
        raise QueueFault("schema_older", f"The database of shard {shard} has version {version}; this program works"
                                         f" with version {SCHEMA_VERSION}.")


def version_on_disk(layout: Layout, shard: int) -> int:
    """The version of the shard's database, read without touching a file; 0 where there is none to be read."""
    try:
        return _read_version(layout, shard)
    except (sqlite3.Error, OSError):
        # Whoever opens it to use it learns what is wrong with it.
        return 0


def look_over(layout: Layout, shard: int) -> str:
    """What the shard's database is, for people, read without touching a file.

    Raises QueueFault as a worker would that opens it: 'schema_newer', 'queue_damaged', and FileNotFoundError.
    """
    foreign = what_is_foreign(layout, shard)
    if foreign is not None:
        raise QueueFault("queue_damaged", foreign)
    with faults(layout.shard(shard)), _opened(layout, shard) as connection:
        version = version_of(connection)
        admit(version, shard, upgrade=True)
        require_form(connection, version)
    later = f"; its worker brings it up to version {SCHEMA_VERSION}" if version < SCHEMA_VERSION else ""
    return f"version {version}{later}"


def _read_version(layout: Layout, shard: int) -> int:
    if what_is_foreign(layout, shard) is not None:
        return 0
    with _opened(layout, shard) as connection:
        return version_of(connection)


@contextmanager
def _opened(layout: Layout, shard: int) -> Iterator[sqlite3.Connection]:
    # Without its log a database is whole as it is, and SQLite would make a new log.
    how = "mode=ro" if layout.log(shard).exists() else "mode=ro&immutable=1"
    with closing(connect(layout.database(shard), how)) as connection:
        yield connection


def is_older(layout: Layout, shard: int) -> bool:
    """True when the shard's database has to be brought up to date before it can be used."""
    return 0 < version_on_disk(layout, shard) < SCHEMA_VERSION
