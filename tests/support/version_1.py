"""A state directory as the first version of the queue's schema left it, made without the code under test.

Both texts are what that version's own program wrote (`sqlite_master`). They never change.
"""

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.model.task import FINISHED, State
from daemon.model.upload import Destination, Upload
from daemon.spool import Mark, open_spool
from daemon.state import shard_count
from daemon.state.layout import Layout
from daemon.state.shard_count import ShardCount
from tests.support.depot import new_id

#: A shard's database.
SCHEMA = """
CREATE TABLE tasks_v1 (
  _id INTEGER PRIMARY KEY AUTOINCREMENT,
  data BLOB NOT NULL, timestamp FLOAT NOT NULL, status INTEGER NOT NULL,
  task_id TEXT NOT NULL UNIQUE, instance TEXT NOT NULL, target BLOB NOT NULL, size INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, due_at REAL, updated_at REAL NOT NULL,
  error_code TEXT, error_message TEXT,
  spooled INTEGER NOT NULL DEFAULT 1, recheck INTEGER NOT NULL DEFAULT 0, age_base REAL NOT NULL,
  wish INTEGER, outrun INTEGER NOT NULL DEFAULT 0, open INTEGER NOT NULL DEFAULT 1,
  behind INTEGER NOT NULL DEFAULT 0, part INTEGER NOT NULL DEFAULT 0);
CREATE INDEX tasks_lane ON tasks_v1 (instance, size >= 4194304, _id)
  WHERE status = 1 AND behind = 0;
CREATE INDEX tasks_behind ON tasks_v1 (_id) WHERE behind = 1;
CREATE INDEX tasks_parts ON tasks_v1 (instance, _id) WHERE part = 1 AND open = 0;
CREATE INDEX tasks_left ON tasks_v1 (target) WHERE part = 1 AND open = 0;
CREATE INDEX tasks_pushing ON tasks_v1 (_id) WHERE status = 2;
CREATE INDEX tasks_due ON tasks_v1 (due_at) WHERE status = 3;
CREATE INDEX tasks_deferred ON tasks_v1 (instance, _id) WHERE status = 3;
CREATE INDEX tasks_target ON tasks_v1 (target, open, _id);
CREATE INDEX tasks_by_state ON tasks_v1 (status, task_id);
CREATE INDEX tasks_by_instance ON tasks_v1 (instance, status, task_id);
CREATE INDEX tasks_wishes ON tasks_v1 (_id) WHERE wish IS NOT NULL;
CREATE INDEX tasks_unspool ON tasks_v1 (_id) WHERE spooled = 1 AND status IN (5, 6, 7);
CREATE INDEX tasks_clear ON tasks_v1 (updated_at) WHERE spooled = 0 AND status IN (5, 6, 7);
CREATE INDEX tasks_expire ON tasks_v1 (updated_at) WHERE status = 9;
CREATE TRIGGER open_insert AFTER INSERT ON tasks_v1 WHEN NEW.open <> (NEW.status IN (1, 2, 3)) BEGIN
  UPDATE tasks_v1 SET open = NOT NEW.open WHERE _id = NEW._id;
END;
CREATE TRIGGER open_update AFTER UPDATE OF status ON tasks_v1 WHEN NEW.open <> (NEW.status IN (1, 2, 3))
BEGIN
  UPDATE tasks_v1 SET open = NOT NEW.open WHERE _id = NEW._id;
END;
CREATE TRIGGER behind_update AFTER UPDATE OF _id, open ON tasks_v1
WHEN (OLD.open > NEW.open OR OLD._id <> NEW._id) AND EXISTS (SELECT 1 FROM tasks_v1 WHERE behind = 1) BEGIN
  UPDATE tasks_v1 SET behind = 0 WHERE behind = 1 AND _id IN (
    iif(NEW.open = 0, NEW._id, NULL), (SELECT min(_id) FROM tasks_v1 WHERE target = NEW.target AND open = 1));
END;
CREATE TRIGGER behind_delete AFTER DELETE ON tasks_v1 WHEN OLD.open = 1 BEGIN
  UPDATE tasks_v1 SET behind = 0 WHERE behind = 1 AND _id = (
    SELECT min(_id) FROM tasks_v1 WHERE target = OLD.target AND open = 1);
END;
CREATE TABLE tally (
  status INTEGER NOT NULL, instance TEXT NOT NULL, tasks INTEGER NOT NULL, bytes INTEGER NOT NULL,
  PRIMARY KEY (status, instance)) WITHOUT ROWID;
CREATE TRIGGER tally_insert AFTER INSERT ON tasks_v1 BEGIN
  INSERT INTO tally VALUES (NEW.status, NEW.instance, 1, NEW.size)
    ON CONFLICT DO UPDATE SET tasks = tasks + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER tally_update AFTER UPDATE OF status ON tasks_v1 WHEN OLD.status <> NEW.status BEGIN
  UPDATE tally SET tasks = tasks - 1, bytes = bytes - OLD.size WHERE status = OLD.status AND instance = OLD.instance;
  INSERT INTO tally VALUES (NEW.status, NEW.instance, 1, NEW.size)
    ON CONFLICT DO UPDATE SET tasks = tasks + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER tally_delete AFTER DELETE ON tasks_v1 BEGIN
  UPDATE tally SET tasks = tasks - 1, bytes = bytes - OLD.size WHERE status = OLD.status AND instance = OLD.instance;
END;
CREATE TABLE commands (
  id INTEGER PRIMARY KEY AUTOINCREMENT, verb TEXT NOT NULL, task_id TEXT, filter TEXT,
  force INTEGER NOT NULL DEFAULT 0, asked_at REAL NOT NULL, asked_by TEXT NOT NULL,
  changed INTEGER NOT NULL DEFAULT 0, refused INTEGER NOT NULL DEFAULT 0, reason TEXT, done_at REAL);
CREATE INDEX commands_open ON commands (id) WHERE done_at IS NULL;
CREATE INDEX commands_done ON commands (done_at) WHERE done_at IS NOT NULL;
CREATE TABLE outages (clock TEXT PRIMARY KEY, seconds REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;
"""
#: The database of the idempotency keys of all shards.
KEYS_SCHEMA = """
CREATE TABLE idempotency (key TEXT PRIMARY KEY, task_id TEXT NOT NULL UNIQUE, fingerprint TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE born (number TEXT NOT NULL);
INSERT INTO born VALUES ('B28EDC73260CD4B0');
"""

