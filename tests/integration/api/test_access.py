"""Who may do what at a real API process: tokens, strangers, and what somebody sees of the others."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from tests.integration.api.running import Api, Reply, wait_until
from tests.support.identity import User
from tests.support.tokens import change_token, make_token, revoke_token

Start = Callable[..., Api]


class Client:
    """Somebody with a token, or without one."""

    def __init__(self, api: Api, token: str | None = None) -> None:
        self.api = api
        self.token = token

    def ask(self, method: str, target: str, body: bytes | Iterator[bytes] | None = None, **headers: str) -> Reply:
        """Send one request."""
        shown = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return self.api.ask(method, target, body, **shown, **headers)

    def put(self, instance: str, path: str, query: str = "", body: bytes | Iterator[bytes] = b"x", **headers: str) -> Reply:
        """Upload."""
        return self.ask("PUT", f"/v1/instances/{instance}/files{path}{'?' if query else ''}{query}", body, **headers)

    def tasks(self, query: str = "") -> list[str]:
        """The ids of the tasks that are listed."""
        return [task["id"] for task in self.ask("GET", f"/v1/tasks?{query}").json()["tasks"]]


class House:
    """An API process with three tokens: A uploads below /srv of web instances, B elsewhere, C only reads."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.stranger = Client(api)
        self.before = self.stranger.put("web-1", "/srv/before")
        both = ["upload", "read"]
        self.a = Client(api, make_token(api.file, "a", may=both, instances=["web-*"], paths=["/srv/**"], max_file_bytes=1000,
                                        projects=["default"]))
        self.b = Client(api, make_token(api.file, "b", may=both, instances=["db-*"]))
        self.c = Client(api, make_token(api.file, "c", may=["read"]))
        self.own = Client(api, make_token(api.file, "own", may=both, own=True))
        # The last one that was made: with it all are.
        wait_until(lambda: self.own.ask("GET", "/v1/tasks").status == 200, "the tokens to be in force")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One process and its tokens for the tests of this module."""
    with Api(tmp_path_factory.mktemp("house"), {"remotes.eu": {"endpoint": "https://eu:8443"}}, {}) as api:
        yield House(api.started())


def test_strangers_are_let_in_until_somebody_has_rights(house: House) -> None:
    """On loopback everything goes without a credential, until the first token is made; then nothing does."""
    assert house.before.status == 202
    refused = house.stranger.put("web-1", "/srv/x")
    assert (refused.status, refused.code) == (401, "no_credential")
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert house.stranger.ask("GET", "/v1/tasks").status == 401
    assert house.stranger.ask("GET", "/nothing/here").status == 401
    assert house.api.post("/srv/x").status == 401


def test_nobody_needs_a_credential_to_ask_how_the_service_is(house: House) -> None:
    """Whether it is up, and whether it is ready, everybody is told; why it is not, and of whom it is made, nobody without rights."""
    for client in (house.stranger, house.a, Client(house.api, "icour_wrong")):
        assert client.ask("GET", "/healthz").json() == {"status": "up"}
        assert client.ask("GET", "/readyz").json() == {"ready": False}
    full = Client(house.api, make_token(house.api.file, "watcher", may=["metrics"]))
    wait_until(lambda: "shards" in full.ask("GET", "/readyz").json(), "the new token")
    assert [reason["code"] for reason in full.ask("GET", "/readyz").json()["reasons"]] == ["no_worker"] * 2


def test_what_the_service_s_own_errors_say_is_for_who_may_see_the_whole(house: House) -> None:
    """It may name files and addresses of the host. Others are told what is the matter, and what unblocks it."""
    task_id = house.b.put("db-1", "/explained").json()["id"]
    for address in (f"/v1/tasks/{task_id}/explanation", "/v1/instances/db-1"):
        told = [client.ask("GET", address).json() for client in (house.b, house.c)]
        bounded, whole = [found.get("explanation", found) for found in told]
        assert (bounded["error"]["code"], bounded["error"]["message"]) == ("no_worker", None)
        assert whole["error"]["message"]
        assert (bounded["summary"], bounded["unblocks"]) == (whole["summary"], whole["unblocks"])


@pytest.mark.parametrize("value", [
    "Bearer", "Bearer ", "Bearer x", "Basic YTpi", "Bearer {other}", "Bearer {token} x", "Token {token}", "{token}", "",
    "Bearer {cut}", "bearer\t{token}",
])
def test_wrong_credential_never_counts_as_none(house: House, value: str) -> None:
    """Whatever is shown and is no token that is valid now is refused, also where strangers get an answer."""
    token = str(house.a.token)
    other = token[:20] + ("0" if token[20] != "0" else "1") + token[21:]
    shown = value.format(token=token, other=other, cut=token[:-1])
    refused = house.api.ask("GET", "/v1/tasks", Authorization=shown)
    assert (refused.status, refused.code) == (401, "bad_credential")
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]


def test_token_is_read_from_its_header_alone(house: House) -> None:
    """A token in an address is not taken: addresses are logged everywhere, here without it. The scheme's case does not matter."""
    assert house.stranger.ask("GET", f"/v1/tasks?access_token={house.a.token}").status == 401
    assert house.stranger.ask("GET", "/v1/tasks", Cookie=f"token={house.a.token}").status == 401
    house.stranger.ask("GET", f"/v1/tasks/{house.a.token}")
    house.api.logged_with("access.refused", target=f"/v1/tasks/{str(house.a.token)[:18]}_…")
    assert str(house.a.token) not in json.dumps(house.api.events)
    assert house.api.ask("GET", "/v1/tasks", Authorization=f"bEARER  {house.a.token}").status == 200


