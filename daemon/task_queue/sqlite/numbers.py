"""The numbers of events: after a crash of the machine none stands for another event than before.

A transaction that was not synced can be read, and be taken back by a crash; whoever read it knows its numbers. So the
first who makes events after a restart of the machine, a worker or the API, leaves a stretch of numbers out. A worker
also does when the one before it did not end in order: the write-ahead log may be damaged.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from daemon.model.counters import EVENTS
from daemon.state.boot import boot_id
from daemon.task_queue.sqlite.counters import count

#: The facts that say at which boot numbers were left out last, and the last number of each stretch of them.
BOOT_FACT: Final = "numbers_boot"
LEFT_OUT_FACT: Final = "numbers_left_out"
#: More events than one crash of the machine can take back.
LEFT_OUT: Final = 2**20
#: Stretches that are remembered: nobody is away for longer.
_MOST_STRETCHES: Final = 64
_REMEMBER: Final = "INSERT OR REPLACE INTO facts VALUES (?, ?)"


def begin(connection: sqlite3.Connection) -> None:
    """The table of events is new: nobody has read a number. Part of a durable transaction."""
    connection.execute(_REMEMBER, (BOOT_FACT, boot_id() or ""))


def leave_out(connection: sqlite3.Connection, *, in_any_case: bool = False) -> None:
    """Once after each restart of the machine, before any event: part of a durable transaction."""
    current = boot_id()
    if current is not None and _fact(connection, BOOT_FACT) == current and not in_any_case:
        return
    # SQLite has no row for a table in which nothing ever was, durably.
    if not connection.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'events'", (LEFT_OUT,)).rowcount:
        connection.execute("INSERT INTO sqlite_sequence VALUES ('events', ?)", (LEFT_OUT,))
    count(connection, {EVENTS: -LEFT_OUT})
    ends = [*read_ends(_fact(connection, LEFT_OUT_FACT)),
            connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()[0]]
    connection.execute(_REMEMBER, (LEFT_OUT_FACT, " ".join(map(str, ends[-_MOST_STRETCHES:]))))
    connection.execute(_REMEMBER, (BOOT_FACT, current or ""))


def read_ends(fact: object) -> tuple[int, ...]:
    """The last number of each stretch that was left out, in order; none where the fact does not say so."""
    texts = fact.split() if isinstance(fact, str) else []
    return tuple(map(int, texts)) if all(text.isascii() and text.isdigit() and len(text) < 20 for text in texts) else ()


def settled(number: int, ends: Iterable[int]) -> int:
    """Where somebody stands who has read up to `number`: what was left out, or taken back, is behind him."""
    for end in ends:
        if end - LEFT_OUT <= number <= end:
            number = end
    return number


def newest_to_forget(newest: int, keep_most: int, ends: Sequence[int]) -> int:
    """The newest number that goes so that `keep_most` stay; those that were left out do not count."""
    last = newest - keep_most
    for end in reversed(ends):
        if last <= end:
            last -= LEFT_OUT
    return last


def _fact(connection: sqlite3.Connection, name: str) -> object:
    row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return None if row is None else row[0]

