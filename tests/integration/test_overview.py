"""What an operator sees: one service with workers, asked as people and programs ask it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.client import Answer
from tests.support.described import undescribed
from tests.support.service import Service
from tests.support.tokens import make_token
from tests.support.waiting import eventually


class Seen:
    """A service, as somebody sees it."""

    def __init__(self, service: Service, token: str | None = None) -> None:
        self._service = service
        self._shown = {"Authorization": f"Bearer {token}"} if token else {}

    def ask(self, target: str, method: str = "GET", body: object = None) -> Answer:
        """Ask for something; what is answered is what is described."""
        data = None if body is None else json.dumps(body).encode()
        answer = self._service.client.request(method, target, data, self._shown | {"Content-Type": "application/json"})
        assert answer is not None
        assert undescribed(method, target, answer.status, answer.headers, answer.body) is None
        return answer

    def put(self, path: str, instance: str = "c1", **headers: str) -> str:
        """Upload; the task's id."""
        answer = self._service.client.put(instance, path, b"bytes", headers=self._shown | headers, mkdirs="false")
        assert answer is not None
        assert answer.status == 202, answer.body
        return answer.task_id

    def wait(self, task_id: str, state: str) -> str:
        """Wait until a task is in that state."""
        eventually(lambda: self.get(f"/v1/tasks/{task_id}")["state"] == state, what=f"{task_id} to be {state}")
        return task_id

    def get(self, target: str) -> Any:
        """The JSON of an answer."""
        answer = self.ask(target)
        assert answer.status == 200, answer.body
        return answer.json


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose disk is broken where its instances are."""
    with Service(tmp_path_factory.mktemp("overview"), {"queue": {"shards": 2}, "retry": {"first_delay_s": 600, "max_delay_s": 600}}) as made:
        for name in ("c1", "c2"):
            (made.layout.instances / name / "there").mkdir(parents=True)
        # Nothing ever comes into an instance: what is not a dead letter stays deferred.
        yield made.start("push.rename=EIO")
        assert made.mistakes() == []


@pytest.fixture(scope="module")
def root(service: Service) -> Seen:
    """Who may do everything, when something has failed for one instance, and something waits for another."""
    seen = Seen(service, make_token(service.config, "root", may=["admin"]))
    eventually(lambda: seen.ask("/v1/me").status == 200, what="the token to be known")
    seen.wait(seen.put("/missing/b"), "failed")
    for path in ("/there/0", "/there/1", "/there/2"):
        seen.wait(seen.put(path, "c2"), "deferred")
    return seen


def test_overview_tells_how_the_whole_stands_and_what_needs_a_person(root: Seen) -> None:
    """Counts, room, shards, remotes, the hour; and first what holds most up, last what can wait."""
    def told() -> Any:
        found = root.get("/v1/overview")
        return found if any(problem["instance"] == "c2" for problem in found["problems"]) else None

    found = eventually(told, what="what is stuck")
    assert {state: total["tasks"] for state, total in found["counts"].items() if total["tasks"]} == {
        "deferred": 3, "failed": 1}
    assert (found["disk"]["spool_bytes"], found["partials"]) == (20, {"number": 0, "bytes": 0})
    assert found["disk"]["free_bytes"] <= found["disk"]["total_bytes"]
    assert [shard["worker"] is not None and shard["fault"] is None for shard in found["shards"]] == [True, True]
    assert len(found["history"]["uploads"]) == len(found["history"]["waiting"]) == 360
    stuck, *others, last = found["problems"]
    assert (stuck["code"], stuck["instance"]) == ("io_error", "c2")
    assert stuck["message"].startswith("3 tasks wait.")
    assert "check the disk" in stuck["hint"]
    assert (last["code"], last["message"]) == ("dead_letters", "One upload is a dead letter.")
    assert [problem["instance"] for problem in others] == ["c1"]


def test_instances_are_told_with_those_first_that_most_waits_for(root: Seen) -> None:
    """Each with its ages and why; page by page; one by itself with its explanation."""
    found = root.get("/v1/instances")
    assert [(row["name"], row["waiting"], row["ages"][0]) for row in found["instances"]] == [("c2", 3, 3), ("c1", 0, 0)]
    assert (found["more"], found["next"], len(found["bounds_s"])) == (0, None, len(found["instances"][0]["ages"]) - 1)
    first = root.get("/v1/instances?limit=1")
    assert (first["more"], first["next"]) == (1, "/v1/instances?limit=1&after=3/local/default/c2")
    second = root.get(first["next"])
    assert ([row["name"] for row in second["instances"]], second["next"]) == (["c1"], None)
    one = root.get("/v1/instances/c2")
    assert (one["stuck"], one["explanation"]["error"]["code"], one["explanation"]["waiting"]) == (True, "io_error", 3)
    unknown = root.get("/v1/instances/nothing-there?project=other")
    assert (unknown["waiting"], unknown["stuck"], unknown["project"]) == (0, False, "other")
    for wrong in ("?after=x", "?limit=0", "?after=1/a/b", "/-bad", "/far:c1", "/c1?project=.x"):
        assert root.ask(f"/v1/instances{wrong}").status == 400


def test_task_is_explained_to_who_may_see_it(service: Service, root: Seen) -> None:
    """In words, with what unblocks it; for others it does not exist."""
    [task, *_] = root.get("/v1/tasks?instance=c2")["tasks"]
    found = root.get(f"/v1/tasks/{task['id']}/explanation")
    assert (found["stuck"], found["error"]["code"]) == (True, "io_error")
    other = Seen(service, make_token(service.config, "other", may=["read"], instances=["c1"]))
    eventually(lambda: other.ask("/v1/me").status == 200, what="the token to be known")
    assert other.ask(f"/v1/tasks/{task['id']}/explanation").code == "task_not_found"


def test_tasks_are_found_by_path_error_and_time(root: Seen) -> None:
    """All that is asked for has to be so; also where tasks are chosen to act on them."""
    def paths(query: str) -> list[str]:
        return [task["path"] for task in root.get(f"/v1/tasks?{query}")["tasks"]]

    assert paths("path=missing") == ["/missing/b"]
    assert paths("path=/there/*&instance=c2") == ["/there/2", "/there/1", "/there/0"]
    assert paths("error=parent_not_found&since=2020-01-01T00:00:00Z") == ["/missing/b"]
    assert paths("until=2020-01-01T00:00:00Z") == paths("path=nowhere") == paths("since=2100-01-01T00:00:00Z") == []
    assert root.ask("/v1/tasks?path=/a/../*").code == root.ask("/v1/tasks?since=2020-01-01").code == "bad_query"
    chosen = root.ask("/v1/tasks:preview", "POST", {"action": "retry", "filter": {"path": "missing", "since": "2020-01-01T00:00:00Z"}})
    assert chosen.json["count"] == 1
    wrong = root.ask("/v1/tasks:preview", "POST", {"action": "retry", "filter": {"path": "\ud800"}})
    assert wrong.code == "bad_action"


def test_what_people_did_is_told_newest_first(service: Service, root: Seen) -> None:
    """Who may see all tasks is told of all, others of what they did themselves."""
    hand = Seen(service, make_token(service.config, "hand", may=["read", "hold"], instances=["c2"]))
    eventually(lambda: hand.ask("/v1/me").status == 200, what="the token to be known")
    [first, second, _] = [task["id"] for task in root.get("/v1/tasks?instance=c2")["tasks"]]
    assert root.ask(f"/v1/tasks/{first}/hold", "POST").status == 200
    assert hand.ask(f"/v1/tasks/{second}/hold", "POST").status == 200
    all_of_them = root.get("/v1/actions")["actions"]
    assert [(one["by"], one["verb"], one["what"], one["changed"]) for one in all_of_them[:2]] == [
        ("token:hand", "hold", {"task_id": second}, 1), ("token:root", "hold", {"task_id": first}, 1)]
    assert [one["action_id"] for one in hand.get("/v1/actions")["actions"]] == [all_of_them[0]["action_id"]]
    page = root.get("/v1/actions?limit=1")
    assert root.get(page["next"])["actions"][0]["action_id"] == all_of_them[1]["action_id"]
    assert root.ask("/v1/actions?after=x").code == "bad_query"
    for task in (first, second):
        root.ask(f"/v1/tasks/{task}/release", "POST")


@pytest.mark.parametrize(("name", "keys", "overview", "instances", "one"), [
    ("reader", {"may": ["read"]}, 200, ["c2", "c1"], 200), ("of-c1", {"may": ["read"], "instances": ["c1"]}, 403, ["c1"], 403),
    ("of-paths", {"may": ["read"], "paths": ["/there/**"]}, 403, None, 403), ("own", {"may": ["read"], "own": True}, 403, None, 403),
    ("uploader", {"may": ["upload"]}, 403, None, 403)])
def test_whole_is_told_as_far_as_somebody_may_see_it(
    service: Service, root: Seen, name: str, keys: dict[str, Any], overview: int, instances: list[str] | None, one: int,
) -> None:
    """The whole is for who sees all tasks; instances are for who sees all of theirs."""
    seen = Seen(service, make_token(service.config, name, **keys))
    eventually(lambda: seen.ask("/v1/me").status == 200, what="the token to be known")
    assert seen.ask("/v1/overview").status == overview
    listed = seen.ask("/v1/instances")
    assert listed.status == (403 if instances is None else 200)
    if instances is not None:
        assert [row["name"] for row in listed.json["instances"]] == instances
    assert seen.ask("/v1/instances/c2").status == one
    assert seen.get("/v1/me")["sees_all"] is (overview == 200)


def test_metrics_are_for_who_may_have_them(service: Service, root: Seen) -> None:
    """They have what was counted and how all stands now, in the format that is asked for."""
    scraper = Seen(service, make_token(service.config, "scraper", may=["metrics"]))
    eventually(lambda: scraper.ask("/v1/me").status == 200, what="the token to be known")
    reader = Seen(service, make_token(service.config, "no-scraper", may=["read"]))
    eventually(lambda: reader.ask("/v1/me").status == 200, what="the token to be known")
    answer = scraper.ask("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = dict(line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if not line.startswith("#"))
    assert float(lines["incus_courier_uploads_total"]) > 0
    assert float(lines['incus_courier_worker_up{shard="1"}']) == 1
    assert float(lines["incus_courier_connections"]) >= 1
    assert float(lines['incus_courier_instance_tasks{instance="c2"}']) > 0
    assert reader.ask("/metrics").code == "action_not_allowed"
    assert scraper.ask("/metrics?x=1").code == "bad_query"


def test_trace_of_an_upload_stands_in_all_lines_of_its_task(service: Service, root: Seen) -> None:
    """From its acceptance to its end, in whichever process."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    task_id = root.wait(root.put("/missing/traced", traceparent=trace), "failed")
    lines = eventually(lambda: _with_end([event for event in service.events() if event.get("task_id") == task_id]), what="its last line")
    assert {event["event"] for event in lines} >= {"upload.accepted", "push.started", "push.failed"}
    assert {event.get("traceparent") for event in lines} == {trace}


