"""Forms over real sockets, also as real clients send them."""

import base64
import hashlib
import json
import socket
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.api.running import Api, Reply, wait_until
from tests.support.forms import BOUNDARY, TO_ROOT, TYPE, Part, form
from tests.support.processes import Spawned
from tests.support.tokens import make_token, revoke_token
from tests.support.waiting import PATIENCE_S

ADDRESS = "/v1/uploads"
NAMES = ["a b.txt", 'quo"te\\.txt', "한국어 😀.txt", "100%25 %22.txt"]
#: Sends the files that it is given, as a page would, and writes the answer.
NODE = """
const [, url, ...names] = process.argv;
const form = new FormData();
form.append("instance", "c1"); form.append("path", "/root/");
for (const name of names) form.append("files", new Blob(["of " + name]), name);
fetch(url, {method: "POST", body: form}).then(async answer => console.log(JSON.stringify([answer.status, await answer.json()])));
"""


def send(api: Api, parts: Sequence[Part], *, headers: str = "", **more: str) -> Reply:
    """Send a form with one length."""
    return api.ask("POST", ADDRESS, form(parts, headers), Content_Type=TYPE, **more)


def told(answer: Any) -> list[tuple[str, str | int]]:
    """For each file its name, and the path of its task or the code of its problem."""
    return [(one["filename"], one["task"]["path"] if "task" in one else one["problem"]["code"]) for one in answer["uploads"]]


def stored(api: Api, task: dict[str, Any]) -> bytes:
    """The bytes of a task in the spool."""
    return api.stored(Reply(202, {"location": task["id"]}, b""))


def test_each_file_of_a_form_is_a_task_of_its_own(shared: Api) -> None:
    """Whatever its field's name; each is answered as a PUT would be, and what it is can be asked for."""
    bodies = [b"", b"x", bytes(range(256)) * 1024, b"\r\n--" + BOUNDARY.encode()[:-1] + b"\r\n" * 200_000]
    reply = send(shared, [*TO_ROOT, ("mode", None, b"0600"), *((f"f{n % 2}", f"dir/{n}", body) for n, body in enumerate(bodies)), ("none", "", b"")])
    answer = reply.json()
    assert (reply.status, reply.headers["content-type"], answer["problem"]) == (202, "application/json", None)
    assert told(answer) == [(f"dir/{n}", f"/root/{n}") for n in range(4)]
    for one, body in zip(answer["uploads"], bodies, strict=True):
        task = one["task"]
        assert (one["status"], one["replayed"], task["sha256"], task["mode"]) == (202, False, hashlib.sha256(body).hexdigest(), "0600")
        assert {**shared.ask("GET", f"/v1/tasks/{task['id']}").json(), "updated_at": ""} == {**task, "updated_at": ""}
        assert stored(shared, task) == body


def test_file_that_is_refused_takes_no_other_with_it(shared: Api) -> None:
    """The answer says of each what became of it; 202 if one was accepted, else the first refusal."""
    before = len(shared.spooled())
    wrong = [("f", "..", b"x"), ("f", "a" * 256, b"x")]
    reply = send(shared, [*TO_ROOT, ("f", "a", b"1"), *wrong, ("f", "x/a", b"2"), ("f", "b", b"3")])
    assert (reply.status, told(reply.json())) == (202, [
        ("a", "/root/a"), ("..", "bad_name"), ("a" * 255 + "…", "bad_path"), ("x/a", "same_path"), ("b", "/root/b")])
    refused = send(shared, [*TO_ROOT, *wrong])
    assert (refused.status, refused.headers["content-type"], refused.code) == (400, "application/problem+json", "bad_name")
    assert [code for _, code in told(refused.json())] == ["bad_name", "bad_path"]
    assert {"title", "status", "detail", "code", "hint"} == set(refused.json()["uploads"][0]["problem"])
    assert len(shared.spooled()) == before + 2


