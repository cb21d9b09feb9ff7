"""Another number of shards: every task, command and key goes along, in order, whatever interrupts it."""

import errno
import hashlib
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uuid_utils

from daemon.config import Webhook
from daemon.model.task import State, Task
from daemon.model.upload import Destination, Upload
from daemon.recovery import reshard
from daemon.spool.inspect import FileSpoolCheck
from daemon.state import reserve, shard_count
from daemon.state.append_lease import AppendLease
from daemon.state.layout import Layout
from daemon.state.reserve import Reserve
from daemon.state.shard_count import ShardCount
from daemon.state.shard_lock import ShardLock, holder
from daemon.task_queue import ActionRecord, Change, Command, CommandAnswer, Selection, Settlement
from daemon.task_queue.sqlite import migrate
from daemon.task_queue.sqlite.doctor import SqliteDoctor
from daemon.webhooks.telling import tell_all
from tests.support import rows
from tests.support.depot import a_state, an_upload, sealed

_BODY = b"body"
_SHA256 = hashlib.sha256(_BODY).hexdigest()


@pytest.fixture
def layout(quick_path: Path) -> Layout:
    """A new state directory."""
    return a_state(quick_path)


def _fill(layout: Layout, shards: int, instances: int = 16, *, files: bool = False) -> None:
    """Tasks in every state in every shard, several to each path, with and without keys; their files if need be."""
    shard_count.establish(layout, shards)
    spool = FileSpoolCheck(layout)
    rng = random.Random(1)
    queues = [SqliteDoctor(layout, shard) for shard in range(shards)]
    uploads: dict[int, list[Upload]] = {}
    for number in range(instances * 10):
        destination = Destination("local", "default", f"i{number % instances}", f"/f{number // instances % 6}")
        upload = Upload(task_id=str(uuid_utils.uuid7()), destination=destination, size=len(_BODY), sha256=_SHA256,
                        created_at=time.time(), idempotency_key=f"k{number}" if number % 5 == 0 else None,
                        client=f"token:{number % 3}" if number % 3 else None)
        uploads.setdefault(destination.shard(shards), []).append(upload)
        if files:
            incoming = spool.begin()
            incoming.write(_BODY)
            incoming.seal(upload).release()
    for shard, some in uploads.items():
        queues[shard].put_many(sealed(*some), supersede=False)
    for queue in queues:
        queue.add_outages({"": 100.0 * queue.shard, "local": 7.0})
        for instance_key in queue.instance_keys("", 1000):
            _mix(queue, instance_key, rng)
        queue.close()
    spool.close()


def _mix(queue: SqliteDoctor, instance_key: str, rng: random.Random) -> None:
    """Bring the tasks of an instance into every state."""
    for state in (State.DELIVERED, State.FAILED, State.DEFERRED):
        queue.settle([Settlement(order=task.order, state=state, attempts=rng.randrange(9), spooled=rng.random() < 0.5,
                                 error_code="io_error", error_message="why", due_at=rng.random() * 1e9)
                      for task in queue.claim(instance_key, 2)], supersede=False)
    waiting, _ = queue.select(Selection(instance_key=instance_key), State.QUEUED, "", 1)
    queue.change([Change(task=task, state=State.HELD) for task in waiting])
    for task in queue.claim(instance_key, 1):
        queue.change([Change(task=task, state=State.CANCELLED, when_settled=True)])


def _all(layout: Layout) -> dict[str, Task]:
    """Every task, by its id."""
    found = shard_count.read(layout)
    assert found is not None
    assert found.moving_to is None
    tasks = {}
    for shard in range(found.in_force):
        with SqliteDoctor(layout, shard) as queue:
            for row in queue.rows(0, 1_000_000):
                assert row.task is not None
                assert row.task_id not in tasks
                assert row.task.destination.shard(found.in_force) == shard
                tasks[row.task_id] = row.task
    return tasks


