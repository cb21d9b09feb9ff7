"""Reading a shard's whole database through, on a connection of its own, without disturbing anyone."""

import os
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from daemon.state.files import NotOwn
from daemon.state.layout import Layout
from daemon.task_queue.sqlite.connect import SET_CACHE, connect
from daemon.task_queue.sqlite.faults import faults, is_damage
from daemon.task_queue.sqlite.form import version_of, what_is_strange

#: The thread that reads gives way to all others.
_NICE: Final = 19
#: What SQLite opens beside a database. It looks for a rollback journal in every one, also where there is a log.
_SUFFIXES: Final = ("", "-wal", "-shm", "-journal")


def what_is_damaged(layout: Layout, shard: int, *, thorough: bool = False) -> str | None:
    """What is wrong with the shard's database, or not of this program's making, or None. Seconds for a million rows.

    `thorough` compares the indexes with the tables too. Raises QueueFault when there is no database, and when it
    cannot be read just now.
    """
    with faults(layout.shard(shard)):
        os.stat(layout.database(shard))
        return what_is_foreign(layout, shard) or _read_through(layout, shard, thorough)


def _read_through(layout: Layout, shard: int, thorough: bool) -> str | None:
    check = "integrity_check" if thorough else "quick_check"
    try:
        with closing(connect(layout.database(shard))) as connection:
            connection.execute(SET_CACHE)
            strange = what_is_strange(connection, version_of(connection))
            found = strange or connection.execute(f"PRAGMA {check}(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and not is_damage(error):
            raise
        return str(error)
    return None if found == "ok" else str(found)


def what_is_foreign(layout: Layout, shard: int) -> str | None:
    """Which of the files that SQLite opens by their names is no plain file of the service's own, or None."""
    files = [Path(f"{layout.database(shard)}{suffix}") for suffix in _SUFFIXES]
    try:
        for file in files:
            layout.check(file)
    except NotOwn as error:
        return f"{error.filename}: {error.strerror}"
    return next((f"{file}: closed to the service" for file in files if _is_closed(layout, file)), None)


def _is_closed(layout: Layout, file: Path) -> bool:
    """True for a file that its owner, another user, has closed to this one, whose the queue is."""
    with suppress(FileNotFoundError):
        me = os.geteuid()
        return (os.stat(layout.queue).st_uid == me != os.lstat(file).st_uid
                and not os.access(file, os.R_OK | os.W_OK, effective_ids=True))
    return False


def give_way() -> None:
    """Let every other thread of the machine go before this one, where that is allowed."""
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