@pytest.mark.parametrize(("parts", "code"), [
    (TO_ROOT, "no_file"), ([*TO_ROOT, ("f", "", b"")], "no_file"), ([("f", "a", b"x")], "bad_instance"),
    ([*TO_ROOT, ("path", None, b"/srv/"), ("f", "a", b"x")], "bad_field"), ([*TO_ROOT, ("what", None, b"x"), ("f", "a", b"x")], "bad_field"),
    ([*TO_ROOT, ("mode", None, b"rw"), ("f", "a", b"x")], "bad_mode"),
])
def test_form_that_says_nothing_clear_is_refused_as_a_whole(shared: Api, parts: Sequence[Part], code: str) -> None:
    """With one problem, and nothing is kept."""
    before = shared.spooled()
    reply = send(shared, parts)
    assert (reply.status, reply.code) == (400, code)
    assert shared.spooled() == before
    shared.logged_with("upload.rejected", code=code)


def test_other_bodies_and_methods_are_refused(shared: Api) -> None:
    """A form is told where it belongs, and what is none, too."""
    assert shared.ask("POST", ADDRESS, b"x").code == "not_a_form"
    assert shared.ask("POST", f"{ADDRESS}?mode=0600", form([]), Content_Type=TYPE).code == "bad_query"
    assert shared.ask("GET", ADDRESS).headers["allow"] == "POST"
    assert ADDRESS in shared.put("root/a", form([]), content_type=TYPE).json()["hint"]


def test_page_of_another_site_sends_no_form(shared: Api) -> None:
    """A browser asks nobody before it sends one."""
    files = [*TO_ROOT, ("f", "a", b"x")]
    for more in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}):
        assert send(shared, files, **more).code == "cross_site"
    assert send(shared, files, Origin=f"http://127.0.0.1:{shared.port}", Sec_Fetch_Site="same-origin").status == 202


@pytest.mark.parametrize("end", ["field", "cut", "chunked", "garbage"])
def test_form_that_fails_after_two_files_leaves_them_accepted_and_says_why(shared: Api, end: str) -> None:
    """What was whole stays; what was not leaves nothing."""
    before = len(shared.spooled())
    two = form([*TO_ROOT, ("f", "a", b"1" * 300_000), ("f", "b", b"2")])[:-len(BOUNDARY) - 6]
    third = form([("f", "c", b"3" * 300_000)])
    bad = {"field": form([("mode", None, b"0600"), ("f", "c", b"3")]), "cut": third[:-9], "chunked": third[:-9], "garbage": third[:50] + b"\x00\r\n"}[end]
    body = two + bad
    reply = shared.ask("POST", ADDRESS, iter([body[:1000], body[1000:]]) if end == "chunked" else body, Content_Type=TYPE)
    answer = reply.json()
    assert (reply.status, told(answer)[:2]) == (202, [("a", "/root/a"), ("b", "/root/b")])
    code = "bad_field" if end == "field" else "bad_form"
    assert (answer["problem"]["code"], told(answer)[2:]) == (code, [("c", code)] if end in {"cut", "chunked"} else [])
    assert len(shared.spooled()) == before + 2
    assert shared.unnamed_files() == 0


def test_client_that_breaks_off_leaves_what_was_whole(shared: Api) -> None:
    """The file under way leaves nothing, and no descriptor."""
    before = len(shared.spooled())
    head = f"POST {ADDRESS} HTTP/1.1\r\nHost: localhost:{shared.port}\r\nContent-Type: {TYPE}\r\nContent-Length: 9999999\r\n\r\n"
    with socket.create_connection(("127.0.0.1", shared.port), PATIENCE_S) as connection:
        connection.sendall(head.encode() + form([*TO_ROOT, ("f", "whole", b"1"), ("f", "half-of-it", b"2" * 900_000)])[:-100])
        shared.logged_with("upload.accepted", path="/root/whole")
        wait_until(lambda: shared.unnamed_files() == 1, "the second file's beginning")
    shared.logged_with("upload.aborted", path="/root/half-of-it")
    wait_until(lambda: shared.unnamed_files() == 0, "nothing of the second file")
    assert len(shared.spooled()) == before + 1


