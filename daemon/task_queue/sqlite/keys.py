"""The database of the idempotency keys, which all shards share.

It only helps to recognise a repeated upload. A damaged one is set aside and a new one begun, so that it never
keeps an upload from being stored; the worker of each shard fills it again from its rows.
"""

import sqlite3
from contextlib import closing

from daemon.log import log
from daemon.state.layout import Layout, inode
from daemon.state.quarantine import retire
from daemon.task_queue.sqlite.alone import alone
from daemon.task_queue.sqlite.faults import is_damage
from daemon.task_queue.sqlite.schema import CREATE_KEYS


def attach(connection: sqlite3.Connection, layout: Layout) -> None:
    """Attach the keys to a connection as `keys`, making what is missing. Raises sqlite3.Error and OSError."""
    connection.execute("ATTACH ? AS keys", (str(layout.keys_file),))
    connection.execute("PRAGMA keys.journal_mode = WAL")
    connection.execute("PRAGMA keys.synchronous = FULL")
    for statement in CREATE_KEYS:
        connection.execute(statement)


def damage(layout: Layout) -> str | None:
    """What is wrong with the keys' database, or None."""
    if not inode(layout.keys_file):
        return None
    with closing(sqlite3.connect(layout.keys_file, isolation_level=None)) as connection:
        try:
            found = connection.execute("PRAGMA quick_check(1)").fetchall()[0][0]
        except sqlite3.DatabaseError as error:
            return str(error) if is_damage(error) else None
    return None if found == "ok" else str(found)


def replace_if_damaged(layout: Layout, used_inode: int) -> bool:
    """Move damaged keys to lost+found and begin new ones; False when nothing is wrong with them.

    True also when someone else has replaced the file of `used_inode`. Raises OSError.
    """
    with alone(layout):
        if inode(layout.keys_file) != used_inode:
            return True
        found = damage(layout)
        if found is None:
            return False
        log("keys.set_aside", path=str(retire(layout, layout.keys)), detail=found)
        layout.make_keys()
        return True
