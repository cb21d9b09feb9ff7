"""The tables, indexes and triggers of a shard's database.

The table of tasks is persist-queue's, with columns for what is looked up. Every question that is asked while
uploads wait is answered by an index whose size does not depend on what is finished:

    tasks_lane      which small (or bulky) tasks of this instance are ready, in order
    tasks_behind    which tasks wait for older ones of their path
    tasks_parts     which tasks that are not to be pushed may have left a part file
    tasks_left      is there such a task for this path
    tasks_due       which deferred task is due next
    tasks_target    is an older task for this path still to be pushed; is there a newer one
    tasks_by_state, tasks_by_instance    pages for people, in the order of their ids
    tasks_by_client, tasks_by_both       pages of what one client sent, and of that to one instance; anonymous tasks are
                    in neither
    tasks_wishes    which tasks are to be cancelled or held as soon as their push has ended
    tasks_unspool, tasks_clear, tasks_expire    what the worker tidies up next

The partial ones must be named (INDEXED BY) where only a state stands beside their own columns: left to itself SQLite
takes `tasks_by_state`, reads every task of the state and sorts them.

Counts are kept by triggers in `tally`, so that nobody ever counts rows; in `clients` those of each client's pending
tasks. `client` is who sent a task, NULL for an anonymous one: that is counted in `tally` alone.

`open` says that a task is still to be pushed (queued, pushing or deferred). It is a column of its own, kept by
triggers, because an index on what `status` says would be written anew, at a random place, whenever a task is claimed.
`wish` is the state that a person wants for a task that is being pushed; `outrun` says that a newer task for its path
was there, and is cleared. `behind` says that an older task for its path is open, so that a claim need not look at it;
triggers take it back from the oldest that is open. A claim does not rely on it: it may be missing, only the oldest
never has it. `part` says that an attempt may have left its part file in the instance.

A key in `keys` is bound to its instance and its client (`Upload.scoped_key`), and goes with its task.

`outbox` has the messages to webhooks: those that are to be sent, those that were, and those that were given up.
`webhooks` counts them, by triggers, and says which webhook is disabled. Its questions have indexes, too:

    outbox_due      which message to this webhook is to be sent next
    outbox_by_state pages for people, and the oldest of a state

`counters` has what is counted for good (`daemon.model.counters`), written once for each transaction. Changes of states
are not counted there: their number is that of the last event, with what `counters` has under that name, which makes up
for numbers that were left out. `actions` has what people did, `action` of a command says which of these it is a part
of; `commands_of_action` is asked whether there is more of one to do.

`history` has the last attempts of a task, as JSON. `events` says when which task came into which state: each change is
written by triggers, in the transaction that makes it. A number there is never given twice.
"""

from collections.abc import Mapping
from typing import Final

from daemon.model.upload import Upload
from daemon.task_queue.values import BULK_BYTES

#: The queue's table: persist-queue joins its class's prefix and the queue's name.
TABLE: Final = "tasks_v1"

#: The sum of some outages, in SQL. None is longer than thirty years, whatever its row may say.
OUTAGES: Final = "coalesce(sum(min(max(seconds, 0), 1e9)), 0)"
#: For how many seconds a destination (its `clocks` are the parameters) had to be waited for, in SQL.
OUTAGE: Final = f"(SELECT {OUTAGES} FROM outages WHERE clock IN ('', ?, ?))"

#: The idempotency keys of the shard's tasks.
CREATE_KEYS: Final = (
    "CREATE TABLE IF NOT EXISTS keys (instance TEXT NOT NULL, key TEXT NOT NULL, task_id TEXT NOT NULL UNIQUE,"
    " fingerprint TEXT NOT NULL, PRIMARY KEY (instance, key)) WITHOUT ROWID",
    f"CREATE TRIGGER IF NOT EXISTS keys_delete AFTER DELETE ON {TABLE} BEGIN"
    " DELETE FROM keys WHERE task_id = OLD.task_id; END",
)