#: In different shards, as long as there are two or three.
INSTANCES = ("c1", "c4")
_MARKS = {State.FAILED: Mark.FAILED, State.HELD: Mark.HELD}
_OTHERS = ("tally", "outages", "facts", "sqlite_sequence")
_COMMAND = "id, verb, task_id, filter, force, asked_at, asked_by, changed, refused, reason, done_at"
_COLUMNS = ("_id, data, timestamp, status, task_id, instance, target, size, attempts, due_at, updated_at, error_code,"
            " error_message, spooled, recheck, age_base, wish, outrun, open, behind, part")
_INSERT = ("INSERT INTO tasks_v1 (data, timestamp, status, task_id, instance, target, size, attempts, due_at, updated_at,"
           " error_code, error_message, spooled, age_base, wish, outrun, part)"
           " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")


@dataclass(frozen=True)
class Old:
    """One task of the old state."""

    upload: Upload
    state: State
    #: What its worker made of its state when it starts again.
    becomes: State
    wish: State | None = None


def build(directory: Path, shards: int) -> list[Old]:
    """Make the state with tasks in every state, keys, commands, outages and facts; return the tasks."""
    layout = Layout(directory)
    layout.create()
    shard_count.record(layout, ShardCount(shards))
    layout.common_keys.mkdir()
    tasks = [task for instance in INSTANCES for task in _tasks(instance)]
    _spool(layout, tasks)
    for shard in range(shards):
        layout.shard(shard).mkdir()
        _fill(layout.database(shard), [task for task in tasks if task.upload.destination.shard(shards) == shard])
    with closing(_connect(layout.common_keys / "data.db", KEYS_SCHEMA)) as connection:
        connection.executemany("INSERT INTO idempotency VALUES (?, ?, ?)", [
            (task.upload.idempotency_key, task.upload.task_id, task.upload.fingerprint)
            for task in tasks if task.upload.idempotency_key])
    return tasks


