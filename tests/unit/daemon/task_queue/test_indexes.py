"""What keeps the queue as fast with a million tasks as with ten: the indexes, and the columns that they stand on."""

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from daemon.config import LOCAL
from daemon.model.task import PENDING, State
from daemon.model.upload import Destination, Upload
from daemon.task_queue import Change, Command, CommandAnswer, Settlement, TaskQuestion, Total
from daemon.task_queue.sqlite.queue import SqliteQueue
from tests.support import rows
from tests.support.depot import a_state, sealed

#: Reading what came with the statement itself.
_GIVEN = re.compile(r"CONSTANT ROW|subquery")
KEY = Destination(LOCAL, "default", "c1", "/").instance_key


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    """An empty queue."""
    with SqliteQueue(a_state(tmp_path), 0) as opened:
        yield opened


def an_upload(number: int, path: str = "/x", instance: str = "c1") -> Upload:
    """An upload whose id says its number."""
    return Upload(task_id=f"00000000-0000-7000-8000-{number:012d}",
                  destination=Destination(LOCAL, "default", instance, path), size=1, sha256="0" * 64, created_at=1e9)


def steps_of(queue: SqliteQueue, work: Callable[[], object]) -> int:
    """How many steps SQLite takes for some work."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    for connection in (queue.quick, queue.durable):
        connection.set_progress_handler(count, 1)
    work()
    for connection in (queue.quick, queue.durable):
        connection.set_progress_handler(None, 1)
    return steps


def rows_of(queue: SqliteQueue, work: Callable[[], object]) -> int:
    """How many rows are fetched for some work."""
    rows = 0

    def count(_: sqlite3.Cursor, row: tuple[Any, ...]) -> tuple[Any, ...]:
        nonlocal rows
        rows += 1
        return row

    for connection in (queue.quick, queue.durable):
        connection.row_factory = count
    work()
    for connection in (queue.quick, queue.durable):
        connection.row_factory = None
    return rows


def deliver(queue: SqliteQueue, numbers: range) -> None:
    """Deliver a task to each of so many instances."""
    queue.put_many(sealed(*(an_upload(number, instance=f"c{number}") for number in numbers)), supersede=False)
    for number in numbers:
        [task] = queue.claim(f"local/default/c{number}", 1)
        queue.settle([Settlement(order=task.order, state=State.DELIVERED, spooled=False)])


def live(queue: SqliteQueue) -> None:
    """Take tasks through every state that the daily work has."""
    queue.put_many(sealed(*(an_upload(number, f"/{number}") for number in range(6))), supersede=True)
    tasks = queue.claim(KEY, 3)
    queue.settle([
        Settlement(order=tasks[0].order, state=State.DELIVERED, attempts=1),
        Settlement(order=tasks[1].order, state=State.DEFERRED, attempts=1, due_at=1.0),
        Settlement(order=tasks[2].order, state=State.FAILED, attempts=1, error_code="gave_up", part=True)])
    queue.suspect_claims(2)
    queue.put_many(sealed(an_upload(10, "/1"), an_upload(11, "/3")), supersede=True)
    queue.put_many(sealed(an_upload(12, "/4")), supersede=False)
    queue.claim(KEY, 1, bulk=True)
    queue.settle([Settlement(order=task.order, state=State.QUEUED) for task in queue.claim(KEY, 1, share=0.5)])
    queue.next_due_at()
    queue.release_late(time.time(), 10)
    queue.promote_due(time.time(), 10)
    queue.release_instance(KEY, 10)
    queue.ready_instances("", 10)
    queue.ready_among([KEY])
    queue.arrivals(0, 10)
    queue.newer_exists(tasks[1].destination.digest, tasks[1].order)
    queue.find(tasks[0].task_id)
    queue.next_with_parts("")
    queue.forget_unreadable_parts(KEY, 10)
    queue.forget_part(queue.left_parts(KEY, 10)[0].order)
    queue.unspool(task.order for task in queue.unspoolable(10))
    queue.aged(KEY, time.time(), 10)
    queue.old_dead_letters(0.0, 10)
    queue.totals(PENDING)
    queue.clear_finished(time.time() + 1, 0, 10)
    queue.clear_finished(0.0, 0, 10)
    queue.compact()
    for number in (30, 31):
        queue.put_many(sealed(replace(an_upload(number, "/keyed"), idempotency_key="k", client="token:a")), supersede=True)


def test_daily_work_reads_and_sorts_no_more_than_it_takes_whatever_waits(queue: SqliteQueue) -> None:
    """Every statement about tasks finds its rows in order by an index: its cost does not grow with the backlog."""
    connections = (queue.durable, queue.quick)
    statements: set[str] = set()
    for connection in connections:
        connection.set_trace_callback(statements.add)
    live(queue)
    for connection in connections:
        connection.set_trace_callback(None)
    asked = [text for text in statements if text.startswith(("SELECT", "UPDATE", "DELETE"))]
    plans = {text: [step[3] for step in queue.quick.execute(f"EXPLAIN QUERY PLAN {text}")] for text in asked}
    assert len(asked) > 20
    assert [(text, plan) for text, plan in plans.items() if any("TEMP B-TREE" in step for step in plan)] == []
    scans = {step for plan in plans.values() for step in plan if step.startswith("SCAN") and not _GIVEN.search(step)}
    # The counts, a row for each instance and state and one for each client, once a minute; the wishes; the finished, up to a limit, oldest first; and the ids
    # that were asked for.
    assert scans == {"SCAN tally", "SCAN clients", "SCAN tasks_v1 USING INDEX tasks_wishes", "SCAN tasks_v1 USING INDEX tasks_clear",
                     "SCAN json_each VIRTUAL TABLE INDEX 1:"}


def test_people_s_questions_read_and_sort_no_more_than_they_show(queue: SqliteQueue) -> None:
    """Whatever is looked for, each statement walks one index, and stops."""
    statements: set[str] = set()
    live(queue)
    [task] = queue.page(limit=1)
    queue.quick.set_trace_callback(statements.add)
    for asked in ({}, {"instance_key": KEY}, {"client": "token:a"}, {"states": frozenset({State.QUEUED})}):
        queue.search(TaskQuestion(path="3", error="gave_up", since=1.0, until=4e9, **asked), None, 10)
        queue.search(TaskQuestion(**asked), None, 10)
    queue.blocker(task)
    queue.ages([KEY], (60, 3600), time.time(), 10)
    queue.actions(None, 10)
    queue.actions("act_", 10, "me")
    queue.quick.set_trace_callback(None)
    plans = {text: [step[3] for step in queue.quick.execute(f"EXPLAIN QUERY PLAN {text}")] for text in statements}
    steps = {step for plan in plans.values() for step in plan}
    assert len(plans) > 20
    assert [step for step in steps if "TEMP B-TREE" in step] == []
    # The newest actions; and each instance with each span of ages, which are given.
    assert {step for step in steps if step.startswith("SCAN") and not _GIVEN.search(step)} == {
        "SCAN actions USING INDEX sqlite_autoindex_actions_1", "SCAN asked", "SCAN span"}


def test_answering_costs_no_more_the_more_commands_wait(queue: SqliteQueue) -> None:
    """Whether more of an action is to be done is asked of an index that has it alone."""
    def answer() -> None:
        queue.change([], [CommandAnswer(number=queue.commands(1)[0].number, changed=1)])

    queue.ask([Command(verb="hold", task_id=str(number)) for number in range(3)])
    answer()
    few = steps_of(queue, answer)
    queue.ask([Command(verb="hold", task_id=str(number)) for number in range(2000)])
    assert steps_of(queue, answer) == few


def test_instances_with_nothing_queued_cost_nothing_when_it_is_asked_who_has(queue: SqliteQueue) -> None:
    """Twenty thousand names that are tried again later are not looked at in each turn of the worker."""
    def ask() -> None:
        assert queue.ready_instances("", 10) == ["local/default/ready"]

    queue.put_many(sealed(an_upload(0, instance="ready")), supersede=False)
    ask()
    few = steps_of(queue, ask)
    queue.put_many(sealed(*(an_upload(number, instance=f"c{number}") for number in range(1, 500))), supersede=False)
    for number in range(1, 500):
        [task] = queue.claim(f"local/default/c{number}", 1)
        queue.settle([Settlement(order=task.order, state=State.DEFERRED, due_at=4e9)])
    assert steps_of(queue, ask) == few


def test_instances_cost_no_rows_when_what_waits_is_counted(queue: SqliteQueue) -> None:
    """The sums are made where the counts are: what is fetched is a row for each state, however many names there are."""
    queue.put_many(sealed(an_upload(0)), supersede=False)
    few = rows_of(queue, lambda: queue.totals(PENDING))
    queue.put_many(sealed(*(an_upload(number, instance=f"c{number}") for number in range(1, 500))), supersede=False)
    assert rows_of(queue, lambda: queue.totals(PENDING)) == few
    assert queue.totals(PENDING)[State.QUEUED] == Total(500, 500)


def test_status_fetches_no_more_instances_than_it_shows(queue: SqliteQueue) -> None:
    """The busiest are found where the counts are, and a page of all begins where the one before ended."""
    def ask() -> None:
        assert len(queue.busiest(10)[1]) == len(queue.instance_keys("", 10)) == 10
        assert len(queue.ranked(10, (2**40, ""))[1]) == 10
        assert len(queue.standings(queue.busiest(10)[1])) == 10

    queue.put_many(sealed(*(an_upload(number, instance=f"c{number}") for number in range(20))), supersede=False)
    few = rows_of(queue, ask)
    queue.put_many(sealed(*(an_upload(number, instance=f"c{number}") for number in range(20, 500))), supersede=False)
    assert rows_of(queue, ask) == few


def test_page_of_a_client_costs_nothing_for_what_others_sent(queue: SqliteQueue) -> None:
    """Nor for what it sent itself to other instances, or has in other states, where those are asked for."""
    questions: list[dict[str, Any]] = [{}, {"instance_key": KEY}, {"states": frozenset({State.FAILED})},
                                       {"instance_key": KEY, "states": frozenset({State.FAILED})}]

    def costs() -> list[int]:
        return [steps_of(queue, partial(queue.page, client="token:a", limit=10, **asked)) for asked in questions]

    def put(numbers: range, client: str | None, instance: str = "c1") -> None:
        queue.put_many(sealed(*(replace(an_upload(number, f"/{number}", instance), client=client) for number in numbers)),
                       supersede=False)

    put(range(10), "token:a")
    for numbers, client in ((range(10, 20), None), (range(20, 30), "token:b")):
        put(numbers, client)
    costs()
    few = costs()
    put(range(100, 500), None)
    put(range(500, 900), "token:b")
    assert costs() == few
    put(range(900, 1300), "token:a", "c2")
    narrow = costs()
    assert (narrow[1], narrow[3]) == (few[1], few[3])
    assert narrow[2] == few[2]


def test_anonymous_tasks_are_in_no_index_and_no_count_of_clients(queue: SqliteQueue) -> None:
    """They cost what they would if there were no clients."""
    live(queue)
    assert queue.read("SELECT count(*) FROM tasks_v1 INDEXED BY tasks_by_client WHERE client IS NOT NULL") == [(1,)]
    assert queue.client_pending("token:a") == Total(1, 1)
    assert rows_of(queue, lambda: queue.client_pending("token:a")) == 1


def test_instances_with_nothing_waiting_cost_nothing_when_what_waits_is_counted(queue: SqliteQueue) -> None:
    """Names that everything was delivered to are not looked at once their counts of nothing are removed."""
    def steps_after(delivered: range) -> int:
        deliver(queue, delivered)
        queue.compact()
        queue.totals(PENDING)
        return steps_of(queue, lambda: queue.totals(PENDING))

    queue.put_many(sealed(an_upload(0)), supersede=False)
    assert steps_after(range(1, 2)) == steps_after(range(2, 100))


def test_clearing_costs_no_more_the_more_instances_there_are(queue: SqliteQueue) -> None:
    """What is old enough goes without anybody counting what else there is."""
    def clear() -> None:
        assert queue.clear_finished(time.time() + 1, 100, 1) == 1

    deliver(queue, range(3))
    clear()
    few = steps_of(queue, clear)
    deliver(queue, range(10, 100))
    assert steps_of(queue, clear) == few


def test_open_column_follows_the_state_whoever_changes_it(queue: SqliteQueue) -> None:
    """The column that the index of rivals stands on agrees with the state in every row."""
    live(queue)
    queue.put_many(sealed(an_upload(20, "/held")), supersede=False)
    queue.change([Change(task=task, state=State.HELD) for task in queue.page(limit=1)])
    queue.resume(supersede=True)
    found = rows.read(queue, "status", "open")
    assert {status for status, _ in found} >= {State.QUEUED, State.HELD, State.FAILED}
    assert [(status, is_open) for status, is_open in found if bool(is_open) != (status in {1, 2, 3})] == []


def test_older_upload_is_superseded_after_many_deliveries_to_its_path(queue: SqliteQueue) -> None:
    """Of one path, only the tasks that are still to be pushed are replaced, and all of those."""
    for number in range(5):
        queue.put_many(sealed(an_upload(number)), supersede=True)
        queue.settle([Settlement(order=task.order, state=State.DELIVERED, attempts=1) for task in queue.claim(KEY, 9)])
    queue.put_many(sealed(an_upload(5)), supersede=True)
    assert queue.put_many(sealed(an_upload(6)), supersede=True)[0].superseded == {an_upload(5).task_id: None}
    assert [task.task_id for task in queue.claim(KEY, 9)] == [an_upload(6).task_id]


def push_one(queue: SqliteQueue) -> None:
    """Claim what can be claimed, twice, and deliver it."""
    tasks = queue.claim(KEY, 64)
    assert queue.claim(KEY, 64) == []
    assert len(tasks) == 1
    queue.settle([Settlement(order=task.order, state=State.DELIVERED, attempts=1) for task in tasks], supersede=False)


def test_task_costs_no_more_the_more_wait_for_its_path(queue: SqliteQueue) -> None:
    """Where all are to be delivered, a claim and a settlement look at the oldest of a path only."""
    queue.put_many(sealed(*(an_upload(number) for number in range(10))), supersede=False)
    push_one(queue)
    few = steps_of(queue, lambda: push_one(queue))
    queue.put_many(sealed(*(an_upload(number) for number in range(10, 2000))), supersede=False)
    assert steps_of(queue, lambda: push_one(queue)) == few


def test_upload_costs_no_more_the_more_wait_for_its_path(queue: SqliteQueue) -> None:
    """Nor does putting another one behind them."""
    queue.put_many(sealed(*(an_upload(number) for number in range(10))), supersede=False)
    queue.put_many(sealed(an_upload(10)), supersede=False)
    few = steps_of(queue, lambda: queue.put_many(sealed(an_upload(11)), supersede=False))
    queue.put_many(sealed(*(an_upload(number) for number in range(12, 2000))), supersede=False)
    assert steps_of(queue, lambda: queue.put_many(sealed(an_upload(2000)), supersede=False)) == few