#: What a database of version 1 had.
_CREATE_TASKS: Final = f"""
CREATE TABLE IF NOT EXISTS {TABLE} (
  _id INTEGER PRIMARY KEY AUTOINCREMENT,
  data BLOB NOT NULL, timestamp FLOAT NOT NULL, status INTEGER NOT NULL,
  task_id TEXT NOT NULL UNIQUE, instance TEXT NOT NULL, target BLOB NOT NULL, size INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, due_at REAL, updated_at REAL NOT NULL,
  error_code TEXT, error_message TEXT,
  spooled INTEGER NOT NULL DEFAULT 1, recheck INTEGER NOT NULL DEFAULT 0, age_base REAL NOT NULL,
  wish INTEGER, outrun INTEGER NOT NULL DEFAULT 0, open INTEGER NOT NULL DEFAULT 1,
  behind INTEGER NOT NULL DEFAULT 0, part INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS tasks_lane ON {TABLE} (instance, size >= {BULK_BYTES}, _id)
  WHERE status = 1 AND behind = 0;
CREATE INDEX IF NOT EXISTS tasks_behind ON {TABLE} (_id) WHERE behind = 1;
CREATE INDEX IF NOT EXISTS tasks_parts ON {TABLE} (instance, _id) WHERE part = 1 AND open = 0;
CREATE INDEX IF NOT EXISTS tasks_left ON {TABLE} (target) WHERE part = 1 AND open = 0;
CREATE INDEX IF NOT EXISTS tasks_pushing ON {TABLE} (_id) WHERE status = 2;
CREATE INDEX IF NOT EXISTS tasks_due ON {TABLE} (due_at) WHERE status = 3;
CREATE INDEX IF NOT EXISTS tasks_deferred ON {TABLE} (instance, _id) WHERE status = 3;
CREATE INDEX IF NOT EXISTS tasks_target ON {TABLE} (target, open, _id);
CREATE INDEX IF NOT EXISTS tasks_by_state ON {TABLE} (status, task_id);
CREATE INDEX IF NOT EXISTS tasks_by_instance ON {TABLE} (instance, status, task_id);
CREATE INDEX IF NOT EXISTS tasks_wishes ON {TABLE} (_id) WHERE wish IS NOT NULL;
CREATE INDEX IF NOT EXISTS tasks_unspool ON {TABLE} (_id) WHERE spooled = 1 AND status IN (5, 6, 7);
CREATE INDEX IF NOT EXISTS tasks_clear ON {TABLE} (updated_at) WHERE spooled = 0 AND status IN (5, 6, 7);
CREATE INDEX IF NOT EXISTS tasks_expire ON {TABLE} (updated_at) WHERE status = 9;

CREATE TRIGGER IF NOT EXISTS open_insert AFTER INSERT ON {TABLE} WHEN NEW.open <> (NEW.status IN (1, 2, 3)) BEGIN
  UPDATE {TABLE} SET open = NOT NEW.open WHERE _id = NEW._id;
END;
CREATE TRIGGER IF NOT EXISTS open_update AFTER UPDATE OF status ON {TABLE} WHEN NEW.open <> (NEW.status IN (1, 2, 3))
BEGIN
  UPDATE {TABLE} SET open = NOT NEW.open WHERE _id = NEW._id;
END;

CREATE TRIGGER IF NOT EXISTS behind_update AFTER UPDATE OF _id, open ON {TABLE}
WHEN (OLD.open > NEW.open OR OLD._id <> NEW._id) AND EXISTS (SELECT 1 FROM {TABLE} WHERE behind = 1) BEGIN
  UPDATE {TABLE} SET behind = 0 WHERE behind = 1 AND _id IN (
    iif(NEW.open = 0, NEW._id, NULL), (SELECT min(_id) FROM {TABLE} WHERE target = NEW.target AND open = 1));
END;
CREATE TRIGGER IF NOT EXISTS behind_delete AFTER DELETE ON {TABLE} WHEN OLD.open = 1 BEGIN
  UPDATE {TABLE} SET behind = 0 WHERE behind = 1 AND _id = (
    SELECT min(_id) FROM {TABLE} WHERE target = OLD.target AND open = 1);
END;

CREATE TABLE IF NOT EXISTS tally (
  status INTEGER NOT NULL, instance TEXT NOT NULL, tasks INTEGER NOT NULL, bytes INTEGER NOT NULL,
  PRIMARY KEY (status, instance)) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS tally_insert AFTER INSERT ON {TABLE} BEGIN
  INSERT INTO tally VALUES (NEW.status, NEW.instance, 1, NEW.size)
    ON CONFLICT DO UPDATE SET tasks = tasks + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER IF NOT EXISTS tally_update AFTER UPDATE OF status ON {TABLE} WHEN OLD.status <> NEW.status BEGIN
  UPDATE tally SET tasks = tasks - 1, bytes = bytes - OLD.size WHERE status = OLD.status AND instance = OLD.instance;
  INSERT INTO tally VALUES (NEW.status, NEW.instance, 1, NEW.size)
    ON CONFLICT DO UPDATE SET tasks = tasks + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER IF NOT EXISTS tally_delete AFTER DELETE ON {TABLE} BEGIN
  UPDATE tally SET tasks = tasks - 1, bytes = bytes - OLD.size WHERE status = OLD.status AND instance = OLD.instance;
END;

CREATE TABLE IF NOT EXISTS commands (
  id INTEGER PRIMARY KEY AUTOINCREMENT, verb TEXT NOT NULL, task_id TEXT, filter TEXT,
  force INTEGER NOT NULL DEFAULT 0, asked_at REAL NOT NULL, asked_by TEXT NOT NULL,
  changed INTEGER NOT NULL DEFAULT 0, refused INTEGER NOT NULL DEFAULT 0, reason TEXT, done_at REAL);
CREATE INDEX IF NOT EXISTS commands_open ON commands (id) WHERE done_at IS NULL;
CREATE INDEX IF NOT EXISTS commands_done ON commands (done_at) WHERE done_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS outages (clock TEXT PRIMARY KEY, seconds REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

CLIENT: Final = "client TEXT"
_IS_PENDING: Final = "{}.status IN (1, 2, 3, 4)"
_WAS, _IS = _IS_PENDING.format("OLD"), _IS_PENDING.format("NEW")
_COUNT: Final = "ON CONFLICT DO UPDATE SET tasks = tasks + excluded.tasks, bytes = bytes + excluded.bytes"
#: What stands on the column of clients.
CREATE_CLIENTS: Final = (
    f"CREATE INDEX IF NOT EXISTS tasks_by_client ON {TABLE} (client, status, task_id) WHERE client IS NOT NULL",
    f"CREATE INDEX IF NOT EXISTS tasks_by_both ON {TABLE} (client, instance, status, task_id) WHERE client IS NOT NULL",
    "CREATE TABLE IF NOT EXISTS clients (client TEXT PRIMARY KEY, tasks INTEGER NOT NULL, bytes INTEGER NOT NULL)"
    " WITHOUT ROWID",
    f"CREATE TRIGGER IF NOT EXISTS clients_insert AFTER INSERT ON {TABLE} WHEN NEW.client IS NOT NULL AND {_IS} BEGIN"
    f" INSERT INTO clients VALUES (NEW.client, 1, NEW.size) {_COUNT}; END",
    f"CREATE TRIGGER IF NOT EXISTS clients_update AFTER UPDATE OF status ON {TABLE}"
    f" WHEN NEW.client IS NOT NULL AND ({_WAS}) <> ({_IS}) BEGIN"
    f" INSERT INTO clients VALUES (NEW.client, iif({_IS}, 1, -1), iif({_IS}, NEW.size, -NEW.size)) {_COUNT}; END",
    f"CREATE TRIGGER IF NOT EXISTS clients_delete AFTER DELETE ON {TABLE} WHEN OLD.client IS NOT NULL AND {_WAS} BEGIN"
    f" INSERT INTO clients VALUES (OLD.client, -1, -OLD.size) {_COUNT}; END",
)

HISTORY: Final = "history TEXT"
#: The fact that tells one database of a shard from the next: numbers of events begin anew in each.
EPOCH_FACT: Final = "epoch"
#: The time now, in seconds since the epoch.
_NOW: Final = "(julianday('now') - 2440587.5) * 86400.0"
_TELL: Final = ("INSERT INTO events (task_id, status, at, code)"
                f" VALUES (NEW.task_id, NEW.status, {_NOW}, NEW.error_code)")
#: What is kept of what happened to tasks.
CREATE_EVENTS: Final = (
    "CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL,"
    " status INTEGER NOT NULL, at REAL NOT NULL, code TEXT)",
    f"CREATE TRIGGER IF NOT EXISTS events_insert AFTER INSERT ON {TABLE} BEGIN {_TELL}; END",
    f"CREATE TRIGGER IF NOT EXISTS events_update AFTER UPDATE OF status ON {TABLE} WHEN OLD.status <> NEW.status BEGIN"
    f" {_TELL}; END",
)

#: The fact that says up to which event webhooks have been told: an epoch and a number. Without it nothing is told.
CURSOR_FACT: Final = "webhook_cursor"
_COUNTED: Final = ("ON CONFLICT DO UPDATE SET pending = pending + excluded.pending,"
                   " delivered = delivered + excluded.delivered, failed = failed + excluded.failed")
_COUNT_NOTICE: Final = ("INSERT INTO webhooks (name, pending, delivered, failed) VALUES ({0}.webhook,"
                        f" {{1}}({{0}}.state = 1), {{1}}({{0}}.state = 2), {{1}}({{0}}.state = 3)) {_COUNTED}")
#: What webhooks are to be told.
CREATE_OUTBOX: Final = (
    "CREATE TABLE IF NOT EXISTS outbox (message_id TEXT PRIMARY KEY, webhook TEXT NOT NULL, type TEXT NOT NULL,"
    " task_id TEXT, body TEXT NOT NULL, created_at REAL NOT NULL, state INTEGER NOT NULL,"
    " attempts INTEGER NOT NULL, due_at REAL NOT NULL, updated_at REAL NOT NULL, status INTEGER, detail TEXT)",
    "CREATE INDEX IF NOT EXISTS outbox_due ON outbox (webhook, due_at) WHERE state = 1",
    "CREATE INDEX IF NOT EXISTS outbox_by_state ON outbox (webhook, state, message_id)",
    "CREATE TABLE IF NOT EXISTS webhooks (name TEXT PRIMARY KEY, pending INTEGER NOT NULL DEFAULT 0,"
    " delivered INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0, disabled_at REAL, disabled_why TEXT,"
    " last_at REAL, last_status INTEGER, last_detail TEXT) WITHOUT ROWID",
    "CREATE TRIGGER IF NOT EXISTS outbox_insert AFTER INSERT ON outbox BEGIN"
    f" {_COUNT_NOTICE.format('NEW', '+')}; END",
    "CREATE TRIGGER IF NOT EXISTS outbox_update AFTER UPDATE OF state ON outbox WHEN OLD.state <> NEW.state BEGIN"
    f" {_COUNT_NOTICE.format('OLD', '-')}; {_COUNT_NOTICE.format('NEW', '+')}; END",
    "CREATE TRIGGER IF NOT EXISTS outbox_delete AFTER DELETE ON outbox BEGIN"
    f" {_COUNT_NOTICE.format('OLD', '-')}; END",
)

ACTION: Final = "action TEXT"
#: What makes events count from now on, as rows of `counters`; the parameters are their name and labels.
EVENTS_BEFORE: Final = "SELECT ?, ?, -seq FROM main.sqlite_sequence WHERE name = 'events'"
#: Sums that only grow, and what people did.
CREATE_COUNTERS: Final = (
    "CREATE TABLE IF NOT EXISTS counters (name TEXT, labels TEXT, value REAL NOT NULL, PRIMARY KEY (name, labels))"
    " WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS actions (number INTEGER PRIMARY KEY, action_id TEXT NOT NULL UNIQUE,"
    " asked_at REAL NOT NULL, asked_by TEXT NOT NULL, verb TEXT NOT NULL, what TEXT NOT NULL, tasks INTEGER NOT NULL,"
    " changed INTEGER NOT NULL DEFAULT 0, refused INTEGER NOT NULL DEFAULT 0, done_at REAL)",
    "CREATE INDEX IF NOT EXISTS actions_by_name ON actions (asked_by, action_id)",
    "CREATE INDEX IF NOT EXISTS commands_of_action ON commands (action) WHERE done_at IS NULL",
)

_WITH_KEYS: Final = f"{_CREATE_TASKS}{'; '.join(CREATE_KEYS)};"
_LAST_COLUMN: Final = "part INTEGER NOT NULL DEFAULT 0"
#: As SQLite writes it down when a column is added.
_WITH_CLIENTS: Final = (_WITH_KEYS.replace(f"{_LAST_COLUMN})", f"{_LAST_COLUMN}, {CLIENT})")
                        + f"{'; '.join(CREATE_CLIENTS)};")
_WITH_EVENTS: Final = (_WITH_CLIENTS.replace(f"{_LAST_COLUMN}, {CLIENT})", f"{_LAST_COLUMN}, {CLIENT}, {HISTORY})")
                       + f"{'; '.join((*CREATE_EVENTS, *CREATE_OUTBOX))};")
_LAST_OF_COMMANDS: Final = "reason TEXT, done_at REAL"
_WITH_COUNTERS: Final = (_WITH_EVENTS.replace(f"{_LAST_OF_COMMANDS})", f"{_LAST_OF_COMMANDS}, {ACTION})")
                         + f"{'; '.join(CREATE_COUNTERS)};")
#: What a database of each version is made of. What an older one was stays as it is for good. A new one begins as
#: version 1, and `versions` leads it on.
SCHEMAS: Final[Mapping[int, str]] = {
    1: _CREATE_TASKS, 2: _WITH_KEYS, 3: _WITH_CLIENTS, 4: _WITH_EVENTS, 5: _WITH_COUNTERS, 6: _WITH_COUNTERS}


def key_row(upload: Upload) -> tuple[str, str | None, str, str]:
    """The row of `keys` by which the key of an upload stands for it."""
    return upload.destination.instance_key, upload.scoped_key, upload.task_id, upload.fingerprint


def index_for(instance_key: str | None, client: str | None) -> str:
    """The index that has the tasks of a state, and of these where they are asked for, in the order of their ids."""
    if client is None:
        return "tasks_by_state" if instance_key is None else "tasks_by_instance"
    return "tasks_by_client" if instance_key is None else "tasks_by_both"
