"""A shard's database: its connections, its transactions, and the rows as tasks.

Built on persist-queue's acknowledged SQLite queue, which is safe for threads but not for processes: its own
`get`, `size` and `auto_resume` are not used (they hand one row to two processes, count per process, and take
over what another process is pushing).
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import persistqueue
from persistqueue.serializers import json as json_serializer

from daemon import failpoints
from daemon.errors import QueueFault
from daemon.log import log
from daemon.model.task import State, Task
from daemon.model.upload import END_OF_TIME_S, Upload
from daemon.state.layout import Layout, inode
from daemon.state.pulse import Pulse
from daemon.task_queue.capabilities import Bytes
from daemon.task_queue.sqlite.alone import alone
from daemon.task_queue.sqlite.connect import SET_CACHE, begin, connect
from daemon.task_queue.sqlite.faults import commit, faults
from daemon.task_queue.sqlite.form import require_form, schema_number, version_of
from daemon.task_queue.sqlite.history import from_json
from daemon.task_queue.sqlite.inspection import what_is_foreign
from daemon.task_queue.sqlite.schema import SCHEMAS, TABLE
from daemon.task_queue.sqlite.versions import SCHEMA_VERSION, STEPS, admit, version_on_disk

#: Steps of SQLite's machine between two notes that an upgrade goes on: some ten milliseconds.
_TELL_EVERY_STEPS: Final = 1_000_000
#: Steps between two looks at the clock.
_LOOK_EVERY_STEPS: Final = 1_000_000
#: More rows than there are names and states, as `limits` has them.
_MOST_ROWS: Final = 5_000_000
#: More characters than any message about a task has; its path may be in it.
_MOST_TOLD: Final = 16_384
#: Uploads that were read last are kept, unless they are long: a row is read again when its bytes go. So many take some
#: ten megabytes.
_UPLOADS_KEPT: Final = 4096
#: Characters of JSON.
_LONGEST_KEPT: Final = 1024
#: What `decode` needs of a row, in its order.
COLUMNS: Final = ("_id, data, status, attempts, due_at, updated_at, error_code, error_message, "
                  "spooled, recheck, part, age_base, history, task_id, instance, target, size, client")
#: Where the task's id is in such a row.
TASK_ID: Final = COLUMNS.split(", ").index("task_id")
#: The fact that says since when the database has known of every upload of its shard. A database without it was
#: made where uploads were already, so another one was lost. Databases have it under this name.
COMPLETE_FACT: Final = "born"
#: Uploads to a path with later ids, as a condition in SQL. A damaged row's id may be anything.
NEWER: Final = "target = ? AND task_id > ? AND length(task_id) = 36"


class Deadline:
    """When a question has to be answered, in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self.at = inf

    def is_over(self) -> bool:
        """True when it is too late."""
        return time.monotonic() > self.at


