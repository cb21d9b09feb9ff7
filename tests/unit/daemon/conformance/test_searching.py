"""Looking for tasks, and how old they are, without ever reading everything."""

import time
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import pytest

from daemon.model.task import State
from daemon.model.upload import Upload, first_id_of
from daemon.task_queue import Intake, TaskQuestion, TaskQueue
from tests.support.depot import an_upload, sealed
from tests.unit.daemon.conformance.doors import KEY, LATER_S, accept, bring

NOW = 1.7e9


def aged(seconds: float, path: str = "/x", **values: Any) -> Upload:
    """An upload that was accepted so long before NOW."""
    at = NOW - seconds
    return an_upload(path, task_id=first_id_of(at)[:24] + f"{crc32(path.encode()):012x}", created_at=at, **values)


def search(queue: Intake, limit: int = 99, **asked: Any) -> list[str]:
    """The paths of the tasks that are found."""
    found = queue.search(TaskQuestion(**asked), None, limit)
    assert found.next_before is None or len(found.tasks) == limit
    return [task.destination.path for task in found.tasks]


def test_search_finds_what_all_of_the_question_means(queue: TaskQueue) -> None:
    """Newest first; a text is looked for in the path alone, and letter by letter."""
    names = ("/srv/a.csv", "/srv/in/b.csv", '/srv/"in"/ä%.csv', "/other")
    for age, path in enumerate(names):
        queue.put_many(sealed(aged(60 * (4 - age), path, display_name="srv")), supersede=False)
    failed = bring(queue, an_upload("/z", instance="c2", client="token:a"), State.PUSHING)
    assert search(queue) == [failed.destination.path, *reversed(names)]
    assert search(queue, path="/in/") == [names[1]]
    assert search(queue, path="srv") == [names[2], names[1], names[0]]
    assert search(queue, path='"in"/ä%') == [names[2]]
    assert search(queue, path="/srv/*") == [names[0]]
    assert search(queue, path="/srv/**") == [names[2], names[1], names[0]]
    assert search(queue, since=NOW - 180) == ["/z", names[3], names[2], names[1]]
    assert search(queue, until=NOW - 180) == [names[0]]
    assert search(queue, since=NOW - 200, until=NOW - 100, path="csv") == [names[2], names[1]]
    assert search(queue, states=frozenset({State.PUSHING})) == search(queue, client="token:a") == ["/z"]
    assert search(queue, instance_key="local/default/c2", states=frozenset({State.QUEUED})) == []
    assert search(queue, instance_key=KEY, path="s", states=frozenset({State.QUEUED, State.HELD})) == [
        names[2], names[1], names[0]]


def test_search_finds_errors_by_their_codes(queue: TaskQueue) -> None:
    """Of tasks that wait because of one, too."""
    uploads = accept(queue, an_upload("/a"), an_upload("/b"))
    queue.give_up(queue.find_all([uploads[0].task_id]), "too old")
    assert search(queue, error="gave_up") == ["/a"]
    assert search(queue, error="gave_up", instance_key=KEY) == ["/a"]
    assert search(queue, error="gave_up", until=NOW) == []


@pytest.mark.parametrize("asked", [{}, {"path": "7"}, {"instance_key": KEY}, {"instance_key": KEY, "path": "7"}])
@pytest.mark.parametrize(("limit", "most"), [(1, 10), (7, 50), (150, 200)])
def test_pages_of_a_search_make_up_all_of_it(
    queue: TaskQueue, asked: dict[str, Any], limit: int, most: int,
) -> None:
    """However little is looked at for each, none is left out, and none comes twice."""
    uploads = [aged(1000 - number, f"/{number}", instance="c1") for number in range(300)]
    queue.put_many(sealed(*uploads), supersede=False)
    queue.claim(KEY, 20)
    queue.give_up(queue.find_all([upload.task_id for upload in uploads[::3]]), "no")
    wanted = [upload.task_id for upload in reversed(uploads) if asked.get("path", "") in upload.destination.path]
    seen: list[str] = []
    before: str | None = None
    for _ in range(10_000):
        found = queue.search(TaskQuestion(**asked), before, limit, most)
        assert len(found.tasks) <= limit
        seen += [task.task_id for task in found.tasks]
        before = found.next_before
        if before is None:
            break
    assert seen == wanted


def test_search_for_a_rare_task_ends_early_and_says_where_to_go_on(intake: Intake) -> None:
    """Nobody waits until all tasks were looked at."""
    uploads = [aged(5000 - number, f"/{number}") for number in range(2000)]
    intake.put_many(sealed(*uploads), supersede=False)
    found = intake.search(TaskQuestion(path="/0"), None, 9, 500)
    assert found.tasks == ()
    assert found.next_before is not None
    assert uploads[1000].task_id < found.next_before < uploads[1999].task_id


def ages(queue: Intake, keys: Sequence[str], most: int = 100) -> list[tuple[int, ...]]:
    """How many tasks are up to a minute, up to an hour, and older."""
    return queue.ages(keys, (60, 3600), NOW, most)


def test_ages_are_those_of_tasks_that_are_not_finished(queue: TaskQueue) -> None:
    """Each instance has its own, in the order in which they are asked for; a dead letter does not wait."""
    for number, state in enumerate((State.PUSHING, State.DEFERRED, State.FAILED, State.DELIVERED, State.HELD)):
        bring(queue, aged(30, f"/{number}"), state)
    accept(queue, aged(7000, "/old"), aged(59.5, "/young", instance="c2"), aged(60.5, "/older", instance="c2"))
    assert ages(queue, ["local/default/c2", KEY, "local/default/none"]) == [(1, 1, 0), (3, 0, 1), (0, 0, 0)]
    assert ages(queue, []) == []


def test_ages_are_counted_up_to_a_number(queue: TaskQueue) -> None:
    """More than that is not counted, so that an instance with very many costs no more."""
    accept(queue, *(aged(10, f"/{number}") for number in range(5)))
    queue.claim(KEY, 2)
    assert ages(queue, [KEY], 3) == [(3, 0, 0)]
    assert queue.ages([KEY], (), time.time() + LATER_S, 99) == [(5,)]
