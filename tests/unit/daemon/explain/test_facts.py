"""What is known of the tasks around one, and of its service."""

import os
from collections.abc import Sequence

import pytest

from daemon.errors import QueueFault
from daemon.explain import facts, oldest_of, read_service, tasks_ahead
from daemon.explain.facts import Ahead
from daemon.model.task import State
from daemon.model.upload import Upload
from daemon.state.activity import Activity, Publisher
from daemon.state.shard_lock import ShardLock
from tests.support.depot import Depot, an_upload, sealed

KEY = "local/default/c1"


def put(depot: Depot, paths: Sequence[str], instance: str = "c1") -> list[Upload]:
    """Queue uploads, of which none replaces another."""
    uploads = [an_upload(path, instance=instance) for path in paths]
    depot.queue.put_many(sealed(*uploads), supersede=False)
    return uploads


def ahead_of(depot: Depot, upload: Upload) -> Ahead:
    """What comes before an upload."""
    return tasks_ahead(depot.queue, depot.task(upload))


def test_tasks_of_its_instance_that_are_older_come_before_one(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither later ones do, nor those of other instances, nor those that are put off; many are counted so far only."""
    put(depot, ["/other"], "c2")
    older = put(depot, ["/a", "/b", "/c"])
    [mine, _] = put(depot, ["/mine", "/later"])
    depot.settle(older[0], State.DEFERRED, due_at=2e9)
    assert ahead_of(depot, mine) == Ahead(tasks=2)
    monkeypatch.setattr(facts, "COUNTED", 1)
    assert ahead_of(depot, mine).tasks == 1
    depot.settle(mine, State.HELD)
    assert ahead_of(depot, mine) == Ahead()


def test_older_one_of_the_path_is_waited_for(depot: Depot) -> None:
    """While it is still to be pushed."""
    [older, mine] = put(depot, ["/same", "/same"])
    blocker = ahead_of(depot, mine).blocker
    assert blocker is not None
    assert blocker.task_id == older.task_id
    assert ahead_of(depot, older).blocker is None
    depot.settle(older, State.DELIVERED)
    assert ahead_of(depot, mine).blocker is None


def test_older_one_of_the_path_is_found_however_many_others_come_between(
    depot: Depot, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also one that left a part file, behind any number of others in its state."""
    monkeypatch.setattr(facts, "COUNTED", 1)
    [older, *others] = put(depot, ["/same", "/a", "/b"])
    [mine] = put(depot, ["/same"])
    blocker = ahead_of(depot, mine).blocker
    assert blocker is not None
    assert blocker.task_id == older.task_id
    depot.settle(older, State.CANCELLED, part=True)
    for other in others:
        depot.settle(other, State.CANCELLED)
    blocker = ahead_of(depot, mine).blocker
    assert blocker is not None
    assert (blocker.task_id, blocker.left_part) == (older.task_id, True)


def test_one_of_the_path_that_may_have_left_a_part_file_is_waited_for(depot: Depot) -> None:
    """However it ended; one of another path is not."""
    [older, mine] = put(depot, ["/same", "/same"])
    [other] = put(depot, ["/other"])
    for upload in (older, other):
        depot.settle(upload, State.CANCELLED, part=True)
    blocker = ahead_of(depot, mine).blocker
    assert blocker is not None
    assert (blocker.task_id, blocker.left_part) == (older.task_id, True)


def test_sample_of_an_instance_has_its_oldest_and_those_in_trouble(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many others there are."""
    monkeypatch.setattr(facts, "_SAMPLE", 2)
    failed, deferred, *_ = put(depot, [f"/{number}" for number in range(9)])
    depot.settle(failed, State.FAILED, error_code="read_only")
    depot.settle(deferred, State.DEFERRED, due_at=2e9)
    [standing] = depot.queue.standings([KEY])
    found = [task.task_id for task in oldest_of(depot.queue, standing)]
    assert found == sorted(found)
    assert {failed.task_id, deferred.task_id} <= set(found)
    [nothing] = depot.queue.standings(["local/default/none"])
    assert oldest_of(depot.queue, nothing) == []


def test_service_is_known_by_its_lock_and_what_its_worker_told(depot: Depot) -> None:
    """One that does not run any more is known by when it told something last; one that has just begun by its lock."""
    layout = depot.layout
    assert read_service(layout, 0) == facts.ServiceFacts(shard=0, worker=None)
    lock = ShardLock(layout, 0)
    lock.acquire()
    starting = read_service(layout, 0)
    assert (starting.worker, starting.activity) == (os.getpid(), None)
    assert starting.worker_since is not None
    told = Activity(at=1e9, pid=os.getpid(), started_at=1e9, lanes=0, keeps=0, threads=0, sessions=0, stalled=0)
    publisher = Publisher(layout, 0)
    publisher.publish(told)
    publisher.close()
    assert read_service(layout, 0).activity == told
    lock.release()
    gone = read_service(layout, 0)
    assert (gone.worker, gone.activity, gone.last_at) == (None, None, 1e9)


@pytest.mark.parametrize(("text", "code"), [("1 2\n", "queue_moving"), ("many", "bad_config"), ("1\n", "queue_failed")])
def test_service_whose_queue_cannot_be_used_says_why(depot: Depot, text: str, code: str) -> None:
    """Being moved counts for more than what came of it."""
    depot.layout.shards_file.write_text(text)
    assert read_service(depot.layout, 0, fault=QueueFault("queue_failed", "why")).code == code