@pytest.mark.parametrize(("instance", "path", "query", "code"), [
    ("db-1", "/srv/x", "", "instance_not_allowed"), ("no-such", "/srv/x", "", "instance_not_allowed"),
    ("WEB-1", "/srv/x", "", "instance_not_allowed"), ("web-1", "/etc/x", "", "path_not_allowed"),
    ("web-1", "/srv", "", "path_not_allowed"), ("web-1", "/SRV/x", "", "path_not_allowed"),
    ("web-1", "/srv/x", "project=other", "project_not_allowed"), ("web-1", "/srv/x", "mode=4755", "mode_not_allowed"),
    ("web-1", "/srv/x", "uid=0", "owner_not_allowed"), ("web-1", "/srv/x", "gid=0", "owner_not_allowed"),
])
def test_upload_beyond_the_rights_is_refused_with_its_code(
    house: House, instance: str, path: str, query: str, code: str,
) -> None:
    """Each reason has a code, told before the body is sent, the same whether the instance exists or not."""
    spooled = len(house.api.spooled())
    refused = house.a.put(instance, path, query, Expect="100-continue")
    assert (refused.status, refused.code, len(house.api.spooled())) == (403, code, spooled)


def test_upload_within_the_rights_is_taken_and_says_who_sent_it(house: House) -> None:
    """The task carries the name of the token."""
    taken = house.a.put("web-1", "/srv/x", "mode=0640&uid=1000")
    assert (taken.status, taken.json()["client"]) == (202, "token:a")
    assert house.api.logged_with("upload.accepted", task_id=taken.task_id)["client"] == "token:a"


def test_file_over_the_rights_is_refused_however_it_is_sent(house: House) -> None:
    """An announced size is refused before the body, a chunked body at the first byte too much; nothing is kept."""
    spooled = len(house.api.spooled())
    for body in (b"x" * 1001, iter([b"x" * 600, b"x" * 600])):
        refused = house.a.put("web-1", "/srv/x", body=body)
        assert (refused.status, refused.code) == (403, "size_not_allowed")
    assert len(house.api.spooled()) == spooled
    assert house.a.put("web-1", "/srv/x", body=b"x" * 1000).status == 202