def test_form_that_is_sent_again_with_its_key_gives_the_same_tasks(shared: Api) -> None:
    """The key counts with the number of the file."""
    parts = [*TO_ROOT, ("f", "a", b"1"), ("f", "b", b"2")]
    first, again = (send(shared, parts, Idempotency_Key="form-1").json()["uploads"] for _ in range(2))
    assert [one["task"]["id"] for one in first] == [one["task"]["id"] for one in again]
    assert [one["replayed"] for one in [*first, *again]] == [False, False, True, True]
    other = send(shared, [*TO_ROOT, ("f", "a", b"1"), ("f", "b", b"3")], Idempotency_Key="form-1")
    assert [code for _, code in told(other.json())] == ["/root/a", "idempotency_mismatch"]


def test_digest_of_a_file_is_checked(shared: Api) -> None:
    """It stands in the headers of the file's part."""
    good = base64.b64encode(hashlib.sha256(b"x").digest()).decode()
    reply = send(shared, [*TO_ROOT, ("f", "a", b"x"), ("f", "b", b"y")], headers=f"\r\nRepr-Digest: sha-256=:{good}:")
    assert told(reply.json()) == [("a", "/root/a"), ("b", "digest_mismatch")]


def test_rights_and_limits_hold_for_each_file(start: Callable[..., Api]) -> None:
    """Where bytes are counted too, though no file says how many it has; what was not accepted is given back."""
    api = start(limits={"max_upload_bytes": 400_000})
    tokens = {"narrow": make_token(api.file, "narrow", may=["upload"], paths=["/root/*"], max_file_bytes=10),
              "reader": make_token(api.file, "reader", may=["read"]),
              "maker": make_token(api.file, "maker", may=["upload", "delegate"]), "all": make_token(api.file, "all", may=["upload"])}
    api.logged("tokens.reloaded")

    def post(shown: str, *files: Part, to: bytes = b"/root/") -> Reply:
        return send(api, [("instance", None, b"c1"), ("path", None, to), *files], Authorization=f"Bearer {shown}")

    small = ("f", "small", b"x" * 10)
    assert told(post(tokens["narrow"], ("f", "large", b"x" * 11), small).json()) == [("large", "size_not_allowed"), ("small", "/root/small")]
    assert post(tokens["narrow"], small, to=b"/srv/").code == "path_not_allowed"
    assert post(tokens["reader"], small).code == "action_not_allowed"
    assert post("nonsense", small).status == 401
    assert told(post(tokens["all"], ("f", "large", b"x" * 400_001), small).json()) == [("large", "too_large"), ("small", "/root/small")]
    wish = {"may": ["upload"], "max_uploads": 2, "max_total_bytes": 300_010, "expires_s": 3600}
    link = api.ask("POST", "/v1/tokens", json.dumps(wish).encode(), Authorization=f"Bearer {tokens['maker']}").json()["token"]
    assert told(post(link, ("f", "a", b"x" * 300_011), ("f", "b", b"x" * 300_000), small, ("f", "c", b"")).json()) == [
        ("a", "used_up"), ("b", "/root/b"), ("small", "/root/small"), ("c", "used_up")]
    assert api.other_lines == []


def test_rights_that_end_between_two_files_end_the_form(start: Callable[..., Api]) -> None:
    """What was accepted stays; nobody goes on with what he had at the beginning."""
    api = start()
    token = make_token(api.file, "t", may=["upload"])
    api.logged("tokens.reloaded")
    body = form([*TO_ROOT, ("f", "first", b"1"), ("f", "second", b"2")])
    head = (f"POST {ADDRESS} HTTP/1.1\r\nHost: localhost:{api.port}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
            f"Content-Type: {TYPE}\r\nContent-Length: {len(body)}\r\n\r\n").encode()
    cut = body.rindex(b"Content-Disposition")
    with api.raw() as connection, connection.makefile("rb") as answer:
        connection.sendall(head + body[:cut])
        api.logged_with("upload.accepted", path="/root/first")
        revoke_token(api.file, "t")
        api.logged("tokens.reloaded", 2)
        connection.sendall(body[cut:])
        found = json.loads(answer.read().partition(b"\r\n\r\n")[2])
    assert (told(found), found["problem"]["code"]) == ([("first", "/root/first"), ("second", "bad_credential")], "bad_credential")