class QueueBase(persistqueue.SQLiteAckQueue):
    """The connections and transactions of one shard's database."""

    _TABLE_NAME = TABLE.rpartition("_")[0]
    # `_init` makes all of the schema in one transaction.
    _SQL_CREATE = "SELECT 1"
    #: No question takes so long, unless somebody who may write the file sees to it.
    MOST_S: ClassVar = 30.0

    def __init__(
        self, layout: Layout, shard: int, spool: Bytes | None = None, *, upgrade: Callable[[], None] | None = None,
    ) -> None:
        """Open the shard's database; make it where there is none.

        `spool` is asked what it holds; without it rows are believed, and a new database may have lost some.
        With `upgrade` one of an older version is brought up to date; it is called again and again while that goes on.
        Only for the holder of the shard's lock, and while nobody appends. Without it such a one is refused, as a newer
        one always is; neither is touched then. Raises QueueFault.
        """
        self.layout = layout
        self.shard = shard
        self._directory = layout.shard(shard)
        self._lock = threading.RLock()
        # The base class fills the first two in, and closes them when it is deleted, however far it came.
        self._getter: sqlite3.Connection | None = None
        self._putter: sqlite3.Connection | None = None
        self._upgrade = upgrade
        self._spool = spool
        #: True when a damaged row was met that the comparison with the spool may mend.
        self.met_damaged_row = False
        #: Tasks of claims that failed: whether they are claimed is not known.
        self._doubtful: list[Task] = []
        self._deadline = Deadline()
        self._pulse = Pulse(layout, shard)
        with self.faults():
            layout.make_shard(shard)
            foreign = what_is_foreign(layout, shard)
            if foreign is not None:
                raise QueueFault("queue_damaged", foreign)
            try:
                self._open_database()
            except BaseException:
                self.close()
                raise
            # SQLite removes the log only when nobody has the database open.
            self._files = (os.fspath(layout.database(shard)), os.fspath(layout.log(shard)))
            self._inodes = self._inodes_now()

    def _open_database(self) -> None:
        with alone(self.layout):
            admit(version_on_disk(self.layout, self.shard), self.shard, upgrade=self._upgrade is not None)
            super().__init__(
                str(self.layout.shard(self.shard)), auto_resume=False, name=TABLE.rpartition("_")[2],
                multithreading=True, serializer=json_serializer, db_file_name=self.layout.database(self.shard).name,
            )
        # Others may open theirs meanwhile: this can take long.
        self._bring_up_to_date()
        self._schema = self._look_at_form()
        self.quick.set_progress_handler(self._deadline.is_over, _LOOK_EVERY_STEPS)

    def _new_db_connection(self, path: str, multithreading: bool, timeout: float) -> sqlite3.Connection:
        connection = connect(Path(path) / self.db_file_name)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(SET_CACHE)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _init(self) -> None:
        super()._init()
        if version_of(self.durable) == 0:
            require_form(self.durable, 0)
            self._create()
        self.quick.execute("PRAGMA synchronous = NORMAL")

    def _create(self) -> None:
        """Make a database in one transaction, as all that are older came about: by the steps from version 1."""
        is_complete = self._spool is not None and self._spool.is_empty()
        self.durable.executescript(f"BEGIN IMMEDIATE; {SCHEMAS[1]}")
        for older in range(1, SCHEMA_VERSION):
            STEPS[older](self.durable)
        if is_complete:
            self.durable.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (COMPLETE_FACT, f"{time.time():.3f}"))
        self.durable.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self.durable.execute("COMMIT")

    def _bring_up_to_date(self) -> None:
        version = version_of(self.durable)
        admit(version, self.shard, upgrade=self._upgrade is not None)
        self.durable.set_progress_handler(self._upgrade, _TELL_EVERY_STEPS)
        for older in range(version, SCHEMA_VERSION):
            self._schema = require_form(self.durable, older)
            with self.write(self.durable, "queue.upgrade") as connection:
                STEPS[older](connection)
                connection.execute(f"PRAGMA user_version = {older + 1}")
            failpoints.reach("queue.upgraded")
            log("queue.upgraded", shard=self.shard, version=older + 1)
        self.durable.set_progress_handler(None, 0)

    def _look_at_form(self) -> int:
        """Look at all of the schema; return SQLite's number for it. Raises QueueFault('queue_damaged')."""
        with self._lock, self.faults():
            return require_form(self.durable, SCHEMA_VERSION)

    def faults(self) -> AbstractContextManager[None]:
        """Turn what SQLite and the disk raise into QueueFault."""
        return faults(self._directory)

    @property
    def durable(self) -> sqlite3.Connection:
        """The connection whose transactions are on the disk when they return."""
        return _open(self._putter)

    @property
    def quick(self) -> sqlite3.Connection:
        """The connection for reads, and for transactions that a crash of the machine may undo."""
        return _open(self._getter)

    def _count(self) -> int:
        # The base class counts the rows at its start; the tally is made after that.
        return 0

    def replaced(self) -> bool:
        """True when the names of the database and its log do not lead to the files that are open. Raises QueueFault."""
        with self.faults():
            return self._inodes_now() != self._inodes

    def _inodes_now(self) -> list[int]:
        return [inode(file) for file in self._files]

    @contextmanager
    def write(self, connection: sqlite3.Connection, step: str) -> Iterator[sqlite3.Connection]:
        """One transaction. Raises QueueFault; its `certainly_failed` says that nothing was committed."""
        with self._lock, self.faults():
            self._deadline.at = inf
            begin(connection)
            try:
                self.require_same_schema(connection)
                yield connection
                failpoints.reach(step)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            commit(connection, self._directory)
            self._pulse.beat()

    def require_same_schema(self, connection: sqlite3.Connection, name: str = "main") -> None:
        """Raise QueueFault('queue_damaged') unless the schema is the one that was looked at: it may have triggers.

        The database has that name in the connection.
        """
        if schema_number(connection, name) != self._schema:
            raise QueueFault("queue_damaged", "The queue's database: its schema was changed.")

    def read(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        """All rows of a question. Raises QueueFault, also when it takes longer than MOST_S or has too many rows."""
        with self._lock, self.faults():
            self._deadline.at = time.monotonic() + self.MOST_S
            rows = self.quick.execute(sql, values).fetchmany(_MOST_ROWS + 1)
        if len(rows) > _MOST_ROWS:
            raise QueueFault("queue_damaged", f"The queue's database: more than {_MOST_ROWS} rows answer a question.")
        return rows

    def step_through(self, rows: str, after: str, limit: int) -> list[str]:
        """Up to `limit` instances that some rows (FROM and WHERE, in SQL) are of, in order from `after` on.

        Read one by one, each by a step down the index of these rows, they cost nothing for others.
        """
        found = self.read(
            f"WITH RECURSIVE found (instance) AS (SELECT (SELECT min(instance) {rows} AND instance > ?) UNION ALL"
            f" SELECT (SELECT min(instance) {rows} AND instance > found.instance) FROM found"
            " WHERE instance IS NOT NULL LIMIT ?) SELECT instance FROM found WHERE instance IS NOT NULL",
            (after, limit))
        return [row[0] for row in found]

    def close(self) -> None:
        """Close the connections. May be called again."""
        with self._lock:
            for connection in (self._getter, self._putter):
                if connection is not None:
                    connection.close()
            self._getter = self._putter = None
            self._pulse.close()

    def beat(self) -> int:
        """A number that is another one whenever something has happened. Never blocks, never raises."""
        return self._pulse.last()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(connection: sqlite3.Connection | None) -> sqlite3.Connection:
    if connection is None:
        raise QueueFault("queue_failed", "The queue is closed.")
    return connection


def decode(row: Sequence[Any]) -> Task:
    """The task of a row of COLUMNS. Raises ValueError when the row is damaged, or its columns belie its upload."""
    order, data, status, attempts, due_at, updated_at, code, message, spooled, recheck, part, age_base, *others = row
    history, *copies = others
    upload = _upload(data)
    to = upload.destination
    if copies != [upload.task_id, to.instance_key, to.digest, upload.size, upload.client]:
        raise ValueError("the row's columns and its upload differ")
    if not (is_told(code) and is_told(message)):
        raise ValueError("the row's error is not what it should be")
    if not (isinstance(attempts, int) and _is_time(due_at or 0.0) and _is_time(updated_at) and _is_time(age_base)):
        raise ValueError("the row's attempts or times are not what they should be")
    return Task(
        order=order, upload=upload, state=State(status), attempts=attempts, due_at=due_at,
        updated_at=updated_at, error_code=code, error_message=message, spooled=bool(spooled),
        recheck=bool(recheck), left_part=bool(part), age_base=age_base, history=from_json(history),
    )


def _upload(data: str) -> Upload:
    return _upload_kept(data) if isinstance(data, str) and len(data) <= _LONGEST_KEPT else Upload.from_json(data)


_upload_kept: Final = lru_cache(_UPLOADS_KEPT)(Upload.from_json)


def is_told(value: object) -> bool:
    """True for what a row may say of an error."""
    return value is None or (isinstance(value, str) and len(value) <= _MOST_TOLD)


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < END_OF_TIME_S


def decode_all(rows: Iterable[Sequence[Any]]) -> list[Task]:
    """The tasks of rows of COLUMNS. Damaged rows are left out: fsck has them."""
    return [task for row in rows if (task := decode_or_none(row))]


def decode_or_none(row: Sequence[Any]) -> Task | None:
    """The task of a row of COLUMNS, or None when the row is damaged."""
    try:
        return decode(row)
    except (ValueError, TypeError):
        return None