def test_remote_that_is_not_allowed_may_exist_or_not(house: House) -> None:
    """Who is kept to one remote is not told which others there are; who is not, is told that one is not configured."""
    kept = Client(house.api, make_token(house.api.file, "kept", may=["upload", "read"], remotes=["local"]))
    wait_until(lambda: kept.put("web-1", "/srv/kept").status == 202, "the new token")
    for remote in ("eu", "no-such"):
        assert kept.put(f"{remote}%3Aweb-1", "/srv/x").code == "remote_not_allowed"
        assert kept.tasks(f"instance={remote}:web-1") == []
    assert house.own.put("no-such%3Aweb-1", "/srv/x").code == "unknown_remote"


def test_who_only_reads_cannot_upload_and_the_other_way_round(house: House) -> None:
    """Each action needs its permission."""
    assert house.c.put("web-1", "/srv/x").code == "action_not_allowed"
    sender = Client(house.api, make_token(house.api.file, "sender", may=["upload"]))
    sent = wait_until(lambda: (reply := sender.put("web-1", "/srv/s")).status == 202 and reply, "the new token")
    assert (sender.ask("GET", "/v1/tasks").status, sender.ask("GET", "/v1/tasks").code) == (403, "action_not_allowed")
    assert sender.ask("GET", f"/v1/tasks/{sent.task_id}").code == "task_not_found"


def test_task_of_others_looks_as_if_there_were_none(house: House) -> None:
    """By id, in lists and by filters nothing is seen of what somebody may not read; the log says who tried."""
    hidden = house.a.put("web-1", "/srv/hidden").task_id
    nothing = "0192e4a0-0000-7000-8000-000000000000"
    for client in (house.b, house.own):
        found, missing = (client.ask("GET", f"/v1/tasks/{task_id}") for task_id in (hidden, nothing))
        assert (found.status, found.body) == (missing.status, missing.body) == (404, found.body)
        assert hidden not in client.tasks() + client.tasks("instance=web-1") + client.tasks("client=token:a")
    assert house.api.logged_with("access.refused", task_id=hidden, client="token:b")["code"] == "instance_not_allowed"
    assert hidden in house.c.tasks()
    assert house.c.ask("GET", f"/v1/tasks/{hidden}").status == 200
    assert hidden in house.a.tasks("client=token:a")


def test_own_tasks_are_those_that_one_sent(house: House) -> None:
    """With `own` a token reads what it sent itself, wherever that went, page by page."""
    sent = [house.own.put(f"web-{n}", "/own").task_id for n in range(3)][::-1]
    assert house.own.tasks() == sent
    first = house.own.ask("GET", "/v1/tasks?limit=2").json()
    assert [task["id"] for task in first["tasks"]] == sent[:2]
    assert [task["id"] for task in house.own.ask("GET", first["next"]).json()["tasks"]] == sent[2:]


def test_idempotency_key_is_ones_own(house: House) -> None:
    """The key that another client used stands for nothing of its own, and tells nothing of that."""
    one = house.own.put("db-1", "/k", Idempotency_Key="k")
    other = house.b.put("db-1", "/k", Idempotency_Key="k", body=b"other")
    again = house.own.put("db-1", "/k", Idempotency_Key="k")
    assert (one.status, other.status, again.task_id) == (202, 202, one.task_id)
    assert other.task_id != one.task_id