def _ages(layout: Layout) -> dict[str, float]:
    """What each task's age is measured from, less the time that was waited for its destination."""
    found = shard_count.read(layout)
    assert found is not None
    ages = {}
    for shard in range(found.in_force):
        with SqliteDoctor(layout, shard) as queue:
            for row in queue.rows(0, 1_000_000):
                assert row.task is not None
                ages[row.task_id] = row.task.age_base + queue.outage_s(row.task.destination)
    return ages


def _timeless(tasks: dict[str, Task]) -> dict[str, Task]:
    return {task_id: replace(task, order=0, age_base=0.0) for task_id, task in tasks.items()}


def _order_of_paths(tasks: dict[str, Task]) -> dict[bytes, list[str]]:
    paths: dict[bytes, list[str]] = {}
    for task in sorted(tasks.values(), key=lambda task: task.order):
        paths.setdefault(task.destination.digest, []).append(task.task_id)
    return paths


def _sums(layout: Layout, shards: int) -> dict[tuple[str, str], float]:
    """What is counted, but for events: those of the copying count, too."""
    sums: dict[tuple[str, str], float] = {}
    for shard in range(shards):
        with SqliteDoctor(layout, shard) as queue:
            for counter in queue.counters():
                key = counter.name, counter.labels
                sums[key] = sums.get(key, 0) + counter.value
    return {key: value for key, value in sums.items() if key[0] != "events_total"}


def _actions(layout: Layout, shards: int) -> dict[str, tuple[int, int, int, bool]]:
    """What people did, of all shards together."""
    whole: dict[str, ActionRecord] = {}
    for shard in range(shards):
        with SqliteDoctor(layout, shard) as queue:
            for part in queue.actions(None, 1000):
                whole[part.action_id] = whole[part.action_id] + part if part.action_id in whole else part
    return {key: (action.tasks, action.changed, action.refused, action.done_at is None)
            for key, action in whole.items()}


def _migrate(layout: Layout, shards: int) -> str | None:
    return reshard.migrate(layout, shards, supersede=False, report=lambda finding: None)


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new"), [(4, 1), (1, 8), (4, 3), (3, 4), (2, 64), (8, 8)])
def test_every_task_goes_along_as_it_is(layout: Layout, old: int, new: int) -> None:
    """States, attempts, due times, wishes, keys, ages, and the order of each path are what they were."""
    _fill(layout, old)
    before, ages = _all(layout), _ages(layout)
    assert {task.state for task in before.values()} >= {
        State.QUEUED, State.PUSHING, State.DEFERRED, State.HELD, State.DELIVERED, State.FAILED}
    assert _migrate(layout, new) is None
    assert shard_count.read(layout) == ShardCount(new)
    after = _all(layout)
    assert _timeless(after) == _timeless(before)
    assert _order_of_paths(after) == _order_of_paths(before)
    assert _ages(layout) == pytest.approx(ages)
    assert sorted(path.name for path in layout.queue.glob("shard-*")) == [f"shard-{n:02d}" for n in range(new)]
    assert not any(layout.in_use(shard).exists() for shard in range(new))


def test_counts_and_keys_fit_after_the_move(layout: Layout) -> None:
    """What is counted and what is recognised as a repeat does not depend on the shard."""
    _fill(layout, 4, files=True)
    before, sums = _all(layout), _sums(layout, 4)
    assert _migrate(layout, 3) is None
    assert _sums(layout, 3) == pytest.approx(sums)
    assert sums["uploads_total", ""] == len(before)
    queues = [SqliteDoctor(layout, shard) for shard in range(3)]
    assert all(queue.counts_fit() for queue in queues)
    keyed = [task.upload for task in before.values() if task.upload.idempotency_key]
    for upload in keyed:
        again = replace(upload, task_id=str(uuid_utils.uuid7()))
        put = queues[upload.destination.shard(3)].put_many(sealed(again), supersede=False)[0]
        assert put.task_id == upload.task_id
    for queue in queues:
        queue.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, None])
