"""The numbers of events: after a crash of the machine none stands for another event than before.

A transaction that was not synced can be read, and be taken back by a crash; whoever read it knows its numbers. So the
first who makes events after a restart of the machine, a worker or the API, leaves a stretch of numbers out.
"""

import sqlite3
from pathlib import Path
from typing import Final

#: The kernel's name for the time since its last boot.
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
#: The facts that say at which boot numbers were left out last, and which number was the last of these.
BOOT_FACT: Final = "numbers_boot"
FROM_FACT: Final = "numbers_from"
#: More events than one crash of the machine can take back.
LEFT_OUT: Final = 2**20
_REMEMBER: Final = "INSERT OR REPLACE INTO facts VALUES (?, ?)"


def begin(connection: sqlite3.Connection) -> None:
    """The table of events is new: nobody has read a number. Part of a durable transaction."""
    connection.execute("INSERT INTO sqlite_sequence VALUES ('events', 0)")
    connection.execute(_REMEMBER, (BOOT_FACT, _boot_id()))


def leave_out(connection: sqlite3.Connection, *, in_any_case: bool = False) -> None:
    """Once after each restart of the machine, before any event: part of a durable transaction. Raises OSError."""
    boot_id = _boot_id()
    known = connection.execute("SELECT value FROM facts WHERE name = ?", (BOOT_FACT,)).fetchone()
    if known == (boot_id,) and not in_any_case:
        return
    connection.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'events'", (LEFT_OUT,))
    connection.execute("INSERT OR REPLACE INTO facts SELECT ?, seq FROM sqlite_sequence WHERE name = 'events'",
                       (FROM_FACT,))
    connection.execute(_REMEMBER, (BOOT_FACT, boot_id))


def settled(number: int, last_left_out: int) -> int:
    """Where somebody stands who has read up to `number`: what was left out, or taken back, is behind him."""
    return last_left_out if last_left_out - LEFT_OUT <= number <= last_left_out else number


def newest_to_forget(newest: int, keep_most: int, last_left_out: int) -> int:
    """The newest number that goes so that about `keep_most` stay; those that were last left out do not count."""
    last = newest - keep_most
    return last - LEFT_OUT if last <= last_left_out else last


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()