def test_revoked_token_ends_at_once_also_in_the_middle_of_an_upload(start: Start) -> None:
    """The next request is refused, what is under way ends, and nothing of it stays."""
    api = start()
    client = Client(api, make_token(api.file, "gone", may=["upload", "read"]))
    wait_until(lambda: client.put("web-1", "/x").status == 202, "the token")
    spooled = len(api.spooled())
    running, over = threading.Event(), threading.Event()

    def body() -> Iterator[bytes]:
        yield b"x" * 300_000
        running.set()
        over.wait(60)

    replies: list[Reply] = []
    sending = threading.Thread(target=lambda: replies.append(client.put("web-1", "/big", body=body())))
    sending.start()
    running.wait(60)
    revoke_token(api.file, "gone")
    ended = api.logged_with("upload.rejected", code="bad_credential")
    over.set()
    sending.join()
    assert (ended["client"], ended["path"]) == ("token:gone", "/big")
    assert [reply.status for reply in replies] == [401]
    assert client.put("web-1", "/x").status == 401
    wait_until(lambda: len(api.spooled()) == spooled and not api.unnamed_files(), "nothing left of the upload")
    assert str(client.token) not in json.dumps(api.events)


def test_token_that_expires_in_the_middle_of_an_upload_ends_it(start: Start) -> None:
    """Time ends a token as a person does."""
    api = start()
    client = Client(api, make_token(api.file, "short", may=["upload"], expires_at=time.time() + 3600))
    wait_until(lambda: client.put("web-1", "/x").status == 202, "the token")
    over = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"x"
        change_token(api.file, "short", expires_at=time.time() + 1)
        over.wait(60)

    sending = threading.Thread(target=client.put, args=("web-1", "/slow"), kwargs={"body": body()})
    sending.start()
    api.logged_with("upload.rejected", code="bad_credential", path="/slow")
    over.set()
    sending.join()


def test_file_of_tokens_that_is_broken_changes_nothing_and_is_told(start: Start) -> None:
    """The last good tokens stay in force, `/readyz` says why it is not ready, and a mended file counts again."""
    api = start()
    client = Client(api, make_token(api.file, "admin", may=["admin"]))
    wait_until(lambda: client.put("web-1", "/x").status == 202, "the token")
    file = api.file.parent / "tokens.json"
    good = file.read_text()

    def reasons() -> list[str]:
        return [reason["code"] for reason in client.ask("GET", "/readyz").json()["reasons"]]

    for broken in ("[", "", '[{"name": "x"}]'):
        file.write_text(broken)
        wait_until(lambda: "tokens_unreadable" in reasons(), "the complaint")
        assert client.put("web-1", "/x").status == 202
    file.unlink()
    assert "tokens_unreadable" in reasons()
    assert client.put("web-1", "/x").status == 202
    file.write_text(good)
    file.chmod(0o600)
    wait_until(lambda: "tokens_unreadable" not in reasons(), "the tokens")


def test_strangers_stay_out_when_the_last_right_is_gone(launch: Callable[..., Api]) -> None:
    """Neither revoking nor removing the last token, nor a restart, opens the door again. A broken file at a start is 78."""
    api = launch().started()
    make_token(api.file, "only", may=["upload"])
    wait_until(lambda: Client(api).put("web-1", "/x").status == 401, "the token")
    revoke_token(api.file, "only")
    api.logged("tokens.reloaded", 2)
    assert Client(api).put("web-1", "/x").status == 401
    assert api.stop() == 0
    (api.file.parent / "tokens.json").unlink()
    again = launch().started()
    assert Client(again).put("web-1", "/x").status == 401
    assert again.stop() == 0
    (again.file.parent / "tokens.json").write_text("[")
    assert launch().end() == 78


@pytest.mark.parametrize(("anonymous", "status"), [("all", 202), ("none", 401)])
def test_configuration_says_what_strangers_may(start: Start, anonymous: str, status: int) -> None:
    """`all` lets everybody in though there are tokens, `none` nobody though there are none; a wrong token is wrong in any case."""
    api = start(api={"anonymous": anonymous})
    if anonymous == "all":
        make_token(api.file, "a", may=["upload"])
        api.logged("tokens.reloaded")
    assert Client(api).put("web-1", "/x").status == status
    assert Client(api, "icour_x").put("web-1", "/x").status == 401


