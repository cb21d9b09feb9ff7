"""Acting on tasks over HTTP: one service with a worker, asked as people and programs ask it."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from api.acting.selections import Selections, Step
from tests.support.client import Answer
from tests.support.service import Service
from tests.support.tokens import make_token
from tests.support.waiting import eventually


class Asked:
    """A service, asked by somebody."""

    def __init__(self, service: Service, token: str | None = None) -> None:
        self.service = service
        self.shown = {"Authorization": f"Bearer {token}"} if token else {}

    def ask(self, method: str, target: str, body: object = None, **headers: str) -> Answer:
        """Send a request, with JSON if there is a body."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.service.client.request(method, target, data, self.shown | headers)
        assert answer is not None
        return answer

    def act(self, task_id: str, verb: str, body: object = None) -> Answer:
        """POST an action."""
        return self.ask("POST", f"/v1/tasks/{task_id}/{verb}", body)

    def put(self, path: str, body: bytes = b"bytes", instance: str = "c1") -> str:
        """Upload; the task's id."""
        answer = self.service.client.put(instance, path, body, headers=self.shown, mkdirs="false")
        assert answer is not None
        assert answer.status == 202, answer.body
        return answer.task_id

    def state(self, task_id: str) -> str:
        """How a task stands."""
        return str(self.ask("GET", f"/v1/tasks/{task_id}").json["state"])

    def wait(self, task_id: str, state: str) -> str:
        """Wait until a task is in that state."""
        eventually(lambda: self.state(task_id) == state, what=f"{task_id} to be {state}")
        return task_id

    def dead(self, path: str, body: bytes = b"bytes", instance: str = "c1") -> str:
        """A dead letter: there is no such directory."""
        return self.wait(self.put(f"/missing{path}", body, instance), "failed")

    def preview(self, action: str, /, force: bool = False, **filters: object) -> Answer:
        """Ask for a preview."""
        wish = {"action": action, "filter": filters}
        return self.ask("POST", "/v1/tasks:preview", {**wish, "force": True} if force else wish)

    def apply(self, selection: str) -> Answer:
        """Apply a selection."""
        return self.ask("POST", "/v1/tasks:apply", {"selection": selection})


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose instance c1 is there, for all tests of the module."""
    with Service(tmp_path_factory.mktemp("acting"), {"queue": {"shards": 2}}) as made:
        for name in ("c1", "c2", "c3", "c4"):
            (made.layout.instances / name).mkdir(parents=True)
        # Nothing ever comes into an instance: what is not a dead letter stays deferred.
        yield made.start("push.rename=EIO")
        assert made.mistakes() == []


@pytest.fixture
def root(service: Service) -> Asked:
    """Who may do everything."""
    return Asked(service)


def test_one_task_is_cancelled_held_released_retried_and_deleted(root: Asked) -> None:
    """Each answers with the task as it is then; what does not fit its state is refused with a reason in words."""
    task = root.dead("/one")
    refused = root.act(task, "cancel")
    assert (refused.status, refused.code) == (409, "wrong_state")
    assert "delete removes a dead letter" in refused.json["detail"]
    assert root.act(task, "retry").json["id"] == task
    root.wait(task, "failed")
    assert root.act(task, "hold").code == "wrong_state"
    newer = root.dead("/one", b"newer")
    assert root.act(task, "retry").code == "newer_upload"
    assert root.act(task, "retry", {"force": True}).status == 200
    root.wait(task, "failed")
    assert root.ask("POST", f"/v1/tasks/{newer}/retry?force=true").status == 200
    root.wait(newer, "failed")
    deleted = root.ask("DELETE", f"/v1/tasks/{newer}")
    assert (deleted.status, deleted.json["state"]) == (200, "cancelled")
    eventually(lambda: root.ask("DELETE", f"/v1/tasks/{newer}").status == 204, what="the row to be forgotten")
    assert root.ask("DELETE", f"/v1/tasks/{newer}").code == "task_not_found"
    assert root.ask("PUT", f"/v1/tasks/{task}").headers["allow"] == "GET, DELETE, HEAD"


def test_asking_again_is_safe_and_is_no_failure(root: Asked) -> None:
    """Whose answer was lost asks again: the task is where he wants it."""
    task = root.wait(root.put("/x", instance="c2"), "deferred")
    for verb, state in (("hold", "held"), ("hold", "held"), ("cancel", "cancelled"), ("cancel", "cancelled")):
        answer = root.act(task, verb)
        assert (answer.status, answer.json["state"]) == (200, state)
    assert root.act(task, "release").code == "wrong_state"
    other = root.put("/y", instance="c2")
    assert root.act(other, "hold", {}).status == 200
    assert root.act(other, "release", {"force": False}).status == 200
    assert root.act(other, "cancel").status == 200


@pytest.mark.parametrize(("verb", "query", "body", "code"), [
    ("cancel", "", b'{"force": true}', "bad_action"), ("retry", "?force=maybe", None, "bad_flag"),
    ("retry", "?force=true", b'{"force": true}', "bad_action"), ("retry", "", b'{"force": 1}', "bad_action"),
    ("retry", "", b'{"all": true}', "bad_action"), ("hold", "", b"[]", "bad_json"), ("hold", "", b"{", "bad_json"),
    ("hold", "?why=so", None, "bad_query"), ("release", "", b" " * 20_000, "long_body"), ("flush", "", None, "not_found"),
])
def test_what_is_not_understood_is_refused(root: Asked, verb: str, query: str, body: bytes | None, code: str) -> None:
    """Nothing is done then, and each reason has a code."""
    assert root.ask("POST", f"/v1/tasks/{'0' * 8}-0000-0000-0000-{'0' * 12}/{verb}{query}", body).code == code


def test_rights_count_for_each_task(service: Service, root: Asked) -> None:
    """What somebody may not see is not there for him; what he may see, and not act on, is refused with the reason."""
    near, far = root.dead("/near", b"near"), root.dead("/far", b"far", instance="c2")
    one = Asked(service, make_token(service.config, "one", may=["read", "cancel", "save"], instances=["c1"]))
    blind = Asked(service, make_token(service.config, "blind", may=["delete"], instances=["c1"]))
    eventually(lambda: one.ask("GET", f"/v1/tasks/{near}").status == 200, what="the tokens to be known")
    eventually(lambda: blind.act(near, "cancel").status == 404, what="the tokens to be known")
    assert [one.act(task, "retry").code for task in (near, far)] == ["action_not_allowed", "task_not_found"]
    assert [one.act(task, "cancel").code for task in (near, far)] == ["wrong_state", "task_not_found"]
    assert [one.ask("GET", f"/v1/tasks/{task}/content").status for task in (near, far)] == [200, 404]
    assert [blind.ask("GET", f"/v1/tasks/{task}/content").status for task in (near, far)] == [404, 404]
    assert one.preview("retry").code == one.preview("delete").code == blind.preview("delete").code == "action_not_allowed"
    # Who may act without seeing knows no more of it than that.
    assert blind.ask("DELETE", f"/v1/tasks/{near}").json == {"id": near, "state": "cancelled"}
    own = Asked(service, make_token(service.config, "own", may=["upload", "read", "delete", "delegate"], own=True))
    eventually(lambda: own.ask("GET", "/v1/tasks").status == 200, what="the token to be known")
    mine = own.dead("/mine")
    assert own.preview("delete").json["count"] == 1
    selection = own.preview("delete").json["selection"]
    for other in (root, one):
        assert other.ask("GET", f"/v1/selections/{selection}").code == "selection_not_found"
        assert other.apply(selection).code == "selection_not_found"
    assert own.apply(selection).json["changed"] == 1
    assert own.state(mine) == "cancelled"
    assert root.state(far) == "failed"


def test_a_selection_touches_what_its_preview_showed_and_nothing_else(root: Asked) -> None:
    """What came later stays, what has changed is skipped, and applying it again does nothing twice."""
    tasks = [root.dead(f"/several/{number}", bytes(number), instance=f"c{1 + number % 3}") for number in range(6)]
    shown = root.preview("delete", state=["failed", "held"], before="2100-01-01T00:00:00Z").json
    assert (shown["state"], shown["cut"], len(shown["samples"])) == ("previewed", False, 5)
    assert shown["count"] >= 6
    assert {task["state"] for task in shown["samples"]} == {"failed"}
    [only] = [root.preview("delete", instance="c2", state="failed").json]
    mine = {task["id"] for task in only["samples"]} & set(tasks)
    assert mine == {tasks[1], tasks[4]}
    later = root.dead("/several/later", instance="c2")
    assert root.act(tasks[1], "retry").status == 200
    root.wait(tasks[1], "failed")
    assert root.ask("DELETE", f"/v1/tasks/{tasks[4]}").status == 200
    applied = root.apply(only["selection"])
    assert applied.status == 200
    assert (applied.json["state"], applied.json["left"]) == ("applied", 0)
    assert (applied.json["skipped"], applied.json["refused"]) == (1, 0)
    assert applied.json["changed"] == only["count"] - 1
    assert [root.state(task) for task in (tasks[1], later, tasks[0])] == ["cancelled", "failed", "failed"]
    again = root.apply(only["selection"]).json
    counts = ("changed", "skipped", "refused", "left")
    assert [again[name] for name in counts] == [applied.json[name] for name in counts]
    assert root.ask("GET", f"/v1/selections/{only['selection']}").json == again
    assert root.preview("hold", state="failed").json["count"] == 0
    newer = [root.dead(f"/over/{number}", body) for number in range(2) for body in (b"old", b"new")]
    forced = root.apply(root.preview("retry", force=True, state="failed", instance="c1").json["selection"]).json
    assert forced["refused"] == 0
    for task in newer:
        root.wait(task, "failed")
    gentle = root.apply(root.preview("retry", state="failed", instance="c1").json["selection"]).json
    assert gentle["refused"] >= 2
    assert gentle["changed"] + gentle["refused"] == gentle["count"]


def test_a_selection_may_be_of_tasks_that_are_named(service: Service, root: Asked) -> None:
    """Of these it has those in a fitting state that are seen; what is done with them is one action."""
    tasks = [root.dead(f"/named/{number}", bytes(number), instance=f"c{1 + number % 2}") for number in range(4)]
    named = [*tasks[:3], root.put("/held", b"", "c3"), "0" * 8 + "-0000-7000-8000-" + "0" * 12]
    shown = root.preview("retry", ids=named, state=["failed"]).json
    assert (shown["count"], {task["id"] for task in shown["samples"]}) == (3, set(tasks[:3]))
    near = Asked(service, make_token(service.config, "near", may=["read", "retry"], instances=["c1"]))
    eventually(lambda: near.ask("GET", "/v1/tasks").status == 200, what="the token to be known")
    assert near.preview("retry", ids=named, state=["failed"]).json["count"] == 2
    before = root.ask("GET", "/v1/actions").json["actions"]
    assert root.apply(shown["selection"]).json["changed"] == 3
    after = root.ask("GET", "/v1/actions").json["actions"]
    assert [one for one in after if one not in before] == [after[0]]
    assert (after[0]["tasks"], after[0]["what"]) == (3, {"selection": shown["selection"]})


@pytest.mark.parametrize("body", [
    b"", b"[]", b"{}", b'{"action": "flush", "filter": {}}', b'{"action": "cancel"}', b'{"action": ["cancel"], "filter": {}}',
    b'{"action": "cancel", "filter": {}, "force": true}', b'{"action": "retry", "filter": {}, "force": "yes"}',
    b'{"action": "cancel", "filter": {"where": "/x"}}', b'{"action": "cancel", "filter": {"state": "lost"}}',
    b'{"action": "cancel", "filter": {"state": []}}', b'{"action": "cancel", "filter": {"state": [1]}}',
    b'{"action": "cancel", "filter": {"before": "2030-01-31"}}', b'{"action": "cancel", "filter": {"before": 7}}',
    b'{"action": "cancel", "filter": {"before": "9999-12-31T23:59:59-23:59"}}', b'{"action": "cancel", "filter": []}',
    b'{"action": "cancel", "filter": {"instance": "a b"}}', b'{"action": "cancel", "filter": {"project": "p"}}',
    b'{"action": "cancel", "filter": {"client": "\\ud800"}}', b'{"action": "cancel", "filter": {"instance": "x:c1"}}',
    b'{"action": "cancel", "filter": {"before": "0001-01-01T00:00:00+00:00"}}', b'{"action": "cancel", "filter": {"ids": []}}',
    b'{"action": "cancel", "filter": {"ids": ["x"]}}', b'{"action": "cancel", "filter": {"ids": "x"}}',
    b'{"action": "cancel", "filter": {"ids": ["01a22b8a-6577-75f8-a2c7-bcb4183ec3b2"], "path": "/x"}}',
])
def test_a_preview_that_is_not_understood_is_refused(root: Asked, body: bytes) -> None:
    """Nothing is kept of it."""
    refused = root.ask("POST", "/v1/tasks:preview", body)
    assert (refused.status, refused.code in {"bad_json", "bad_action", "bad_instance", "unknown_remote"}) == (400, True)


def test_a_selection_that_is_none_is_not_found(root: Asked) -> None:
    """Whatever its id looks like."""
    for name in ("x", "../handed-on", "0" * 32, "\u00fc"):
        assert root.apply(name).code == "selection_not_found"
    assert root.ask("POST", "/v1/tasks:apply", {"selection": 7}).code == "bad_action"
    assert root.ask("GET", f"/v1/selections/{'0' * 32}").code == "selection_not_found"


def test_an_identity_has_a_few_selections_and_the_oldest_make_way(root: Asked) -> None:
    """So whoever asks for one preview after the other fills nothing."""
    made = [root.preview("cancel").json["selection"] for _ in range(6)]
    assert [root.ask("GET", f"/v1/selections/{one}").status for one in made] == [404, 404, 200, 200, 200, 200]
    files = root.service.layout.selections
    assert files.stat().st_mode & 0o777 == 0o700
    assert {file.name for file in files.iterdir()} & set(made) == set(made[2:])


def test_bytes_of_dead_letters_and_of_held_tasks_are_handed_out(root: Asked) -> None:
    """As an attachment that nobody shows, whole, with its digest; HEAD tells the same; a range is not made."""
    body = bytes(range(256)) * 3000
    task = root.dead("/\u00fcber \"x\";.html", body)
    got, head = root.ask("GET", f"/v1/tasks/{task}/content", Range="bytes=5-9"), root.ask("HEAD", f"/v1/tasks/{task}/content")
    assert (got.status, got.body) == (200, body)
    assert (head.status, head.body) == (200, b"")
    assert got.headers["content-disposition"] == (
        "attachment; filename=\"_ber _x__.html\"; filename*=UTF-8''%C3%BCber%20%22x%22%3B.html")
    told = [{name: value for name, value in answer.headers.items() if name != "date"} for answer in (got, head)]
    assert told[0] == told[1]
    assert told[0]["content-length"] == str(len(body))
    assert told[0]["x-content-type-options"] == "nosniff"
    assert told[0]["repr-digest"].startswith("sha-256=:")
    assert told[0]["content-type"] == "application/octet-stream"
    empty = root.put("/empty", b"", instance="c2")
    assert root.ask("GET", f"/v1/tasks/{empty}/content").code == "wrong_state"
    assert root.act(empty, "hold").status == 200
    assert root.ask("GET", f"/v1/tasks/{empty}/content").body == b""
    assert root.act(empty, "cancel").status == 200
    assert root.ask("PUT", f"/v1/tasks/{task}/content", b"").headers["allow"] == "GET, HEAD"
    [saved, *_] = [event for event in root.service.events("task.saved") if event["task_id"] == task]
    assert saved["by"].startswith(("local:", "anonymous"))


def test_bytes_that_are_damaged_or_gone_are_not_taken_for_the_file(root: Asked) -> None:
    """Damage ends the connection before the last piece; what is missing is told."""
    task = root.dead("/damaged", bytes(2**20))
    [file] = root.service.layout.spool.rglob(f"{task}*")
    with file.open("r+b") as spooled:
        spooled.seek(2**19)
        spooled.write(b"!")
    assert root.service.client.request("GET", f"/v1/tasks/{task}/content") is None
    assert eventually(lambda: root.service.events("content.cut_off"), what="the damage to be logged")
    kept = file.rename(file.with_name("elsewhere"))
    assert root.ask("GET", f"/v1/tasks/{task}/content").code == "bytes_gone"
    kept.rename(file)
    file.write_bytes(b"nothing")
    assert root.ask("GET", f"/v1/tasks/{task}/content").code == "bytes_unreadable"


def test_without_a_worker_it_is_kept_and_done_later(service: Service, root: Asked) -> None:
    """202 says that it is on the disk. A selection waits likewise, and goes on."""
    tasks = [root.dead(f"/later/{number}", instance="c3") for number in range(3)]
    service.kill("worker-0", "worker-1")
    answer = root.act(tasks[0], "retry", {"force": True})
    assert (answer.status, answer.json["status"], answer.json["task"]["id"]) == (202, "asked", tasks[0])
    assert answer.headers["location"] == f"/v1/tasks/{tasks[0]}"
    shown = root.preview("delete", instance="c3").json
    waiting = root.apply(shown["selection"])
    assert (waiting.status, waiting.json["state"], waiting.json["left"]) == (202, "interrupted", shown["count"])
    assert "apply the selection again" in waiting.json["detail"]
    service.start()
    applied: Any = eventually(lambda: (found := root.apply(shown["selection"])).status == 200 and found.json, what="the rest")
    assert applied["changed"] + applied["skipped"] == shown["count"]
    assert {root.state(task) for task in tasks[1:]} == {"cancelled"}


@pytest.mark.parametrize("fault", ["selection.note=kill@2", pytest.param("selection.note=kill@1", marks=pytest.mark.full)])
def test_whoever_dies_while_it_applies_a_selection_has_nobody_asked_twice(service: Service, root: Asked, fault: str) -> None:
    """Before the worker is asked, or before its answers are noted: applied again, the rest is done, and each task once."""
    tasks = [root.dead(f"/dying/{number}", instance="c4") for number in range(3)]
    wanted = root.preview("retry", force=True, state="failed", instance="c4").json
    service.kill("api")
    service.begin("api", fault)
    service.wait_ready()
    commanded = len(service.events("task.commanded"))
    asked = {"selection": wanted["selection"]}
    assert service.client.request("POST", "/v1/tasks:apply", json.dumps(asked).encode()) is None
    service.kill("api")
    service.start()
    found = root.ask("GET", f"/v1/selections/{wanted['selection']}").json
    assert (found["state"], found["changed"]) == ("previewed" if fault.endswith("1") else "interrupted", 0)
    applied = root.apply(wanted["selection"])
    assert (applied.status, applied.json["changed"]) == (200, wanted["count"])
    done = [event["task_id"] for event in service.events("task.commanded")[commanded:]]
    assert len(done) == wanted["count"]
    assert set(tasks) <= set(done)
    for task in tasks:
        root.wait(task, "failed")
    assert root.apply(root.preview("delete", instance="c4").json["selection"]).status == 200


def test_what_was_noted_and_never_asked_is_asked(service: Service, root: Asked) -> None:
    """A note is written first: the commands may not have come into the queue, or have gone with its database."""
    task = root.dead("/noted", instance="c4")
    wanted = root.preview("delete", instance="c4").json
    taken = Selections(service.layout, service.shards).take(wanted["selection"], service_name(root))
    assert taken is not None
    [shard] = taken.selection.members
    under_way = root.apply(wanted["selection"])
    assert (under_way.status, under_way.json["state"]) == (202, "applying")
    taken.note(shard, Step(asked_at=time.time(), asked_skipped=1))
    taken.close()
    assert [root.apply(wanted["selection"]).json[name] for name in ("state", "changed", "skipped")] == ["applied", 1, 0]
    assert root.state(task) == "cancelled"


def service_name(asked: Asked) -> str:
    """The name that somebody has there."""
    files = asked.service.layout.selections.iterdir()
    return str(json.loads(max(files, key=lambda file: file.stat().st_mtime).read_bytes().partition(b"\n")[0])["owner"])
