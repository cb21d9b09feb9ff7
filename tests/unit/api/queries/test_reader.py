"""Questions to all shards: what each of them says, put together."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from api.queries.reader import Reader
from api.queries.sight import Sight
from api.queries.task_query import Question
from daemon.access.caller import Caller, Link
from daemon.model.grant import Grant, Permission
from daemon.model.task import State, Task
from daemon.model.upload import Upload, bucket_of
from daemon.spool.store import FileSpool
from daemon.task_queue import ActionRecord, Command, Total
from daemon.task_queue.sqlite.queue import SqliteQueue
from tests.support.depot import a_state, an_upload, sealed

SHARDS = 2
#: Instances, some in each shard.
NAMES = [f"c{number}" for number in range(6)]


@pytest.fixture
def uploads() -> list[Upload]:
    """Uploads to several instances, oldest first."""
    return [an_upload(f"/srv/{number}", instance=NAMES[number % 6]) for number in range(60)]


@pytest.fixture
def reader(quick_path: Path, uploads: list[Upload]) -> Iterator[Reader]:
    """Who reads them."""
    layout = a_state(quick_path)
    assert {bucket_of(upload.destination.instance_key) % SHARDS for upload in uploads} == {0, 1}
    for shard in range(SHARDS):
        with SqliteQueue(layout, shard) as queue:
            queue.put_many(sealed(*(upload for upload in uploads if upload.destination.shard(SHARDS) == shard)), supersede=False)
    with closing(Reader(layout, FileSpool(layout), SHARDS)) as opened:
        yield opened


def sight(**bounds: Any) -> Sight:
    """Who may read within these bounds."""
    return Sight(Caller(name="me", links=(Link("me", Grant(may=frozenset({Permission.READ}), **bounds)),)))


def found(reader: Reader, question: Question, who: Sight) -> list[str]:
    """The paths of all tasks that are found."""
    return [task.destination.path for task in reader.newest(question, who) if isinstance(task, Task)]


def test_search_goes_through_all_shards_and_shows_what_may_be_seen(reader: Reader, uploads: list[Upload]) -> None:
    """Newest first, none left out, none twice, whoever looks."""
    paths = [upload.destination.path for upload in reversed(uploads)]
    assert found(reader, Question(), sight()) == paths
    assert found(reader, Question(path="3"), sight()) == [path for path in paths if "3" in path]
    assert found(reader, Question(path="/srv/3*"), sight()) == [path for path in paths if path.startswith("/srv/3")]
    assert found(reader, Question(after=uploads[5].task_id), sight()) == paths[-5:]
    assert found(reader, Question(), sight(paths=("/srv/?",))) == paths[-10:]
    assert found(reader, Question(), sight(instances=("c1", "c2"))) == [
        path for path in paths if int(path[5:]) % 6 in {1, 2}]
    assert found(reader, Question(client="token:other"), sight()) == []


def test_sums_and_standings_of_all_shards_are_put_together(reader: Reader, uploads: list[Upload]) -> None:
    """Each instance is asked for where it is."""
    keys = [uploads[number].destination.instance_key for number in range(6)]
    assert sum(reader.count(shard).counters["uploads_total", ""] for shard in range(reader.shards)) == 60
    assert reader.totals(frozenset({State.QUEUED})) == {State.QUEUED: Total(60, 300)}
    assert reader.oldest_at() == uploads[0].created_at
    assert [standing.instance_key for standing in reader.standings(keys)] == keys
    assert reader.ages(keys, (3600,), time.time(), 99) == [(10, 0)] * 6
    number, busiest = reader.busiest(4)
    assert (number, len(busiest), set(busiest) <= set(keys)) == (6, 4, True)


def test_action_in_several_shards_is_one(reader: Reader) -> None:
    """And the page ends where it should."""
    for number in range(3):
        for shard in range(SHARDS):
            reader.ask(shard, [Command(verb="hold", task_id=str(shard), asked_by="me", action_id=f"act_{number:032x}")])
    reader.ask(1, [Command(verb="retry", task_id="x", asked_by="you", action_id=f"act_{9:032x}")])

    def told(actions: list[ActionRecord]) -> list[tuple[str, int]]:
        return [(action.action_id[-1], action.tasks) for action in actions]

    assert told(reader.actions(None, 3)) == [("9", 1), ("2", 2), ("1", 2)]
    assert told(reader.actions(f"act_{1:032x}", 3)) == [("0", 2)]
    assert told(reader.actions(None, 1, "me")) == [("2", 2)]