def test_hidden_tasks_change_no_answer(start: Start, tmp_path: Path) -> None:
    """Of two worlds that differ only in what somebody may not see, he gets the same answers to all that he asks."""
    worlds = []
    for name, others in (("empty", 0), ("full", 40)):
        (tmp_path / name).mkdir()
        api = start(tmp_path / name)
        other = Client(api, make_token(api.file, "other", may=["upload"]))
        mine = Client(api, make_token(
            api.file, "mine", may=["upload", "read"], instances=["web-1", "web-2"], paths=["/srv/**", "/own/*"]))
        wait_until(partial(accepts, mine), "the tokens")
        chance = random.Random(7)
        ids = mine.tasks()
        for step in range(12):
            for number in range(others // 12 + 1 if others else 0):
                where = chance.choice([("web-1", "/etc/x"), ("db-1", "/srv/x"), ("web-3", "/own/a"), ("web-2", f"/o{number}")])
                assert other.put(*where).status == 202
            sent = mine.put(f"web-{step % 2 + 1}", f"/srv/{step}", Idempotency_Key=str(step % 3))
            ids += [sent.task_id] if sent.status == 202 else []
        worlds.append((mine, {task_id: f"<{number}>" for number, task_id in enumerate(dict.fromkeys(ids))}))
    questions = ["", "limit=3", "instance=web-1", "instance=db-1", "instance=web-3&limit=1", "state=queued",
                 "client=token:other", "client=token:mine", "state=superseded,failed", "instance=web-2&project=p", "limit=0"]
    for question in questions:
        assert answers(*worlds[0], question) == answers(*worlds[1], question), question


def accepts(client: Client) -> bool:
    """True when the client may upload by now."""
    return client.put("web-1", "/srv/first").status == 202


def answers(client: Client, names: dict[str, str], question: str) -> list[Any]:
    """All pages of an answer, with the ids of one's own tasks by their number, and without times."""
    told: list[Any] = []
    address: str | None = f"/v1/tasks?{question}"
    while address:
        reply = client.ask("GET", address)
        body = reply.json()
        for task in body.get("tasks", ()):
            for key in ("created_at", "updated_at", "next_attempt_at"):
                task.pop(key)
        address = body.get("next")
        text = json.dumps([reply.status, body])
        for task_id, name in names.items():
            text = text.replace(task_id, name)
        told.append(json.loads(text))
    return told


@pytest.mark.root
def test_user_or_group_at_the_unix_socket_has_the_rights_that_are_listed(start: Start) -> None:
    """Whoever connects is told by the kernel; a stranger there gets nothing, and neither does root unless it is listed."""
    listed = [{"name": "one", "user": "61001", "may": ["upload"], "paths": ["/one/*"]},
              {"name": "team", "group": "61002", "may": ["upload"], "paths": ["/team/*"]}]
    api = start(environment={"INCUS_COURIER__PEERS": json.dumps(listed)})
    api.socket_path.chmod(0o666)
    for way in api.socket_path.parents:
        way.chmod(way.stat().st_mode | 0o111)

    def put(path: str, user: User | None = None) -> tuple[int, str]:
        with user.acting() if user else nullcontext(), api.raw("unix") as connection:
            connection.sendall(b"PUT /v1/instances/c1/files%s HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx" % path.encode())
            response = HTTPResponse(connection)
            response.begin()
            answer = json.loads(response.read())
        return response.status, answer.get("client") or answer.get("code")

    assert put("/one/a", User(61001, 61009)) == (202, "peer:one")
    assert put("/team/a", User(61001, 61009)) == (403, "path_not_allowed")
    assert put("/team/a", User(61003, 61002)) == (202, "peer:team")
    assert put("/one/a", User(61003, 61009)) == put("/one/a") == (401, "no_credential")
    assert Client(api).put("c1", "/one/a").status == 401
