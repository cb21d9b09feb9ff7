"""Moving tasks and commands from one shard's database into others, for another number of shards.

Only for the migration, which holds every lock. Every step is durable before the next and safe to repeat: rows are
copied in their order and recognised by their task ids, and deleted only when all of their shard's are copied.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from typing import Any, Final

from daemon.model.counters import EVENTS
from daemon.model.upload import bucket_of
from daemon.task_queue.sqlite.audit import CLOSE
from daemon.task_queue.sqlite.base import QueueBase
from daemon.task_queue.sqlite.connect import BUSY_TIMEOUT_S
from daemon.task_queue.sqlite.outbox import QueueOutbox
from daemon.task_queue.sqlite.schema import EPOCH_FACT, EVENTS_BEFORE, OUTAGES, TABLE
from daemon.task_queue.sqlite.selection import selection_in

#: Rows in one transaction.
_CHUNK: Final = 5000
#: Everything that a row holds but its order.
_COLUMNS: Final = ("data, timestamp, status, task_id, instance, target, size, attempts, due_at, updated_at, error_code,"
                   " error_message, spooled, recheck, age_base, wish, outrun, behind, part, client, history")
_COMMAND: Final = "verb, task_id, filter, force, asked_at, asked_by, action"
_ACTION: Final = "action_id, asked_at, asked_by, verb, what, tasks, changed, refused, done_at"
_CLOSE_AT_HOME: Final = (
    "UPDATE home.actions SET done_at = ? WHERE done_at IS NULL AND NOT EXISTS (SELECT 1 FROM home.commands"
    " WHERE home.commands.action = home.actions.action_id AND home.commands.done_at IS NULL)")
#: What two shards know of one action, together.
_JOINED: Final = ("tasks = tasks + excluded.tasks, changed = changed + excluded.changed,"
                  " refused = refused + excluded.refused, done_at = max(done_at, excluded.done_at)")
#: The fact that says of which database, by its epoch, the sums have been taken over.
_TAKEN_OVER: Final = "taken_over_"
#: The seconds for which an instance's tasks had to be waited for, as one of two databases knows them.
_WAITED: Final = (f"(SELECT {OUTAGES} FROM {{}}.outages"
                  " WHERE clock IN ('', substr(instance, 1, instr(instance, '/') - 1), instance))")


class QueueMoving(QueueOutbox):
    """What a migration does with the shard that it moves tasks out of."""

    def homes(self, shards: int) -> dict[int, list[str]]:
        """The other shards, under `shards` of them, that tasks of this one belong to, with their instances' keys."""
        found: dict[int, list[str]] = {}
        for (instance_key,) in self.read(f"SELECT DISTINCT instance FROM {TABLE}"):
            home = bucket_of(str(instance_key)) % shards
            if home != self.shard:
                found.setdefault(home, []).append(instance_key)
        return found

    def copy_to(self, home: "QueueBase", instance_keys: list[str], told: Callable[[int], None]) -> None:
        """Copy the tasks of instances, and what people asked about them, to another shard.

        They come after the tasks that are there, in their order, in the same states, as old as they are. `told` is
        called with the number of rows after each chunk. Raises QueueFault.
        """
        with self._beside(home, instance_keys) as connection:
            after = 0
            while rows := connection.execute(
                    f"SELECT _id FROM {TABLE} JOIN moving USING (instance) WHERE _id > ? ORDER BY _id LIMIT ?",
                    (after, _CHUNK)).fetchall():
                with _transaction(connection):
                    connection.execute(
                        f"INSERT OR IGNORE INTO home.{TABLE} ({_COLUMNS})"
                        f" SELECT {_COLUMNS.replace('age_base', 'age_base + older')}"
                        f" FROM {TABLE} JOIN moving USING (instance) WHERE _id > ? AND _id <= ? ORDER BY _id",
                        (after, rows[-1][0]))
                    connection.execute(
                        "INSERT OR IGNORE INTO home.keys SELECT instance, key, task_id, fingerprint FROM main.keys"
                        f" WHERE task_id IN (SELECT task_id FROM main.{TABLE} JOIN moving USING (instance)"
                        " WHERE _id > ? AND _id <= ?)", (after, rows[-1][0]))
                after = rows[-1][0]
                told(len(rows))
            with _transaction(connection):
                for command in connection.execute(
                        f"SELECT {_COMMAND} FROM main.commands WHERE done_at IS NULL ORDER BY id").fetchall():
                    _copy_command(connection, command)

    def forget_moved(self, instance_keys: list[str], told: Callable[[int], None]) -> None:
        """Delete the tasks of instances that have been copied, and what people asked about each. Raises QueueFault."""
        with self._lock, self.faults(), closing(self._new_db_connection(self.path, True, BUSY_TIMEOUT_S)) as connection:
            self.require_same_schema(connection)
            _note_moving(connection, instance_keys)
            with _transaction(connection):
                connection.execute(
                    "DELETE FROM commands WHERE done_at IS NULL AND task_id IN"
                    f" (SELECT task_id FROM {TABLE} JOIN moving USING (instance))")
                connection.execute(CLOSE, (time.time(),))
            deleted = _CHUNK
            while deleted == _CHUNK:
                with _transaction(connection):
                    deleted = connection.execute(
                        f"DELETE FROM {TABLE} WHERE _id IN (SELECT _id FROM {TABLE} JOIN moving USING (instance)"
                        " ORDER BY _id LIMIT ?)", (_CHUNK,)).rowcount
                told(deleted)

    def move_outbox(self, home: QueueOutbox) -> None:
        """Move the messages to webhooks to another shard. Raises QueueFault."""
        for standing in self.webhook_standings():
            while notices := self.notices(standing.name, None, None, _CHUNK):
                home.post(notices)
                self.drop_notices([notice.message_id for notice in notices])

    def hand_over(self, home: "QueueBase") -> None:
        """Add what is counted here, and what people did, to what another shard has; nothing is left here.

        However often it is cut off, nothing is added twice. Raises QueueFault.
        """
        with self._beside(home, []) as connection:
            taken_over = f"{_TAKEN_OVER}{self.fact(EPOCH_FACT)}"
            with _transaction(connection):
                if connection.execute("INSERT OR IGNORE INTO home.facts VALUES (?, '1')", (taken_over,)).rowcount:
                    self._add_sums(connection)
            with _transaction(connection):
                connection.execute("DELETE FROM main.counters")
                connection.execute(f"INSERT INTO main.counters {EVENTS_BEFORE}", EVENTS)
                connection.execute("DELETE FROM main.actions")

    @staticmethod
    def _add_sums(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO home.counters SELECT name, labels, value FROM main.counters WHERE true"
            " ON CONFLICT DO UPDATE SET value = value + excluded.value")
        connection.execute(
            "INSERT INTO home.counters SELECT ?, ?, seq FROM main.sqlite_sequence WHERE name = 'events' AND true"
            " ON CONFLICT DO UPDATE SET value = value + excluded.value", EVENTS)
        # Here nothing is done any more.
        connection.execute(
            f"INSERT INTO home.actions ({_ACTION}) SELECT {_ACTION} FROM main.actions WHERE true ORDER BY number"
            f" ON CONFLICT (action_id) DO UPDATE SET {_JOINED}")
        connection.execute(_CLOSE_AT_HOME, (time.time(),))

    def is_empty(self) -> bool:
        """True when the shard has no tasks."""
        return not self.read(f"SELECT 1 FROM {TABLE} LIMIT 1")

    @contextmanager
    def _beside(self, home: "QueueBase", instance_keys: list[str]) -> Iterator[sqlite3.Connection]:
        """A connection to this database with the other one attached as `home`."""
        with self._lock, self.faults(), closing(self._new_db_connection(self.path, True, BUSY_TIMEOUT_S)) as connection:
            connection.execute("ATTACH ? AS home", (str(home.layout.database(home.shard)),))
            connection.execute("PRAGMA home.synchronous = FULL")
            self.require_same_schema(connection)
            home.require_same_schema(connection, "home")
            _note_moving(connection, instance_keys)
            here, there = _WAITED.format("main"), _WAITED.format("home")
            connection.execute(f"UPDATE moving SET older = {here} - {there}")
            yield connection


