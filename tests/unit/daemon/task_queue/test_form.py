"""A database that has anything which this program does not make is damaged, whatever SQLite thinks of it."""

import fcntl
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from daemon.errors import QueueFault
from daemon.model.task import State
from daemon.model.upload import Upload
from daemon.recovery.downtime import catch_up
from daemon.state.layout import Layout
from daemon.task_queue.sqlite import alone, base
from daemon.task_queue.sqlite.connect import connect
from daemon.task_queue.sqlite.doctor import SqliteDoctor
from daemon.task_queue.sqlite.inspection import what_is_damaged
from daemon.task_queue.sqlite.schema import SCHEMAS
from daemon.task_queue.sqlite.versions import SCHEMA_VERSION, is_older, look_over
from tests.support import rows, version_1
from tests.support.depot import Depot, an_upload, sealed
from tests.support.foreign import FOREIGN, HEADS, HUGE, UNDER_OTHERS, plant

_ENDLESS = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n"


def code_of(act: Callable[[], object]) -> str:
    """The code of the fault that this raises."""
    with pytest.raises(QueueFault) as caught:
        act()
    return caught.value.code


def outcome(depot: Depot, upload: Upload) -> State | str:
    """The state of an upload that is put, or the code of what was wrong."""
    try:
        depot.put(upload)
        return depot.state(upload)
    except QueueFault as fault:
        return fault.code


def put_into(layout: Layout) -> None:
    """Open a shard and put an upload."""
    with SqliteDoctor(layout, 0) as queue:
        queue.put_many(sealed(an_upload()), supersede=True)


def test_every_version_has_its_form() -> None:
    """A new step wants what it leads to."""
    assert sorted(SCHEMAS) == list(range(1, SCHEMA_VERSION + 1))


def test_database_of_this_program_is_not_called_foreign(depot: Depot) -> None:
    """Neither a new one, nor one that is used, nor one that was closed."""
    depot.accept()
    depot.queue.require_form()
    assert what_is_damaged(depot.layout, 0, thorough=True) is None
    assert look_over(depot.layout, 0) == f"version {SCHEMA_VERSION}"
    depot.close()
    assert what_is_damaged(depot.layout, 0, thorough=True) is None
    assert look_over(depot.layout, 0) == f"version {SCHEMA_VERSION}"


@pytest.mark.parametrize("what", FOREIGN)
def test_foreign_database_is_damaged_for_whoever_opens_it(depot: Depot, what: str) -> None:
    """Those who would work with it, those who read it through, and those who only look; and so it stays."""
    depot.accept()
    depot.close()
    plant(depot.layout.database(0), what)
    for _ in range(2):
        assert code_of(lambda: SqliteDoctor(depot.layout, 0)) == "queue_damaged"
        assert what_is_damaged(depot.layout, 0) is not None
        assert code_of(lambda: look_over(depot.layout, 0)) == "queue_damaged"


@pytest.mark.parametrize("what", UNDER_OTHERS)
def test_whoever_has_a_database_open_finds_what_was_put_into_it(depot: Depot, what: str) -> None:
    """Its worker looks at it now and then."""
    plant(depot.layout.database(0), what)
    assert code_of(depot.queue.require_form) == "queue_damaged"


@pytest.mark.parametrize("what", UNDER_OTHERS)
def test_nothing_that_was_put_into_an_open_database_runs_in_a_transaction(depot: Depot, what: str) -> None:
    """An upload is put as always, or not at all: what SQLite does not see yet does nothing."""
    depot.reopen()
    plant(depot.layout.database(0), what)
    assert outcome(depot, an_upload()) in {State.QUEUED, "queue_damaged", "queue_full"}


def test_foreign_database_of_an_older_version_is_not_upgraded(quick_path: Path) -> None:
    """None of what is in it runs in a step of the upgrade."""
    layout = Layout(quick_path / "state")
    version_1.build(layout.directory, 1)
    plant(layout.database(0), "trigger")
    assert code_of(lambda: SqliteDoctor(layout, 0, upgrade=lambda: None)) == "queue_damaged"
    assert is_older(layout, 0)


def test_older_database_is_well_and_says_what_becomes_of_it(quick_path: Path) -> None:
    """Its worker will bring it up to date."""
    layout = Layout(quick_path / "state")
    version_1.build(layout.directory, 1)
    assert look_over(layout, 0) == f"version 1; its worker brings it up to version {SCHEMA_VERSION}"
    assert what_is_damaged(layout, 0, thorough=True) is None


def test_value_that_nobody_here_writes_is_damage_and_not_read(depot: Depot) -> None:
    """SQLite alone would take a billion bytes of memory for it."""
    upload = depot.accept()
    plant(depot.layout.database(0), HUGE)
    assert code_of(lambda: depot.queue.find(upload.task_id)) == "queue_damaged"
    assert code_of(lambda: depot.queue.page(limit=1)) == "queue_damaged"


@pytest.mark.parametrize("message", [b"\xff", "x" * 500_000])
def test_row_is_damaged_when_its_error_is_no_message(depot: Depot, message: object) -> None:
    """Nobody could tell it to a client or a person; a page leaves it out, and has the others."""
    uploads = [depot.accept(f"/{number}") for number in range(3)]
    rows.write(depot.queue, uploads[1].task_id, error_message=message)
    with pytest.raises(ValueError, match="error"):
        depot.queue.find(uploads[1].task_id)
    assert [task.task_id for task in depot.queue.page(limit=2)] == [uploads[2].task_id, uploads[0].task_id]


