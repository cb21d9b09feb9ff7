"""Questions about tasks."""

from dataclasses import replace
from typing import Any

import pytest

from api.http.response import json_bytes
from api.queries.task_query import MAX_PAGE_BYTES, Looked, Question, describe_page, merge, read_question
from daemon.config import Config, Remote
from daemon.errors import Rejected
from daemon.model.task import Attempt, State, Task
from daemon.model.upload import Destination, Upload
from daemon.model.view import describe, describe_whole

CONFIG = Config(remotes={"far": Remote(endpoint="https://far:8443", project="p2")})


def task(number: int, **values: Any) -> Task:
    """A task whose id tells its number."""
    upload = Upload(task_id=f"00000000-0000-7000-8000-{number:012}", destination=Destination("local", "default", "c1", "/a"),
                    size=1, sha256="0" * 64, created_at=1_700_000_000.5)
    defaults: dict[str, Any] = {"order": number, "upload": upload, "state": State.QUEUED, "updated_at": 1_700_000_001.0}
    return Task(**{**defaults, **values})


def test_question_has_defaults_when_nothing_is_asked_for() -> None:
    """The newest hundred of all."""
    assert read_question(b"", CONFIG) == Question()


def test_question_is_read_from_the_query() -> None:
    """States, an instance with its remote's project, a client, a limit and a cursor."""
    after = task(1).task_id
    question = read_question(f"state=queued,failed&instance=far:c1&client=token:ci&limit=7&after={after}".encode(), CONFIG)
    assert question.states == {State.QUEUED, State.FAILED}
    assert question.instance_key == "far/p2/c1"
    assert (question.client, question.limit, question.after) == ("token:ci", 7, after)


@pytest.mark.parametrize("query", [
    "state=", "state=queued,", "state=QUEUED", "limit=0", "limit=1001", "limit=00001", "limit=-1", "limit=%D9%A1",
    "path=", "path=a%0Ab", "path=/a/../*", "path=/a//*", "path=" + 1025 * "a", "error=", "error=A", "since=1", "until=",
    "since=2030-01-31T12:00:00", "until=2030-13-31T12:00:00Z", "after=", "after=x", "project=p", "client=", "client=a%0Ab", "a=b", "limit=1&limit=2",
])
def test_question_is_refused_when_it_makes_no_sense(query: str) -> None:
    """A misspelt question is not answered with something else."""
    with pytest.raises(Rejected, check=lambda error: error.code == "bad_query"):
        read_question(query.encode(), CONFIG)


def test_question_goes_to_one_shard_when_the_instance_is_known() -> None:
    """An instance's tasks are in one shard; without an instance all are asked."""
    assert len(read_question(b"instance=c1", CONFIG).shards(4)) == 1
    assert list(Question().shards(4)) == [0, 1, 2, 3]


def test_pages_of_shards_are_merged_newest_first() -> None:
    """As if there were one shard."""
    merged = merge([[task(5), task(2)], [task(4), task(3), task(3).task_id, task(1)]])
    assert [found if isinstance(found, str) else found.order for found in merged] == [5, 4, 3, task(3).task_id, 2, 1]


def test_page_ends_when_its_time_is_over_and_leads_to_what_was_not_looked_at() -> None:
    """With what was found so far, perhaps nothing: a rare task among a million holds nobody up."""
    looked: list[Looked] = [task(9), task(7).task_id, task(5), task(3).task_id]
    assert describe_page(looked, Question())["next"] is None
    early = describe_page(looked, Question(), is_over=lambda: True)
    assert ([one["id"] for one in early["tasks"]], early["next"]) == ([task(9).task_id], f"/v1/tasks?after={task(7).task_id}")
    assert describe_page([task(7).task_id], Question(), is_over=lambda: True)["tasks"] == []


def test_page_leads_to_the_next_one_when_it_is_full() -> None:
    """The address keeps the question and moves the cursor."""
    question = read_question(f"state=queued&limit=2&after={task(9).task_id}".encode(), CONFIG)
    page = describe_page([task(8), task(7)], question)
    assert page["next"] == f"/v1/tasks?state=queued&limit=2&after={task(7).task_id}"
    assert describe_page([task(6)], question)["next"] is None
    assert describe_page([], question)["next"] is None


def test_page_ends_before_its_limit_when_it_has_many_bytes() -> None:
    """Paths may be long: the rest is on the next page, and no more is read than is shown."""
    long = Destination("local", "default", "c1", "/" + "d" * 250)
    tasks = (task(number, upload=replace(task(number).upload, destination=long)) for number in range(10**6, 0, -1))
    page = describe_page(tasks, Question(limit=10**6))
    assert MAX_PAGE_BYTES <= len(json_bytes(page)) < MAX_PAGE_BYTES + 10_000
    assert page["next"] == f"/v1/tasks?after={page['tasks'][-1]['id']}"
    assert next(tasks).task_id < page["tasks"][-1]["id"]


def test_task_is_described_with_times_and_error() -> None:
    """Times in UTC with milliseconds; an error with its code and message."""
    described = describe(task(1, state=State.DEFERRED, attempts=2, due_at=1_700_000_002.25, error_code="stalled",
                              error_message="No."))
    assert (described["created_at"], described["next_attempt_at"]) == ("2023-11-14T22:13:20.500Z", "2023-11-14T22:13:22.250Z")
    assert (described["state"], described["attempts"]) == ("deferred", 2)
    assert described["error"] == {"code": "stalled", "message": "No."}


def test_task_by_itself_is_described_with_its_last_attempts_and_a_receipt() -> None:
    """The receipt comes with the outcome: what the file has become, as far as that is known, and when. Lists have neither."""
    failed = Attempt(at=1_700_000_002.0, duration_s=1.5, code="stalled", message="No.")
    waits = describe_whole(task(1, state=State.DEFERRED, attempts=1, history=(failed,)))
    assert waits["history"] == [
        {"at": "2023-11-14T22:13:22.000Z", "duration_s": 1.5, "code": "stalled", "message": "No."}]
    assert waits["receipt"] is None
    done = Attempt(at=1_700_000_009.0, duration_s=0.25, way="sftp", mode=0o640, uid=0, gid=5)
    sent = replace(task(1).upload, client="token:ci")
    delivered = describe_whole(task(1, upload=sent, state=State.DELIVERED, attempts=2, history=(failed, done)))
    assert delivered["receipt"] == {
        "sha256": sent.sha256, "size": sent.size, "mode": "0640", "uid": 0, "gid": 5, "way": "sftp", "attempts": 2,
        "client": "token:ci", "accepted_at": delivered["created_at"], "last_attempt_at": "2023-11-14T22:13:28.750Z",
        "delivered_at": "2023-11-14T22:13:29.000Z"}
    nobody_knows = describe_whole(task(1, state=State.DELIVERED, updated_at=1_700_000_003.0))["receipt"]
    assert (nobody_knows["delivered_at"], nobody_knows["last_attempt_at"], nobody_knows["mode"]) == (
        "2023-11-14T22:13:23.000Z", None, None)
    dead = describe_whole(task(1, state=State.FAILED, attempts=1, history=(failed,)))["receipt"]
    assert (dead["delivered_at"], dead["last_attempt_at"]) == (None, "2023-11-14T22:13:20.500Z")
    assert not {"history", "receipt"} & describe(task(1)).keys()


def test_task_is_described_with_its_client() -> None:
    """None where nobody can be named."""
    sent = task(1, upload=replace(task(1).upload, client="token:ci"))
    assert (describe(sent)["client"], describe(task(2))["client"]) == ("token:ci", None)