def _with_end(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return lines if any(event["event"] == "push.failed" for event in lines) else []


def test_counters_neither_go_back_nor_hide_what_cannot_be_read(service: Service, root: Seen) -> None:
    """A process that is killed takes nothing back; while a shard is damaged its counters are gone, not less."""
    def shown() -> dict[str, float]:
        text = root.ask("/metrics").body.decode()
        return {name: float(value) for name, value in
                (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))}

    refused, accepted = 'incus_courier_refusals_total{code="bad_path"}', "incus_courier_accept_seconds_count"
    assert root.ask("/v1/instances/c1/files/a/../b", "PUT").code == "bad_path"
    eventually(lambda: shown().get(refused), what="the refusal to be counted")
    before = shown()
    assert before[accepted] == before['incus_courier_accepted_total{result="new"}'] >= 4
    assert before["incus_courier_received_bytes_total"] >= 20
    service.kill("api")
    service.start()
    after = shown()
    assert {name for name, value in before.items() if "_total" in name and after[name] < value} == set()
    assert service.layout.counted(0).stat().st_mode & 0o777 == 0o600

    service.kill("worker-1")
    service.layout.database(1).unlink()
    service.layout.database(1).write_bytes(b"no database at all" * 1000)
    eventually(lambda: shown()['incus_courier_shard_readable{shard="1"}'] == 0, what="the damage to be seen")
    damaged = shown()
    assert "incus_courier_uploads_total" not in damaged
    assert damaged[accepted] >= after[accepted]
    assert damaged['incus_courier_shard_readable{shard="0"}'] == 1
