"""Putting uploads into a shard's queue: each once, durably, many in one transaction."""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from daemon import seam
from daemon.task import FINISHED, State, Upload
from daemon.task_queue.base import QueueBase
from daemon.task_queue.schema import OUTAGE, TABLE


class Outcome(Enum):
    """What became of an upload that was put."""

    ACCEPTED = "accepted"
    #: Its idempotency key, or its id, is there already, for the same upload.
    DUPLICATE = "duplicate"
    #: Its idempotency key was used for a different upload.
    MISMATCH = "mismatch"


@dataclass(frozen=True)
class Put:
    """The answer to one upload that was put."""

    outcome: Outcome
    #: The id under which the upload stands: that of the first one for a duplicate.
    task_id: str
    #: Ids of the pending tasks that this one replaced.
    superseded: list[str] = field(default_factory=list)


class QueueAppend(QueueBase):
    """What the API may do: put uploads."""

    def put_many(self, uploads: Sequence[Upload], *, supersede: bool, state: State = State.QUEUED) -> list[Put]:
        """Put uploads in one durable transaction, and return what became of each, in their order.

        An upload whose id is there already is a duplicate of itself. Pending older uploads to the same path are
        superseded if `supersede`. Raises QueueFault.
        """
        now = time.time()

        def put_all(connection: sqlite3.Connection) -> list[Put]:
            return [self._put(connection, upload, supersede, state, now) for upload in uploads]

        if any(upload.idempotency_key is not None for upload in uploads):
            answers = self.with_keys("queue.commit", put_all)
        else:
            with self.write(self.durable, "queue.commit") as connection:
                answers = put_all(connection)
        seam.reach("queue.committed")
        return answers

    def _put(self, connection: sqlite3.Connection, upload: Upload, supersede: bool, state: State, now: float) -> Put:
        seam.reach("queue.insert")
        if upload.idempotency_key is not None:
            earlier = self._claim_key(connection, upload)
            if earlier is not None:
                return earlier
        to = upload.destination
        inserted = connection.execute(
            f"INSERT INTO {TABLE}"
            " (data, timestamp, status, task_id, instance, target, size, updated_at, age_base)"
            f" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ? - {OUTAGE})"
            " ON CONFLICT (task_id) DO NOTHING RETURNING _id",
            (upload.to_json(), upload.created_at, state, upload.task_id, to.instance_key, to.target, upload.size, now,
             upload.created_at, *to.clocks)).fetchone()
        if inserted is None:
            return Put(Outcome.DUPLICATE, upload.task_id)
        if not supersede or state is not State.QUEUED:
            return Put(Outcome.ACCEPTED, upload.task_id)
        replaced = connection.execute(
            f"UPDATE {TABLE} SET status = 6, open = 0, updated_at = ?, error_code = NULL,"
            " error_message = ?, due_at = NULL"
            " WHERE target = ? AND open = 1 AND _id < ? AND status <> 2 RETURNING task_id",
            (now, f"Replaced by {upload.task_id}.", to.target, inserted[0])).fetchall()
        return Put(Outcome.ACCEPTED, upload.task_id, [row[0] for row in replaced])

    def _claim_key(self, connection: sqlite3.Connection, upload: Upload) -> Put | None:
        """Bind the upload's key to it; return the answer instead when the key stands for an earlier upload."""
        known = connection.execute("SELECT task_id, fingerprint FROM keys.idempotency WHERE key = ?",
                                   (upload.idempotency_key,)).fetchone()
        if known is not None and known[0] != upload.task_id:
            if known[1] != upload.fingerprint:
                return Put(Outcome.MISMATCH, known[0])
            if self._still_stands(connection, known[0], upload):
                return Put(Outcome.DUPLICATE, known[0])
        connection.execute("INSERT OR REPLACE INTO keys.idempotency VALUES (?, ?, ?)",
                           (upload.idempotency_key, upload.task_id, upload.fingerprint))
        return None

    def _still_stands(self, connection: sqlite3.Connection, task_id: str, upload: Upload) -> bool:
        """True when the earlier upload is finished or its bytes are there. An equal fingerprint means this shard."""
        row = connection.execute(f"SELECT status FROM {TABLE} WHERE task_id = ?", (task_id,)).fetchone()
        if row is not None and row[0] in FINISHED:
            return True
        bucket = self.layout.bucket(upload.destination.bucket)
        return any((bucket / f"{task_id}{suffix}").exists() for suffix in ("", ".failed", ".held"))
