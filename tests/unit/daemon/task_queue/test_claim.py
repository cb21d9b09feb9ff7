"""Which tasks a worker is given, and when."""

from collections.abc import Callable

import pytest

from daemon.model.task import State
from daemon.model.upload import Upload
from daemon.task_queue import BULK_BYTES, Change, Selection, Settlement
from tests.support import rows
from tests.support.depot import Depot, an_upload, sealed

KEY = "local/default/c1"


def test_claim_gives_tasks_in_the_order_of_acceptance(depot: Depot) -> None:
    """The oldest first, up to the limit, and each once."""
    uploads = [depot.accept(f"/{number}") for number in range(5)]
    assert [task.task_id for task in depot.claim(limit=3)] == [upload.task_id for upload in uploads[:3]]
    assert [task.task_id for task in depot.claim(limit=3)] == [upload.task_id for upload in uploads[3:]]
    assert depot.claim() == []


@pytest.mark.parametrize(("share", "number"), [(0.0, 0), (0.5, 2), (0.7, 3), (0.99, 4)])
def test_claim_begins_where_it_is_told_to(depot: Depot, share: float, number: int) -> None:
    """Not the oldest, but one that is so far on the way to the newest."""
    uploads = [depot.accept(f"/{number}") for number in range(5)]
    assert [task.task_id for task in depot.queue.claim(KEY, 1, share=share)] == [uploads[number].task_id]


def test_claim_takes_the_oldest_where_none_may_be_taken_after_it(depot: Depot) -> None:
    """The newest waits for an older one of its path."""
    oldest, newest = depot.accept("/f"), an_upload("/f")
    depot.put(newest, supersede=False)
    assert [task.task_id for task in depot.queue.claim(KEY, 1, share=0.99)] == [oldest.task_id]
    assert depot.queue.claim(KEY, 1, share=0.99) == []
    assert depot.queue.claim("local/default/none", 1, share=0.99) == []


@pytest.mark.parametrize("state", [State.QUEUED, State.PUSHING, State.DEFERRED])
def test_claim_leaves_a_task_alone_while_an_older_one_of_its_path_is_to_be_pushed(depot: Depot, state: State) -> None:
    """Two of one path are never pushed at once, nor the newer before the older."""
    older, newer = depot.accept("/f"), an_upload("/f")
    depot.put(newer, supersede=False)
    other = depot.accept("/g")
    rows.write(depot.queue, older.task_id, status=state)
    claimed = {task.task_id for task in depot.claim()}
    assert claimed == {other.task_id} | ({older.task_id} if state is State.QUEUED else set())


@pytest.mark.parametrize("state", [State.HELD, State.FAILED, State.DELIVERED, State.SUPERSEDED, State.CANCELLED])
def test_claim_waits_for_no_older_one_that_will_not_be_pushed(depot: Depot, state: State) -> None:
    """A dead letter or a held upload does not keep newer ones of its path from being delivered."""
    older, newer = depot.accept("/f"), an_upload("/f")
    depot.put(newer, supersede=False)
    rows.write(depot.queue, older.task_id, status=state)
    assert [task.task_id for task in depot.claim()] == [newer.task_id]


def _settled(depot: Depot, state: State) -> None:
    depot.queue.settle([Settlement(order=task.order, state=state) for task in depot.claim()], supersede=False)


def _changed(depot: Depot, upload: Upload, state: State, *, anew: bool = False) -> None:
    depot.queue.change([Change(task=depot.task(upload), state=state, anew=anew)])


def _deferred_and_retried(depot: Depot, upload: Upload) -> None:
    _settled(depot, State.DEFERRED)
    _changed(depot, upload, State.QUEUED, anew=True)


def _released(depot: Depot, upload: Upload) -> None:
    _changed(depot, upload, State.HELD)
    _changed(depot, upload, State.QUEUED, anew=True)


LEAVE: dict[str, Callable[[Depot, Upload], object]] = {
    "delivered": lambda depot, _: _settled(depot, State.DELIVERED),
    "failed": lambda depot, _: _settled(depot, State.FAILED),
    "held": lambda depot, upload: _changed(depot, upload, State.HELD),
    "cancelled": lambda depot, upload: _changed(depot, upload, State.CANCELLED),
    "given up": lambda depot, _: depot.queue.give_up(depot.queue.aged(KEY, 4e9, 1), "down"),
    "retried by force": _deferred_and_retried,
    "released by force": _released,
    "buried": lambda depot, upload: depot.queue.bury(depot.task(upload).order, State.QUEUED, "bytes_missing", "gone"),
    "dropped": lambda depot, upload: depot.queue.drop(depot.task(upload).order),
    "mended": lambda depot, upload: depot.queue.mend(depot.task(upload).order, KEY, upload, State.FAILED, None, None),
}


@pytest.mark.parametrize("way", LEAVE)
def test_next_of_a_path_can_be_claimed_however_the_one_before_left(depot: Depot, way: str) -> None:
    """Nothing waits for what is not to be pushed any more, or comes after it now; and the order stays."""
    first, *others = [an_upload("/f") for _ in range(4)]
    for upload in (first, *others):
        depot.put(upload, supersede=False)
    LEAVE[way](depot, first)
    for upload in others:
        assert [task.task_id for task in depot.claim()] == [upload.task_id]
        depot.queue.settle([Settlement(order=depot.task(upload).order, state=State.DELIVERED)], supersede=False)


