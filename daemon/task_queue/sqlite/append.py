"""Putting uploads into a shard's queue: each once, durably, many in one transaction."""

import json
import sqlite3
import time
from collections.abc import Collection, Container, Sequence
from typing import Final

from daemon import failpoints
from daemon.model.counters import UPLOAD_BYTES, UPLOADS, Key, finished
from daemon.model.task import FINISHED, State
from daemon.model.upload import Upload
from daemon.task_queue.capabilities import SealedUpload
from daemon.task_queue.sqlite import numbers
from daemon.task_queue.sqlite.base import QueueBase
from daemon.task_queue.sqlite.batches import chunks
from daemon.task_queue.sqlite.counters import count
from daemon.task_queue.sqlite.schema import OUTAGE, TABLE, key_row
from daemon.task_queue.values import Put, PutOutcome

_SUPERSEDED: Final = finished(State.SUPERSEDED)
_ROW: Final = f"(?, ?, ?, ?, ?, ?, ?, ?, ? - {OUTAGE}, ?, ?)"


class QueueAppend(QueueBase):
    """What the API may do: put uploads."""

    #: True once it is known that no event gets a number from before a restart of the machine.
    _numbers_are_new = False

    def put_many(self, sealed: Sequence[SealedUpload], *, supersede: bool) -> list[Put]:
        """Put uploads in one durable transaction, and return what became of each, in their order.

        An upload whose id is there already is a duplicate of itself. Pending older uploads to the same path are
        superseded if `supersede`. Raises QueueFault.
        """
        with self.write(self.durable, "queue.commit") as connection:
            if not self._numbers_are_new:
                numbers.leave_out(connection)
            answers = self._put_all(connection, [each.upload for each in sealed], supersede, time.time())
        self._numbers_are_new = True
        failpoints.reach("queue.committed")
        return answers

    def _put_all(
        self, connection: sqlite3.Connection, uploads: Sequence[Upload], supersede: bool, now: float,
    ) -> list[Put]:
        there = _already_there(connection, uploads)
        fresh: dict[str, Upload] = {}
        found = []
        for upload in uploads:
            failpoints.reach("queue.insert")
            earlier = None if upload.idempotency_key is None else self._claim_key(connection, upload, fresh)
            if earlier is None and (upload.task_id in there or upload.task_id in fresh):
                earlier = Put(PutOutcome.DUPLICATE, upload.task_id)
            if earlier is None:
                fresh[upload.task_id] = upload
            found.append(earlier)
        for some in chunks(list(fresh.values())):
            _insert(connection, some, set() if supersede else _behind(connection, some), now)
        replaced = _supersede(connection, fresh.values(), now) if supersede else {}
        if fresh:
            count(connection, _counted(fresh.values(), sum(map(len, replaced.values()))))
        return [earlier or Put(PutOutcome.ACCEPTED, upload.task_id, replaced.get(upload.task_id, {}))
                for upload, earlier in zip(uploads, found, strict=True)]

    def _claim_key(self, connection: sqlite3.Connection, upload: Upload, fresh: Container[str]) -> Put | None:
        """Bind the upload's key to it; return the answer instead when the key stands for an earlier upload.

        `fresh` has the ids that get their rows in this transaction.
        """
        known = connection.execute("SELECT task_id, fingerprint FROM keys WHERE instance = ? AND key = ?",
                                   (upload.destination.instance_key, upload.scoped_key)).fetchone()
        if known is not None and known[0] != upload.task_id:
            if known[1] != upload.fingerprint:
                return Put(PutOutcome.MISMATCH, known[0])
            if known[0] in fresh or self._still_stands(connection, known[0], upload):
                return Put(PutOutcome.DUPLICATE, known[0])
        connection.execute("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?)", key_row(upload))
        return None

    def _still_stands(self, connection: sqlite3.Connection, task_id: str, upload: Upload) -> bool:
        """True when the earlier upload is finished or its bytes are there. An equal fingerprint means this shard."""
        row = connection.execute(f"SELECT status FROM {TABLE} WHERE task_id = ?", (task_id,)).fetchone()
        if row is not None and row[0] in FINISHED:
            return True
        return row is not None if self._spool is None else self._spool.holds(upload.destination.bucket, task_id)


def _counted(uploads: Collection[Upload], superseded: int) -> dict[Key, float]:
    grown: dict[Key, float] = {UPLOADS: len(uploads), UPLOAD_BYTES: sum(upload.size for upload in uploads)}
    return grown | {_SUPERSEDED: superseded} if superseded else grown


def _already_there(connection: sqlite3.Connection, uploads: Collection[Upload]) -> set[str]:
    """The ids among those of `uploads` that have a row."""
    ids = json.dumps([upload.task_id for upload in uploads])
    rows = connection.execute(
        f"SELECT task_id FROM {TABLE} WHERE task_id IN (SELECT value FROM json_each(?))", (ids,)).fetchall()
    return {row[0] for row in rows}


def _behind(connection: sqlite3.Connection, uploads: Collection[Upload]) -> set[str]:
    """The ids of those of `uploads` that wait for an older one of their path."""
    targets = {upload.destination.digest for upload in uploads}
    waited_for = {row[0] for row in connection.execute(
        f"WITH asked (target) AS (VALUES {', '.join(['(?)'] * len(targets))}) SELECT target FROM asked"
        f" WHERE EXISTS (SELECT 1 FROM {TABLE} AS older WHERE older.target = asked.target AND older.open = 1)",
        tuple(targets))}
    behind = set()
    for upload in uploads:
        if upload.destination.digest in waited_for:
            behind.add(upload.task_id)
        waited_for.add(upload.destination.digest)
    return behind


def _insert(connection: sqlite3.Connection, uploads: Collection[Upload], behind: Container[str], now: float) -> None:
    values: list[object] = []
    for upload in uploads:
        to = upload.destination
        values += (upload.to_json(), upload.created_at, State.QUEUED, upload.task_id, to.instance_key, to.digest,
                   upload.size, now, upload.created_at, *to.clocks, upload.task_id in behind,
                   upload.client)
    connection.execute(
        f"INSERT INTO {TABLE} (data, timestamp, status, task_id, instance, target, size, updated_at, age_base, behind,"
        f" client) VALUES {', '.join([_ROW] * len(uploads))}", values)


def _supersede(
    connection: sqlite3.Connection, uploads: Collection[Upload], now: float,
) -> dict[str, dict[str, str | None]]:
    """Replace what waits for the destinations of `uploads` by the newest; return the tasks replaced by each upload."""
    newest = {upload.destination.digest: upload for upload in uploads}
    replaced: dict[str, dict[str, str | None]] = {}
    for some in chunks(list(newest.values())):
        rows = connection.execute(
            f"UPDATE {TABLE} AS old SET status = 6, open = 0, updated_at = ?, error_code = NULL, due_at = NULL,"
            f" error_message = 'Replaced by ' || (SELECT newer.task_id FROM {TABLE} AS newer"
            " WHERE newer.target = old.target AND newer.open = 1 ORDER BY newer._id DESC LIMIT 1) || '.'"
            f" WHERE target IN ({', '.join('?' * len(some))}) AND open = 1 AND status <> 2 AND _id < ("
            f" SELECT max(newer._id) FROM {TABLE} AS newer WHERE newer.target = old.target AND newer.open = 1)"
            " RETURNING target, task_id, client", (now, *(upload.destination.digest for upload in some))).fetchall()
        for target, task_id, client in rows:
            replaced.setdefault(newest[target].task_id, {})[task_id] = client
    return replaced