def test_move_has_the_room_of_the_reserves_where_there_is_no_other(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, code: int | None,
) -> None:
    """Given free before any database is looked into, where the kernel may end the process; else they stay."""
    _fill(layout, 2)
    kept = [Reserve(layout, shard, 4096) for shard in range(2)]
    for one in kept:
        one.restore()
    monkeypatch.setattr(reserve, "trouble_in", lambda _: OSError(code, "full") if code else None)
    assert _migrate(layout, 3) is None
    assert [Reserve(layout, shard, 4096).whole for shard in range(2)] == [code is None] * 2


def test_webhooks_are_told_of_everything_once(layout: Layout) -> None:
    """What was not told yet is put into the outbox first, which moves, too; what was disabled stays so everywhere."""
    hook = Webhook(name="ci", url="https://a.example/", secret="/none", events=["failed"])
    for shard in range(4):
        with SqliteDoctor(layout, shard) as queue:
            queue.follow_for_webhooks(True)
            queue.disable("other", "410" if shard == 3 else None)
    _fill(layout, 4)
    failed = {task_id for task_id, task in _all(layout).items() if task.state is State.FAILED}
    assert failed
    assert reshard.migrate(layout, 3, supersede=False, report=lambda finding: None, webhooks=[hook]) is None
    told: list[str | None] = []
    for shard in range(3):
        with SqliteDoctor(layout, shard) as queue:
            tell_all(queue, [hook])
            told += [notice.task_id for notice in queue.due_notices("ci", 4e9, 999)]
            standings = {standing.name: standing for standing in queue.webhook_standings()}
            assert standings["other"].disabled_why == "410"
            upload = _upload_for(shard)
            queue.put_many(sealed(upload), supersede=False)
            happened = queue.untold(9)
            assert happened is not None
            assert [event.task_id for event in happened.events] == [upload.task_id]
    assert sorted(map(str, told)) == sorted(failed)


def _upload_for(shard: int) -> Upload:
    return an_upload("/new", instance=next(
        f"n{number}" for number in range(99) if Destination("local", "default", f"n{number}", "/").shard(3) == shard))


def test_wishes_and_what_was_outrun_go_along(layout: Layout) -> None:
    """A task that is to be cancelled when its push ends is cancelled in its new shard."""
    _fill(layout, 4)
    pushing = {task_id for task_id, task in _all(layout).items() if task.state is State.PUSHING}
    assert pushing
    assert _migrate(layout, 1) is None
    with SqliteDoctor(layout, 0) as queue:
        queue.resume(supersede=False)
    assert {task_id for task_id, task in _all(layout).items() if task.state is State.CANCELLED} == pushing


def test_part_files_that_may_be_left_are_known_in_the_new_shard(layout: Layout) -> None:
    """A held task whose attempt was cut off before the move is swept up after it."""
    _fill(layout, 4)
    held = {task_id: task for task_id, task in _all(layout).items() if task.state is State.HELD}
    for shard in range(4):
        with SqliteDoctor(layout, shard) as queue:
            for task in queue.page(states=frozenset({State.HELD}), limit=1000):
                rows.write(queue, task.task_id, part=1)
    assert _migrate(layout, 1) is None
    with SqliteDoctor(layout, 0) as queue:
        found = [task.task_id for key in {task.destination.instance_key for task in held.values()}
                 for task in queue.left_parts(key, 1000)]
    assert held
    assert set(found) == set(held)


def test_commands_about_one_task_go_along(layout: Layout) -> None:
    """What a person asked for while nobody served is done by the shard that serves the task now."""
    _fill(layout, 4)
    asked = {}
    for task in list(_all(layout).values())[::7]:
        with SqliteDoctor(layout, task.destination.shard(4)) as queue:
            queue.ask([Command(verb="retry", task_id=task.task_id, force=True, asked_by="me", asked_at=5.0)])
        asked[task.task_id] = task.destination.shard(3)
    assert _migrate(layout, 3) is None
    found = {}
    for shard in range(3):
        with SqliteDoctor(layout, shard) as queue:
            for command in queue.commands(1000):
                assert (command.verb, command.force, command.asked_by, command.asked_at) == ("retry", True, "me", 5.0)
                found[command.task_id] = shard
    assert found == asked