@pytest.mark.full
def test_form_that_comes_too_slowly_is_ended(start: Callable[..., Api]) -> None:
    """In a file, and between two."""
    api = start(api={"body_timeout_s": 1.0})
    body = form([*TO_ROOT, ("f", "first", b"1"), ("f", "second", b"2")])
    for cut, names in ((body.rindex(b"2"), ["first", "second"]), (body.rindex(b"Content-Disposition"), ["first"])):
        with api.raw() as connection, connection.makefile("rb") as answer:
            connection.sendall(f"POST {ADDRESS} HTTP/1.1\r\nHost: localhost:{api.port}\r\nConnection: close\r\nContent-Type: {TYPE}\r\n"
                               f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:cut])
            found = json.loads(answer.read().partition(b"\r\n\r\n")[2])
        assert ([name for name, _ in told(found)], found["problem"]["code"]) == (names, "too_slow")


@pytest.mark.full
def test_memory_stays_bounded_whatever_a_form_has(start: Callable[..., Api]) -> None:
    """Two large files and as many small ones as there may be need a few MiB; one file more is not read."""
    api = start(launcher=Spawned)
    assert send(api, [*TO_ROOT, ("f", "first", b"x")]).status == 202
    before = peak = api.memory_bytes()
    many = [*TO_ROOT, *(("f", f"large-{n}", b"x" * (64 * 2**20)) for n in range(2)), *(("f", f"small-{n}", b"x") for n in range(999))]
    with ThreadPoolExecutor(1) as client:
        sending = client.submit(send, api, many)
        while wait([sending], 0.01).not_done:
            peak = max(peak, api.memory_bytes())
    answer = sending.result().json()
    assert ({one["status"] for one in answer["uploads"]}, len(answer["uploads"])) == ({202}, 1000)
    assert answer["problem"]["code"] == "long_form"
    assert peak - before < 30 * 2**20


def test_curl_and_requests_send_forms(shared: Api, tmp_path: Path) -> None:
    """As they are, with names that need care; curl waits to be told to send."""
    (tmp_path / "file").write_bytes(b"x" * 2_000_000)
    url = f"http://127.0.0.1:{shared.port}{ADDRESS}"
    quoted = [name.replace("\\", "\\\\").replace('"', '\\"') for name in NAMES[:3]]
    files = [option for name in quoted for option in ("-F", f'f=@"{tmp_path}/file";filename="{name}"')]
    curl = subprocess.run(["curl", "-sS", "-F", "instance=c1", "-F", "path=/root/", *files, url], capture_output=True, check=True, timeout=PATIENCE_S)
    assert [path for _, path in told(json.loads(curl.stdout))] == [f"/root/{name}" for name in NAMES[:3]]
    with (tmp_path / "file").open("rb") as file:
        answer = requests.post(url, data={"instance": "c1", "path": "/root/"}, timeout=PATIENCE_S,
                               files=[("f", (NAMES[0], file)), ("f", (NAMES[1], b"y")), ("g", (NAMES[2], b""))])
    assert [path for _, path in told(answer.json())] == [f"/root/{name}" for name in NAMES[:3]]


def test_page_sends_a_form(shared: Api) -> None:
    """By the FormData and fetch that browsers have; a chunked body."""
    node = subprocess.run(["node", "-e", NODE, f"http://127.0.0.1:{shared.port}{ADDRESS}", *NAMES], capture_output=True, check=True, timeout=PATIENCE_S)
    status, answer = json.loads(node.stdout)
    assert (status, [path for _, path in told(answer)]) == (202, [f"/root/{name}" for name in [*NAMES[:3], '100%25 ".txt']])
