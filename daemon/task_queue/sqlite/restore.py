"""Putting a shard's queue right from the spool: rows that are missing, damaged, or say what is not so.

Only for the holder of the shard's lock. Every method is safe to repeat.
"""

import json
import os
import sqlite3
import time
from collections.abc import Sequence
from typing import Any, Final

from daemon.errors import QueueFault
from daemon.model.counters import finished
from daemon.model.names import is_client
from daemon.model.task import FINISHED, OUTCOMES, State
from daemon.model.upload import Upload
from daemon.task_queue.doctor import Restored, Row
from daemon.task_queue.sqlite.base import COLUMNS, COMPLETE_FACT, NEWER, QueueBase, decode_or_none, is_told
from daemon.task_queue.sqlite.counters import count
from daemon.task_queue.sqlite.schema import OUTAGE, TABLE, key_row

_COUNTS: Final = f"SELECT status, instance, count(*), sum(size) FROM {TABLE} GROUP BY status, instance"
#: In SQL, with a condition: how many tasks of clients are pending, and of how many bytes.
_BY_CLIENT: Final = (f"SELECT client, count(*), sum(size) FROM {TABLE} INDEXED BY tasks_by_client"
                     " WHERE client IS NOT NULL AND status IN (1, 2, 3, 4) AND {} GROUP BY client")
#: A database of up to this size is read through in well under a second.
_SMALL_BYTES: Final = 32 * 2**20