def test_actions_are_done_when_their_commands_are_wherever_these_went(layout: Layout) -> None:
    """One that was done stays so; one that moves is done by the shard that does it."""
    _fill(layout, 4)
    task = next(task for task in _all(layout).values() if task.destination.shard(4) == 3)
    with SqliteDoctor(layout, 3) as queue:
        done, _ = queue.ask([Command(verb="hold", task_id=task_id) for task_id in ("gone", task.task_id)])
        queue.change([], [CommandAnswer(number=done, refused=1, reason="there is none")])
    assert _migrate(layout, 3) is None
    assert sorted(_actions(layout, 3).values()) == [(1, 0, 0, True), (1, 0, 1, False)]
    with SqliteDoctor(layout, task.destination.shard(3)) as queue:
        [command] = queue.commands(9)
        queue.change([], [CommandAnswer(number=command.number, changed=1)])
    assert sorted(_actions(layout, 3).values()) == [(1, 0, 1, False), (1, 1, 0, False)]


@pytest.mark.parametrize("bounded", [True, False])
def test_commands_about_many_tasks_mean_the_same_tasks_after_the_move(layout: Layout, bounded: bool) -> None:
    """A selection goes along with each instance, and still leaves out what came after it was asked."""
    _fill(layout, 4)
    chosen = set()
    for shard in range(4):
        with SqliteDoctor(layout, shard) as queue:
            bound = queue.newest_order() * 2 // 3 if bounded else None
            selection = Selection(states=(State.QUEUED,), up_to_order=bound)
            queue.ask([Command(verb="cancel", selection=selection, asked_at=9.0)])
            chosen |= _selected(queue, selection)
    assert _migrate(layout, 3) is None
    found = set()
    for shard in range(3):
        with SqliteDoctor(layout, shard) as queue:
            for command in queue.commands(1000):
                assert command.selection is not None
                found |= _selected(queue, command.selection)
    assert found == chosen


def _selected(queue: SqliteDoctor, selection: Selection) -> set[str]:
    return {task.task_id for task in queue.select(selection, State.QUEUED, "", 1000)[0]}


# --- what interrupts it -----------------------------------------------------------------------------------


class _Died(Exception):
    pass


@contextmanager
def _dying_after(monkeypatch: pytest.MonkeyPatch, transactions: int) -> Iterator[None]:
    """Let so many transactions of the move be done, then stop as a killed process does."""
    left = transactions
    whole = migrate._transaction

    @contextmanager
    def counted(connection: Any) -> Iterator[None]:
        nonlocal left
        with whole(connection):
            if left == 0:
                raise _Died
            left -= 1
            yield

    with monkeypatch.context() as patch:
        patch.setattr(migrate, "_transaction", counted)
        patch.setattr(migrate, "_CHUNK", 7)
        yield


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new"), [(4, 1), (1, 4), (3, 2)])
def test_move_that_was_cut_off_anywhere_is_finished_by_the_next(
        quick_path: Path, monkeypatch: pytest.MonkeyPatch, old: int, new: int) -> None:
    """After any number of steps the next one to come finishes, and nothing is lost, doubled or out of order."""
    finished = False
    for steps in range(0, 400, 4):
        layout = Layout(quick_path / f"state{steps}")
        layout.create()
        _fill(layout, old, instances=6)
        for shard in range(old):
            with SqliteDoctor(layout, shard) as queue:
                queue.ask([Command(verb="retry", selection=Selection(states=(State.FAILED,)), asked_at=1.0),
                           Command(verb="hold", task_id=queue.rows(0, 1)[0].task_id, asked_at=2.0)])
        before, ages = _all(layout), _ages(layout)
        sums, actions = _sums(layout, old), _actions(layout, old)
        with _dying_after(monkeypatch, steps):
            try:
                _migrate(layout, new)
                finished = True
            except _Died:
                assert shard_count.read(layout) == ShardCount(old, moving_to=new)
        assert _migrate(layout, new) is None
        after = _all(layout)
        assert _timeless(after) == _timeless(before)
        assert _order_of_paths(after) == _order_of_paths(before)
        assert _ages(layout) == pytest.approx(ages)
        assert _asked(layout, new) == _expected(before, old, new)
        assert _sums(layout, new) == pytest.approx(sums)
        assert _actions(layout, new) == actions
        if finished:
            return
    raise AssertionError("the move never came to its end")