def test_next_of_a_path_can_be_claimed_although_others_of_it_left_before(depot: Depot) -> None:
    """Those in the middle may go first: the order of the others stays."""
    uploads = [an_upload("/f") for _ in range(6)]
    depot.queue.put_many(sealed(*uploads), supersede=False)
    for number in (2, 1, 4):
        _changed(depot, uploads[number], State.CANCELLED)
    for number in (0, 3, 5):
        assert [task.task_id for task in depot.claim()] == [uploads[number].task_id]
        depot.queue.settle([Settlement(order=depot.task(uploads[number]).order, state=State.DELIVERED)], supersede=False)


def test_upload_that_is_found_without_a_row_goes_before_those_that_wait_for_its_path(depot: Depot) -> None:
    """All of a path are claimed in the order of their ids, whichever row was lost."""
    uploads = [an_upload("/f") for _ in range(4)]
    depot.queue.put_many(sealed(*uploads), supersede=False)
    depot.queue.drop(depot.task(uploads[1]).order)
    depot.queue.restore([(uploads[1], State.QUEUED)], supersede=False)
    for upload in uploads:
        assert [task.task_id for task in depot.claim()] == [upload.task_id]
        delivered = Settlement(order=depot.task(upload).order, state=State.DELIVERED, part=False)
        depot.queue.settle([delivered], supersede=False)


def test_new_worker_lets_go_what_waits_for_a_row_that_is_lost(depot: Depot) -> None:
    """A row whose path was damaged before it went keeps nothing waiting for ever."""
    lost, waiting = an_upload("/f"), an_upload("/f")
    depot.queue.put_many(sealed(lost, waiting), supersede=False)
    rows.write(depot.queue, lost.task_id, target=b"\x00")
    depot.queue.drop(1)
    depot.queue.resume(supersede=False)
    assert [task.task_id for task in depot.claim()] == [waiting.task_id]


def test_claim_takes_small_and_bulky_ones_apart(depot: Depot) -> None:
    """What is asked for is what comes, so that large files never stand in the way of small ones."""
    small, bulky = an_upload("/small"), an_upload("/bulky", size=BULK_BYTES)
    depot.queue.put_many(sealed(bulky, small), supersede=True)
    assert [task.task_id for task in depot.queue.claim(KEY, 10)] == [small.task_id]
    assert [task.task_id for task in depot.queue.claim(KEY, 10, bulk=True)] == [bulky.task_id]


def test_claim_keeps_the_order_of_a_path_across_small_and_bulky_ones(depot: Depot) -> None:
    """A small newer one waits for a bulky older one."""
    bulky, small = an_upload("/f", size=BULK_BYTES), an_upload("/f")
    depot.queue.put_many(sealed(bulky, small), supersede=False)
    assert depot.queue.claim(KEY, 10) == []
    assert len(depot.queue.claim(KEY, 10, bulk=True)) == 1


def _is_a_dead_letter_beside(depot: Depot, damaged: Upload, well: Upload) -> bool:
    """True when a claim takes the other alone, and buries the damaged row."""
    claimed = [task.task_id for task in depot.claim()]
    buried = (damaged.task_id, State.FAILED, "invalid_row") in rows.read(depot.queue, "task_id", "status", "error_code")
    return buried and claimed == [well.task_id]


@pytest.mark.parametrize(("column", "value"), [
    ("data", "{"), ("data", ""), ("data", b"\xff"), ("data", 7), ("target", b"\x00"), ("size", 6), ("attempts", "many"),
    ("due_at", 1e15), ("due_at", "soon"), ("age_base", "x"), ("age_base", -1e300),
])
def test_row_that_is_damaged_is_a_dead_letter_and_holds_up_no_other(depot: Depot, column: str, value: object) -> None:
    """What cannot be read, or cannot be, is not delivered; the worker goes on."""
    damaged, well = depot.accept("/damaged"), depot.accept("/well")
    rows.write(depot.queue, damaged.task_id, **{column: value})
    assert _is_a_dead_letter_beside(depot, damaged, well)


@pytest.mark.parametrize(("key", "value"), [
    ("size", 6), ("destination.path", "/etc/shadow"), ("destination.instance", "c2"), ("mode", 99999), ("surprise", 1),
    ("task_id", "01a203a8-e1df-7146-a9da-9cb36be98e81"),
])
def test_row_that_belies_its_columns_is_a_dead_letter_and_holds_up_no_other(depot: Depot, key: str, value: object) -> None:
    """Whoever can write rows cannot have anything delivered that its columns do not say; the worker goes on."""
    damaged, well = depot.accept("/damaged"), depot.accept("/well")
    rows.describe(depot.queue, damaged.task_id, key, value)
    assert _is_a_dead_letter_beside(depot, damaged, well)


def test_row_that_is_damaged_is_left_out_of_every_list(depot: Depot) -> None:
    """No question of a worker or a person fails for one bad row."""
    for state in (State.DELIVERED, State.FAILED, State.DEFERRED):
        upload = depot.accept(f"/{state.label}")
        rows.write(depot.queue, upload.task_id, status=state, data="{")
    assert depot.queue.page(limit=10) == []
    assert depot.queue.unspoolable(10) == []
    assert depot.queue.old_dead_letters(4e9, 10) == []
    assert depot.queue.aged(KEY, 4e9, 10) == []
    assert depot.queue.select(Selection(), State.FAILED, "", 10) == ([], None)
    with pytest.raises(ValueError, match="not an upload"):
        depot.queue.find(upload.task_id)