class QueueRestore(QueueBase):
    """What recovery may do."""

    # --- looking -----------------------------------------------------------------------------------------

    def rows(self, after_order: int, limit: int) -> list[Row]:
        """Up to `limit` rows with orders over `after_order`, damaged ones too, in order."""
        return [_row(found) for found in self.read(
            f"SELECT {COLUMNS} FROM {TABLE} WHERE _id > ? ORDER BY _id LIMIT ?", (after_order, limit))]

    def row(self, order: int) -> Row | None:
        """One row, or None."""
        found = self.read(f"SELECT {COLUMNS} FROM {TABLE} WHERE _id = ?", (order,))
        return _row(found[0]) if found else None

    def instances_of(self, task_ids: Sequence[str]) -> dict[str, str]:
        """Which of these ids have a row, and the keys of their instances."""
        marks = ",".join("?" * len(task_ids))
        return dict(self.read(f"SELECT task_id, instance FROM {TABLE} WHERE task_id IN ({marks})", task_ids))

    def glance(self) -> None:
        """Look at as much of the database as takes no time. Raises QueueFault('queue_damaged')."""
        if os.stat(self.layout.database(self.shard)).st_size <= _SMALL_BYTES:
            found = self.read("PRAGMA quick_check(1)")[0][0]
            if found != "ok":
                raise QueueFault("queue_damaged", f"The queue's database: {found}.")
        for table in (TABLE, "keys", "tally", "clients", "commands", "outages", "facts", "events", "outbox",
                      "webhooks", "counters", "actions"):
            self.read(f"SELECT * FROM {table} LIMIT 1")
        self.read(f"SELECT * FROM {TABLE} ORDER BY _id DESC LIMIT 1")

    # --- rows that are missing ---------------------------------------------------------------------------

    @property
    def is_complete(self) -> bool:
        """True unless this database was made while uploads were in the spool already: it may have lost rows."""
        return bool(self.read("SELECT 1 FROM facts WHERE name = ?", (COMPLETE_FACT,)))

    def note_complete(self) -> None:
        """Remember, durably, that every upload of the spool has been looked at."""
        with self.write(self.durable, "queue.settle") as connection:
            connection.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (COMPLETE_FACT, f"{time.time():.3f}"))

    def restore(self, found: Sequence[tuple[Upload, State]], *, supersede: bool) -> list[Restored]:
        """Give uploads that were found in the spool their rows again, older ones first, in one durable transaction.

        One that was pending goes before the newer ones of its path, if those are still to be pushed and `supersede`
        is off; otherwise it is OUTDATED where newer ones are known. Dead letters and held ones always get a row.
        """
        now = time.time()
        with self.write(self.durable, "queue.commit") as connection:
            return [self._restore(connection, upload, state, supersede, now) for upload, state in found]

    def _restore(
        self, connection: sqlite3.Connection, upload: Upload, state: State, supersede: bool, now: float,
    ) -> Restored:
        if connection.execute(f"SELECT 1 FROM {TABLE} WHERE task_id = ?", (upload.task_id,)).fetchone():
            return Restored.KNOWN
        target = upload.destination.digest
        newer = connection.execute(f"SELECT _id, status FROM {TABLE} WHERE {NEWER} ORDER BY _id",
                                   (target, upload.task_id)).fetchall()
        states = {status for _, status in newer}
        if newer and state is State.QUEUED and (supersede or State.DELIVERED in states):
            return Restored.OUTDATED
        if State.PUSHING in states:
            return Restored.LATER
        order = _insert(connection, upload, state, now, last=not newer)
        if newer:
            _put_behind(connection, [row[0] for row in newer])
        elif supersede:
            replaced = connection.execute(
                f"UPDATE {TABLE} SET status = 6, updated_at = ?, error_message = ?, due_at = NULL"
                " WHERE target = ? AND _id < ? AND status IN (1, 3)",
                (now, f"Replaced by {upload.task_id}.", target, order)).rowcount
            count(connection, {finished(State.SUPERSEDED): replaced} if replaced else {})
        return Restored.DONE

    # --- rows that are wrong -----------------------------------------------------------------------------

    def bury(self, order: int, state: int, code: str, message: str) -> bool:
        """Make a dead letter of a row that is in `state`, durably; False when it has left that state."""
        with self.write(self.durable, "queue.settle") as connection:
            buried = connection.execute(
                f"UPDATE {TABLE} SET status = 9, error_code = ?, error_message = ?, due_at = NULL, updated_at = ?"
                " WHERE _id = ? AND status = ?", (code, message, time.time(), order, state)).rowcount
            count(connection, {finished(State.FAILED): 1} if buried else {})
        return bool(buried)

    def stop(self, order: int, state: int, stopped: State, message: str) -> bool:
        """Believe the name of a file that says of a waiting upload that it was `stopped`: failed, or held. Durable.

        False when the row has left `state`. A newer upload to its path may have been delivered and forgotten.
        """
        with self.write(self.durable, "queue.settle") as connection:
            done = connection.execute(
                f"UPDATE {TABLE} SET status = ?, error_code = 'order_unknown', error_message = ?, outrun = 1,"
                " due_at = NULL, updated_at = ? WHERE _id = ? AND status = ?",
                (stopped, message, time.time(), order, state)).rowcount
            count(connection, {finished(stopped): 1} if done and stopped in OUTCOMES else {})
        return bool(done)

    def note_spooled(self, order: int) -> None:
        """Remember that the bytes of a finished task are in the spool after all."""
        with self.write(self.durable, "queue.settle") as connection:
            connection.execute(f"UPDATE {TABLE} SET spooled = 1 WHERE _id = ? AND status IN (5, 6, 7)", (order,))

    def mend(
        self, order: int, instance_key: str, upload: Upload, state: State, code: str | None, message: str | None,
    ) -> State:
        """Write a damaged row anew from its upload, with its order, durably; return the state that it got.

        One that would be pushed again is a dead letter instead when a newer upload to its path is known.
        """
        now = time.time()
        with self.write(self.durable, "queue.settle") as connection:
            newer = connection.execute(f"SELECT 1 FROM {TABLE} WHERE target = ? AND _id > ?",
                                       (upload.destination.digest, order)).fetchone()
            if newer and state is State.QUEUED:
                state, code, message = State.FAILED, "path_moved_on", "The row was damaged and has been mended."
            gone = connection.execute(f"DELETE FROM {TABLE} WHERE _id = ? OR task_id = ? RETURNING client",
                                      (order, upload.task_id)).fetchall()
            _insert(connection, upload, state, now, order)
            connection.execute(f"UPDATE {TABLE} SET error_code = ?, error_message = ? WHERE _id = ?",
                               (code, message, order))
            _count_again(connection, {instance_key, upload.destination.instance_key},
                         {upload.client, *(client for (client,) in gone)})
        return state

    def raw(self, order: int) -> str:
        """Everything that a row holds, for people, as JSON."""
        rows = self.read(f"SELECT * FROM {TABLE} WHERE _id = ?", (order,))
        return json.dumps([repr(value) for row in rows for value in row])

    def drop(self, order: int) -> None:
        """Delete a row, durably. Only when what it held is somewhere else."""
        with self.write(self.durable, "queue.settle") as connection:
            connection.execute(f"DELETE FROM {TABLE} WHERE _id = ?", (order,))

    def counts_fit(self) -> bool:
        """True when the counts that are kept are those of the rows. Looks at every row."""
        kept = "SELECT status, instance, tasks, bytes FROM tally WHERE tasks <> 0"
        return self._are_equal(_COUNTS, kept) and self._are_equal(
            _BY_CLIENT.format("true"), "SELECT client, tasks, bytes FROM clients WHERE tasks <> 0")

    def _are_equal(self, counted: str, kept: str) -> bool:
        return not self.read(f"SELECT 1 FROM ({counted} EXCEPT {kept}) UNION ALL"
                             f" SELECT 1 FROM ({kept} EXCEPT {counted}) LIMIT 1")

    def count_again(self) -> None:
        """Count every row anew, durably."""
        with self.write(self.durable, "queue.settle") as connection:
            connection.execute("DELETE FROM tally")
            connection.execute(f"INSERT INTO tally {_COUNTS}")
            connection.execute("DELETE FROM clients")
            connection.execute(f"INSERT INTO clients {_BY_CLIENT.format('true')}")