def _asked(layout: Layout, shards: int) -> list[tuple[str, str]]:
    """Every open command: its verb, and the task or the instance that it is about."""
    found = []
    for shard in range(shards):
        with SqliteDoctor(layout, shard) as queue:
            found += [(command.verb, command.task_id or (command.selection and command.selection.instance_key) or "*")
                      for command in queue.commands(1000)]
    return sorted(found)


def _expected(before: dict[str, Task], old: int, new: int) -> list[tuple[str, str]]:
    first: dict[int, Task] = {}
    for task in before.values():
        shard = task.destination.shard(old)
        first[shard] = min(first.get(shard, task), task, key=lambda each: each.order)
    moved = {task.destination.instance_key for task in before.values()
             if task.destination.shard(old) != task.destination.shard(new)}
    return sorted([("hold", task.task_id) for task in first.values()] + [("retry", key) for key in moved]
                  + [("retry", "*")] * min(old, new))


def test_move_that_was_cut_off_is_finished_before_another_number(
        layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Going back to the old number after a cut first goes on, then back: order is kept all the way."""
    _fill(layout, 4)
    before = _all(layout)
    with _dying_after(monkeypatch, 20), pytest.raises(_Died):
        _migrate(layout, 2)
    assert _migrate(layout, 4) is None
    assert shard_count.read(layout) == ShardCount(4)
    assert _timeless(_all(layout)) == _timeless(before)
    assert _order_of_paths(_all(layout)) == _order_of_paths(before)


# --- who has to wait --------------------------------------------------------------------------------------


def test_move_waits_for_a_worker_of_the_old_number(layout: Layout) -> None:
    """It says which process it waits for, and leaves every lock as it was."""
    _fill(layout, 2, instances=4)
    lock = ShardLock(layout, 1)
    lock.acquire()
    reason = _migrate(layout, 1)
    assert reason is not None
    assert "Shard 1 is served by process" in reason
    assert holder(layout, 0) is None
    lock.release()
    assert _migrate(layout, 1) is None


def test_move_waits_for_whoever_appends(layout: Layout) -> None:
    """An API of the old number keeps the move from beginning."""
    _fill(layout, 2, instances=4)
    lease = AppendLease(layout, 2)
    assert lease.acquire() is None
    reason = _migrate(layout, 1)
    assert reason is not None
    assert "API" in reason
    lease.release()
    assert _migrate(layout, 1) is None


def test_move_makes_every_shard_whole_first(layout: Layout) -> None:
    """A database that was lost at the same restart is rebuilt under its old number, then moved."""
    _fill(layout, 2, instances=8, files=True)
    before = _all(layout)
    with SqliteDoctor(layout, 1) as queue:
        lost = {row.task_id for row in queue.rows(0, 1000)}
    layout.database(1).unlink()
    assert _migrate(layout, 3) is None
    after = _all(layout)
    spooled = {name.task_id for bucket in range(256) for name in FileSpoolCheck(layout).scan(bucket)}
    assert set(after) == set(before) - (lost - spooled)