def _note_moving(connection: sqlite3.Connection, instance_keys: list[str]) -> None:
    connection.execute("CREATE TEMP TABLE moving (instance TEXT PRIMARY KEY, older REAL NOT NULL DEFAULT 0)")
    connection.executemany("INSERT INTO moving (instance) VALUES (?)", [(key,) for key in instance_keys])


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _copy_command(connection: sqlite3.Connection, command: tuple[Any, ...]) -> None:
    """Copy a command about a task that moves; one about many tasks for each instance that moves."""
    verb, task_id, text, force, asked_at, asked_by, action = command
    if text is None:
        known = connection.execute(f"SELECT 1 FROM main.{TABLE} JOIN moving USING (instance) WHERE task_id = ?",
                                   (task_id,)).fetchone()
        if known:
            _ask_once(connection, command)
        return
    try:
        selection = selection_in(text)
    except (ValueError, TypeError, KeyError):
        # Nobody can tell what was asked for: its worker would have refused it.
        return
    for (instance_key,) in connection.execute("SELECT instance FROM moving ORDER BY instance").fetchall():
        newest = _newest_moved(connection, instance_key, selection.up_to_order)
        if selection.instance_key in {None, instance_key} and newest is not None:
            narrowed = json.dumps(asdict(replace(selection, instance_key=instance_key, up_to_order=newest)))
            _ask_once(connection, (verb, None, narrowed, force, asked_at, asked_by, action))


def _newest_moved(connection: sqlite3.Connection, instance_key: str, up_to_order: int | None) -> int | None:
    """The order, in its new shard, of the newest task of an instance whose order here is at most `up_to_order`."""
    bound, values = ("", [instance_key]) if up_to_order is None else (" AND mine._id <= ?", [instance_key, up_to_order])
    newest: int | None = connection.execute(
        f"SELECT max(moved._id) FROM main.{TABLE} AS mine JOIN home.{TABLE} AS moved USING (task_id)"
        f" WHERE mine.instance = ?{bound}", values).fetchone()[0]
    return newest


def _ask_once(connection: sqlite3.Connection, command: tuple[Any, ...]) -> None:
    """Ask it in the new shard, unless a migration that was cut off has done so; its action has a part there, too."""
    verb, task_id, text, _, asked_at, asked_by, action = command
    connection.execute(
        f"INSERT INTO home.commands ({_COMMAND}) SELECT ?, ?, ?, ?, ?, ?, ? WHERE NOT EXISTS ("
        " SELECT 1 FROM home.commands"
        " WHERE verb = ? AND task_id IS ? AND filter IS ? AND asked_at = ? AND asked_by = ?)",
        (*command, verb, task_id, text, asked_at, asked_by))
    # Its tasks are counted where they were asked for.
    connection.execute(
        "INSERT INTO home.actions (action_id, asked_at, asked_by, verb, what, tasks)"
        " SELECT action_id, asked_at, asked_by, verb, what, 0 FROM main.actions WHERE action_id = ?"
        " ON CONFLICT (action_id) DO UPDATE SET done_at = NULL", (action,))