def _row(found: Sequence[Any]) -> Row:
    values = dict(zip(COLUMNS.split(", "), found, strict=True))
    data, client, code = values["data"], values["client"], values["error_code"]
    return Row(
        order=found[0], task_id=str(values["task_id"]), instance_key=str(values["instance"]), state=values["status"],
        client=client if isinstance(client, str) and is_client(client) else None,
        error_code=code if is_told(code) else None, task=decode_or_none(found),
        meta_bytes=len(data.encode(errors="replace")) if isinstance(data, str) else len(data or b""))


def _count_again(connection: sqlite3.Connection, instance_keys: set[str], clients: set[str | None]) -> None:
    """Count the rows of instances and clients anew: a damaged row was counted as what it was before."""
    marks = ",".join("?" * len(instance_keys))
    connection.execute(f"DELETE FROM tally WHERE instance IN ({marks})", tuple(instance_keys))
    connection.execute(f"INSERT INTO tally SELECT status, instance, count(*), sum(size) FROM {TABLE}"
                       f" WHERE instance IN ({marks}) GROUP BY status, instance", tuple(instance_keys))
    marks = ",".join("?" * len(clients))
    connection.execute(f"DELETE FROM clients WHERE client IN ({marks})", tuple(clients))
    connection.execute(f"INSERT INTO clients {_BY_CLIENT.format(f'client IN ({marks})')}", tuple(clients))


def _insert(
    connection: sqlite3.Connection, upload: Upload, state: State, now: float, order: int | None = None,
    *, last: bool = False,
) -> int:
    """`last`: it comes after every other upload to its path."""
    to = upload.destination
    # An attempt that nobody knows of may have left a part file.
    part = state is State.QUEUED
    # A newer upload to its path may have been delivered and forgotten: a person must want these bytes all the same.
    lost = (None, None, 0) if state in FINISHED | {State.QUEUED} else (
        "order_unknown", "The queue was rebuilt from the spool; what was known of the task is lost.", 1)
    if upload.idempotency_key is not None:
        connection.execute("INSERT OR IGNORE INTO keys VALUES (?, ?, ?, ?)", key_row(upload))
    return int(connection.execute(
        f"INSERT INTO {TABLE} (_id, data, timestamp, status, task_id, instance, target, size, updated_at, age_base,"
        " error_code, error_message, outrun, part, client, behind)"
        f" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ? - {OUTAGE}, ?, ?, ?, ?, ?,"
        f" ? AND EXISTS (SELECT 1 FROM {TABLE} WHERE target = ? AND open = 1)) RETURNING _id",
        (order, upload.to_json(), upload.created_at, state, upload.task_id, to.instance_key, to.digest, upload.size,
         now, upload.created_at, *to.clocks, *lost, part, upload.client, last, to.digest)).fetchone()[0])


def _put_behind(connection: sqlite3.Connection, orders: Sequence[int]) -> None:
    """Give rows new orders behind all others, keeping their order among themselves."""
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (TABLE,)).fetchone()
    if last is None:
        raise QueueFault("queue_damaged", "The table of orders is empty.")
    # The newest first: none of them is the oldest of its path for a moment.
    for number, order in reversed(list(enumerate(orders, last[0] + 1))):
        connection.execute(f"UPDATE {TABLE} SET _id = ? WHERE _id = ?", (number, order))
    connection.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = ?", (last[0] + len(orders), TABLE))