def contents(database: Path) -> dict[str, list[Any]]:
    """Every row of every table that version 1 had, in its columns, but for what upgrades note or forget beside them."""
    with closing(sqlite3.connect(database)) as connection:
        tables = {table: connection.execute(f"SELECT {columns} FROM {table}").fetchall()
                  for table, columns in {"tasks_v1": _COLUMNS, "commands": _COMMAND, **dict.fromkeys(_OTHERS, "*")}.items()}
    return {**tables, "facts": [row for row in tables["facts"] if row[0] not in {"keys", "epoch", "numbers_boot"}]}


def schema(database: Path) -> list[str]:
    """What a database is made of, in a form that can be compared."""
    with closing(sqlite3.connect(database)) as connection:
        texts = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return sorted(" ".join(text.replace("`", "").split()) for (text,) in texts)


def _tasks(instance: str) -> Iterator[Old]:
    after = {State.QUEUED: State.DELIVERED, State.PUSHING: State.DELIVERED, State.DEFERRED: State.DELIVERED}
    for state in State:
        yield Old(_upload(instance, state.label, key=f"{instance}-{state.label}"), state, after.get(state, state))
        yield Old(_upload(instance, f"{state.label}-keyless"), state, after.get(state, state))
    yield Old(_upload(instance, "to-be-cancelled"), State.QUEUED, State.CANCELLED)
    yield Old(_upload(instance, "unwanted"), State.PUSHING, State.CANCELLED, wish=State.CANCELLED)


def _upload(instance: str, name: str, key: str | None = None) -> Upload:
    data = name.encode()
    return Upload(task_id=new_id(), destination=Destination("local", "default", instance, f"/{name}"), size=len(data),
                  sha256=hashlib.sha256(data).hexdigest(), created_at=time.time(), mkdirs=True, idempotency_key=key)


def _spool(layout: Layout, tasks: list[Old]) -> None:
    with closing(open_spool(layout)) as spool:
        for task in tasks:
            if task.state not in FINISHED:
                incoming = spool.begin()
                incoming.write(task.upload.destination.path[1:].encode())
                incoming.seal(task.upload).release()
                spool.mark(task.upload, _MARKS.get(task.state, Mark.PENDING))


def _fill(database: Path, tasks: list[Old]) -> None:
    with closing(_connect(database, SCHEMA)) as connection:
        connection.executemany(_INSERT, [_row(task) for task in tasks])
        # What a task asks for besides its state.
        connection.executemany("INSERT INTO commands (verb, task_id, asked_at, asked_by, done_at) VALUES (?, ?, ?, ?, ?)", [
            ("cancel", task.upload.task_id, 5.0, "me", None) for task in tasks if task.becomes is State.CANCELLED
            and task.state is State.QUEUED] + [("retry", new_id(), 4.0, "you", time.time())])
        connection.executemany("INSERT INTO outages VALUES (?, ?)", [("", 5.0), ("local", 7.0), ("local/default/c1", 11.0)])
        connection.executemany("INSERT INTO facts VALUES (?, ?)", [
            ("born", f"{time.time():.3f}"), ("keys", "B28EDC73260CD4B0"), ("other", json.dumps({"kept": True}))])


def _row(task: Old) -> tuple[object, ...]:
    to, failed = task.upload.destination, task.state is State.FAILED
    return (task.upload.to_json(), task.upload.created_at, task.state, task.upload.task_id, to.instance_key, to.digest,
            task.upload.size, int(task.state), 1.5e9 if task.state is State.DEFERRED else None, time.time(),
            "parent_not_found" if failed else None, "no such directory" if failed else None, task.state not in FINISHED,
            task.upload.created_at - 5, task.wish, failed, failed)


def _connect(database: Path, script: str) -> sqlite3.Connection:
    database.touch(0o600)
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(script)
    return connection
