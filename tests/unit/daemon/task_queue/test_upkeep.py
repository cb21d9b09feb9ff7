"""What is finished, the database itself, and what is asked of it."""

import json
import os
import re
import sqlite3
import time
from itertools import product

import pytest

from daemon.errors import QueueFault
from daemon.model.task import State
from daemon.task_queue import Selection
from daemon.task_queue.sqlite.doctor import SqliteDoctor
from tests.support import rows
from tests.support.depot import Depot

KEY = "local/default/c1"


def test_age_stands_still_while_nothing_can_be_delivered_there(depot: Depot) -> None:
    """Time in which no worker ran, the remote was away or the instance was waited for does not count."""
    before = depot.accept("/before", created_at=1000.0)
    depot.queue.add_outages({"": 1.0, "local": 10.0, KEY: 50.0})
    depot.queue.add_outages({KEY: 50.0, "eu": 1000.0, "local/default/c2": 1000.0})
    after = depot.accept("/after", created_at=1000.0)
    assert depot.queue.outage_s(before.destination) == 111.0
    assert depot.task(before).age_base - depot.task(after).age_base == 111.0


def test_finished_rows_are_cleared_by_age_and_by_number(depot: Depot) -> None:
    """The oldest go first, in small steps; what still has its bytes stays."""
    uploads = [depot.accept(f"/{number}") for number in range(6)]
    for upload in uploads:
        depot.settle(upload, State.DELIVERED)
    depot.queue.unspool(depot.task(upload).order for upload in uploads[:5])
    assert depot.queue.clear_finished(before=0.0, keep_most=4, limit=10) == 2
    assert depot.queue.clear_finished(before=0.0, keep_most=4, limit=10) == 0
    assert depot.queue.clear_finished(before=time.time() + 1, keep_most=100, limit=2) == 2
    assert depot.queue.clear_finished(before=time.time() + 1, keep_most=100, limit=2) == 1
    assert [task.task_id for task in depot.queue.page(limit=10)] == [uploads[5].task_id]
    assert {state: tasks for (_, state), (tasks, _) in rows.tallies(depot.queue).items()} == {State.DELIVERED: 1}


def test_recheck_is_of_deliveries_that_may_not_have_reached_the_disk(depot: Depot) -> None:
    """Only those with bytes left, and only the newest of a path."""
    gone, overtaken, newest = depot.accept("/gone"), depot.accept("/f"), None
    for upload in (gone, overtaken):
        depot.settle(upload, State.DELIVERED)
    newest = depot.accept("/f")
    depot.settle(newest, State.DELIVERED)
    depot.queue.unspool([depot.task(gone).order])
    assert depot.queue.recheck_unsynced() == 1
    assert depot.state(newest) is State.QUEUED
    assert depot.task(newest).recheck
    assert {depot.state(gone), depot.state(overtaken)} == {State.DELIVERED}


def test_file_that_is_no_database_is_closed_when_it_is_refused(depot: Depot) -> None:
    """Opening a damaged shard again and again holds no descriptor."""
    database = depot.layout.database(0)
    depot.queue.close()
    database.write_bytes(b"no database" * 1000)
    with pytest.raises(QueueFault) as fault:
        SqliteDoctor(depot.layout, 0)
    with os.scandir("/proc/self/fd") as fds:
        held = [os.readlink(fd.path) for fd in fds]
    assert str(database) not in held, fault


def test_checkpoint_is_no_error_while_somebody_reads(depot: Depot) -> None:
    """Somebody who looks at the database with SQLite's own tools only puts off the shrinking of the log."""
    reader = sqlite3.connect(depot.layout.database(0), isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM tasks_v1").fetchall()
    depot.accept()
    depot.queue.compact()
    reader.close()
    depot.queue.compact()
    assert (depot.layout.shard(0) / "data.db-wal").stat().st_size == 0


def test_row_holds_its_upload_as_json(depot: Depot) -> None:
    """No row can run code: there is no pickle in it."""
    upload = depot.accept()
    [(data,)] = rows.read(depot.queue, "data")
    assert json.loads(data)["task_id"] == upload.task_id


def test_page_is_newest_first_whatever_is_asked_for(depot: Depot) -> None:
    """By instance, by state, by both or by nothing: the same order, and pages that fit together."""
    uploads = [depot.accept(f"/{number}", instance=f"c{number % 2}") for number in range(8)]
    for upload in uploads[:4]:
        rows.write(depot.queue, upload.task_id, status=State.FAILED)
    everything = [upload.task_id for upload in reversed(uploads)]
    for states in (frozenset(), frozenset({State.FAILED}), frozenset({State.FAILED, State.QUEUED})):
        for key in (None, "local/default/c1"):
            wanted = [task.task_id for task in depot.queue.page(states=states, instance_key=key, limit=100)]
            assert wanted == [task_id for task_id in everything if task_id in wanted]
            first = depot.queue.page(states=states, instance_key=key, limit=2)
            rest = depot.queue.page(states=states, instance_key=key, before=first[-1].task_id, limit=100)
            assert [task.task_id for task in (*first, *rest)] == wanted
    assert [task.task_id for task in depot.queue.page(limit=100)] == everything


def test_page_is_full_although_rows_in_it_are_damaged(depot: Depot) -> None:
    """Damaged rows do not make a page look like the last one."""
    uploads = [depot.accept(f"/{number}") for number in range(10)]
    rows.damage(depot.queue, *(upload.task_id for upload in uploads[3:9]))
    assert [task.task_id for task in depot.queue.page(limit=3)] == [
        uploads[9].task_id, uploads[2].task_id, uploads[1].task_id]
    assert len(depot.queue.page(states=frozenset({State.QUEUED}), instance_key=KEY, limit=100)) == 4


def test_questions_of_people_read_and_sort_no_more_than_they_show(depot: Depot) -> None:
    """A page of ten costs the same with a million tasks: every one comes from an index in its own order."""
    depot.accept()
    statements: set[str] = set()
    depot.queue.quick.set_trace_callback(statements.add)
    for key, client in product((None, KEY), (None, "token:a")):
        for states in (frozenset(), frozenset({State.QUEUED})):
            depot.queue.page(states=states, instance_key=key, client=client, before="z", limit=10)
        selection = Selection(instance_key=key, client=client, accepted_before=4e9, up_to_order=9)
        depot.queue.select(selection, State.QUEUED, "", 10)
    depot.queue.client_pending("token:a")
    depot.queue.instance_keys("", 10)
    depot.queue.standings([KEY])
    depot.queue.oldest_at()
    depot.queue.totals(frozenset(State))
    depot.queue.pending_commands()
    depot.queue.commands(10)
    depot.queue.quick.set_trace_callback(None)
    plans = {text: [step[3] for step in depot.queue.read(f"EXPLAIN QUERY PLAN {text}")] for text in statements}
    assert len(plans) > 6
    assert [(text, plan) for text, plan in plans.items() if any("B-TREE" in step for step in plan)] == []
    # What was asked for, and what was found so far, are no tables.
    scans = {step for plan in plans.values() for step in plan if re.match("SCAN (?!.*CONSTANT ROW|asked|found)", step)}
    assert scans <= {"SCAN commands USING INDEX commands_open", "SCAN commands USING COVERING INDEX commands_open"}