@pytest.mark.parametrize("seconds", ["x", b"x", 1e308, float("inf"), -5.0])
def test_outage_that_never_was_makes_no_row_damaged(depot: Depot, seconds: object) -> None:
    """Every later upload would get a time that no row can have."""
    depot.queue.durable.execute("INSERT INTO outages VALUES ('', ?)", (seconds,))
    upload = depot.accept()
    assert depot.task(upload).age_base <= upload.created_at
    assert 0 <= depot.queue.outage_s(upload.destination) <= 1e9


@pytest.mark.parametrize("fact", ["x", "nan", "-inf", "9" * 400, b"\xff"])
def test_time_that_is_none_keeps_no_worker_from_its_start(depot: Depot, fact: object) -> None:
    """It is as if the time were not known."""
    depot.queue.durable.execute("INSERT INTO facts VALUES ('alive_at', ?)", (fact,))
    upload = depot.accept()
    catch_up(depot.queue)
    assert depot.queue.outage_s(upload.destination) == 0


@pytest.mark.parametrize("what", HEADS)
def test_head_that_keeps_everybody_from_the_database_is_damage(depot: Depot, what: str) -> None:
    """Nothing that comes and goes, as a full disk does: nobody would ever set it aside."""
    depot.close()
    plant(depot.layout.database(0), what)
    assert code_of(lambda: put_into(depot.layout)) == "queue_damaged"


def test_database_that_its_user_may_not_write_is_not_damaged(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its permissions are to be mended, and what it says of the tasks is kept."""
    depot.close()
    plant(depot.layout.database(0), "head that forbids to write")
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert code_of(lambda: put_into(depot.layout)) == "queue_failed"


def test_question_that_takes_too_long_ends(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that was put in just now cannot hold up whoever asks; the next question is answered."""
    monkeypatch.setattr(SqliteDoctor, "MOST_S", 0.0)
    assert code_of(lambda: depot.queue.read(f"SELECT max(x) FROM ({_ENDLESS})")) == "queue_failed"
    assert depot.queue.read("SELECT 1") == [(1,)]


def test_answer_of_too_many_rows_is_not_read_to_its_end(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take all memory before it took too long."""
    monkeypatch.setattr(base, "_MOST_ROWS", 10)
    assert code_of(lambda: depot.queue.read(_ENDLESS)) == "queue_damaged"
    assert len(depot.queue.read(f"{_ENDLESS} LIMIT 10")) == 10


def test_database_trusts_nothing_that_it_says_of_itself(depot: Depot) -> None:
    """As SQLite advises for files that others may have written."""
    for connection in (depot.queue.durable, depot.queue.quick):
        assert connection.execute("PRAGMA trusted_schema").fetchone() == (0,)
        assert connection.execute("PRAGMA cell_size_check").fetchone() == (1,)


def test_nobody_waits_for_ever_for_his_turn_to_open_a_database(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both users of an installed service may hold the lock, and one of them may mean no good."""
    monkeypatch.setattr(alone, "BUSY_TIMEOUT_S", 0.01)
    held = depot.layout.open_made(depot.layout.schema_lock)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert code_of(lambda: SqliteDoctor(depot.layout, 0)) == "queue_locked"
    os.close(held)
    SqliteDoctor(depot.layout, 0).close()


def test_upgrade_keeps_nobody_from_opening_another_database(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can take minutes."""
    layout = Layout(quick_path / "state")
    version_1.build(layout.directory, 2)
    SqliteDoctor(layout, 1, upgrade=lambda: None).close()
    monkeypatch.setattr(alone, "BUSY_TIMEOUT_S", 0.01)
    monkeypatch.setattr(base, "_TELL_EVERY_STEPS", 100)
    opened = []

    def open_other() -> None:
        with SqliteDoctor(layout, 1) as other:
            opened.append(other.page(limit=1))

    SqliteDoctor(layout, 0, upgrade=open_other).close()
    assert opened


def test_refused_database_is_not_open_any_more(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever closed it later would remove the log of the one that has its name by then."""
    depot.close()
    plant(depot.layout.database(0), "trigger")
    made: list[sqlite3.Connection] = []

    def remember(database: Path) -> sqlite3.Connection:
        made.append(connect(database))
        return made[-1]

    monkeypatch.setattr(base, "connect", remember)
    assert code_of(lambda: SqliteDoctor(depot.layout, 0)) == "queue_damaged"
    assert len(made) == 2
    for connection in made:
        with closing(connection), pytest.raises(sqlite3.ProgrammingError):
            connection.execute("SELECT 1")


@pytest.mark.parametrize("asked", [
    "{", "[]", "{}", '{"states": 5}', '{"states": [], "up_to_order": []}', '{"states": [], "up_to_order": 1e300}',
    '{"states": [], "instance_key": {}}', '{"states": [], "client": 5}',
    '{"states": [], "accepted_before": "x"}'])
def test_command_that_asks_for_nothing_known_has_no_verb(depot: Depot, asked: str) -> None:
    """Its worker refuses it, and goes on; one that could not be put to SQLite would end the worker again and again."""
    depot.queue.durable.execute(
        "INSERT INTO commands (verb, filter, asked_at, asked_by) VALUES ('cancel', ?, 1.0, 'me')", (asked,))
    assert [command.verb for command in depot.queue.commands(10)] == [""]


def test_command_that_asks_for_nothing_known_stops_no_migration(depot: Depot) -> None:
    """It stays behind, and the tasks move."""
    upload = depot.accept()
    depot.queue.durable.execute(
        "INSERT INTO commands (verb, filter, asked_at, asked_by) VALUES ('cancel', '{', 1.0, 'me')")
    with SqliteDoctor(depot.layout, 1) as home:
        depot.queue.copy_to(home, [upload.destination.instance_key], lambda _rows: None)
        assert home.find(upload.task_id) is not None
        assert home.pending_commands() == 0
