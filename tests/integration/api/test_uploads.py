"""Uploads over real sockets: what is taken, and what becomes of it."""

import base64
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.integration.api.running import Api
from tests.support.forms import TYPE, form
from tests.support.waiting import PATIENCE_S


@pytest.mark.parametrize("size", [0, 1, 1024, 256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1, 3 * 2**20 + 7])
def test_body_is_stored_as_it_was_sent_whatever_its_size(shared: Api, size: int) -> None:
    """The spool has the bytes, the answer has their digest."""
    body = bytes(i * 7 % 251 for i in range(1021)) * (size // 1021 + 1)
    body = body[:size]
    reply = shared.put("root/a", body)
    assert reply.status == 202
    task = reply.json()
    assert (task["size"], task["sha256"]) == (size, hashlib.sha256(body).hexdigest())
    assert shared.stored(reply) == body


@pytest.mark.parametrize("pieces", [[b""], [b"abc", b"def"], [b"x" * 100_000] * 9])
def test_chunked_body_is_stored_as_it_was_sent(shared: Api, pieces: list[bytes]) -> None:
    """A body without a length is as good as one with it."""
    reply = shared.put("root/a", iter(pieces))
    assert reply.status == 202
    assert shared.stored(reply) == b"".join(pieces)


def test_put_is_answered_with_its_task(shared: Api) -> None:
    """The answer describes the task and says where it is."""
    reply = shared.put("root/a%20b", b"hello", "mode=0640&uid=1000&gid=1001&mkdirs=true")
    task = reply.json()
    assert reply.headers["location"] == f"/v1/tasks/{task['id']}"
    assert {key: task[key] for key in ("state", "remote", "project", "instance", "path", "name", "mode", "uid", "gid",
                                       "mkdirs", "attempts", "next_attempt_at", "error")} == {
        "state": "queued", "remote": "local", "project": "default", "instance": "c1", "path": "/root/a b", "name": "a b",
        "mode": "0640", "uid": 1000, "gid": 1001, "mkdirs": True, "attempts": 0, "next_attempt_at": None, "error": None}
    found = shared.task(reply)
    assert {**found, "updated_at": ""} == {**task, "updated_at": ""}


def test_post_is_answered_in_the_sentence_that_clients_know(shared: Api) -> None:
    """202, plain text, the very words."""
    reply = shared.post("/root/", b"hello", X_Host_Path="/home/나/파일 이름.txt")
    assert reply.status == 202
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.body.decode() == "File '파일 이름.txt' queued for processing on container 'c1'."
    assert shared.task(reply)["path"] == "/root/파일 이름.txt"


def test_post_is_refused_with_parameters_in_its_address(shared: Api) -> None:
    """They belong to PUT; a mode that is asked for and passed over would be a file that is open to others."""
    reply = shared.ask("POST", "/upload?mode=0600", b"x", X_File_Path="/root/a", X_Container_Name="c1")
    assert (reply.status, reply.code) == (400, "bad_query")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_upload_refuses_other_methods_than_post(shared: Api, method: str) -> None:
    """405, in the words that clients know."""
    reply = shared.ask(method, "/upload")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert reply.body == (b"" if method == "HEAD" else b"POST method required.")


@pytest.mark.parametrize("path", ["/a b", "/한국어/파일", "/😀👩‍👩‍👧", "/" + "a" * 255, "/x/" + "a" * 255 + "/y", "/'\"<>|"])
def test_names_survive_both_doors(shared: Api, path: str) -> None:
    """Spaces, Korean, emoji and long components arrive as they were sent."""
    posted = shared.post(path)
    put = shared.put(quote(path[1:]))
    assert (posted.status, put.status) == (202, 202)
    assert shared.task(posted)["path"] == shared.task(put)["path"] == path


@pytest.mark.parametrize("path", ["a%2Fb", "..%2fb", "a/../../b", "%2e%2e/b", "a%00b", "a%0Ab", "%FF", "a//b", "a" * 256, "a/"])
def test_put_keeps_nothing_when_the_path_is_refused(shared: Api, path: str) -> None:
    """400 bad_path as a problem, and nothing in the spool."""
    before = shared.spooled()
    reply = shared.put(path)
    assert (reply.status, reply.code) == (400, "bad_path")
    assert reply.headers["content-type"] == "application/problem+json"
    assert set(reply.json()) == {"title", "status", "detail", "code", "hint"}
    assert shared.spooled() == before


@pytest.mark.parametrize(("headers", "code"), [
    ({"X_Container_Name": "c1"}, "bad_path"), ({"X_File_Path": "/a"}, "bad_instance"),
    ({"X_File_Path": "a", "X_Container_Name": "c1"}, "bad_path"),
    ({"X_File_Path": "/a", "X_Container_Name": "-"}, "bad_instance"),
    ({"X_File_Path": "/a/", "X_Container_Name": "c1"}, "bad_name"),
    ({"X_File_Path": "/a", "X_Container_Name": "c1", "X_File_Mode": "rw"}, "bad_mode"),
    ({"X_File_Path": "/a", "X_Container_Name": "moon:c1"}, "unknown_remote"),
    ({"X_File_Path": "/a", "X_Container_Name": "c1", "Idempotency_Key": "a b"}, "bad_idempotency_key"),
])
def test_post_is_refused_in_plain_text(shared: Api, headers: dict[str, str], code: str) -> None:
    """400 in words, with the code in brackets."""
    reply = shared.ask("POST", "/upload", b"x", **headers)
    assert (reply.status, reply.code, reply.headers["content-type"]) == (400, code, "text/plain; charset=utf-8")
    shared.logged_with("upload.rejected", code=code)


@pytest.mark.parametrize("algorithm", ["sha-256", "sha-512"])
def test_digest_is_checked(shared: Api, algorithm: str) -> None:
    """A body with the announced digest is taken; another is refused and nothing is kept."""
    before = shared.spooled()

    def field(body: bytes) -> str:
        digest = hashlib.new(algorithm.replace("-", ""), body).digest()
        return f"{algorithm}=:{base64.b64encode(digest).decode()}:"

    for size in (1, 60_000):
        wrong = shared.put("root/a", b"hallo" * size, Content_Digest=field(b"hello" * size))
        assert (wrong.status, wrong.code) == (400, "digest_mismatch")
    assert shared.spooled() == before
    for size in (1, 60_000):
        assert shared.put("root/a", b"hello" * size, Repr_Digest=field(b"hello" * size)).status == 202


@pytest.mark.parametrize("field", ["Repr-Digest: md5=:AAAA:", "Content-MD5: XUFAKrxLKna5cZ2REBfFkg==", "Trailer: Digest"])
def test_digest_that_nobody_would_compare_is_refused(shared: Api, field: str) -> None:
    """Whoever announces one believes that it is."""
    name, _, value = field.partition(": ")
    reply = shared.put("root/a", b"x", "", **{name: value})
    assert (reply.status, reply.code) == (400, "unchecked_digest")


def test_repeat_of_an_idempotency_key_is_answered_with_the_first_task(shared: Api) -> None:
    """The same upload again is the same task; nothing is stored twice."""
    before = len(shared.spooled())
    first = shared.put("root/a", b"hello", Idempotency_Key="k-1")
    again = shared.put("root/a", b"hello", Idempotency_Key="k-1")
    posted = shared.post("/root/a", b"hello", Idempotency_Key="k-1")
    assert [first.status, again.status, posted.status] == [202, 202, 202]
    assert first.headers["location"] == again.headers["location"] == posted.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == posted.headers["idempotency-replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]
    assert len(shared.spooled()) == before + 1
    shared.logged_with("upload.replayed", task_id=first.task_id)


@pytest.mark.parametrize(("path", "body", "query"), [
    ("root/a", b"other", ""), ("root/b", b"hello", ""), ("root/a", b"hello", "mode=0600"), ("root/a", b"hello", "uid=1"),
])
def test_idempotency_key_is_refused_for_another_upload(shared: Api, path: str, body: bytes, query: str) -> None:
    """422 for any difference, and nothing of the second upload is kept."""
    assert shared.put("root/a", b"hello", Idempotency_Key="k-2").status == 202
    before = shared.spooled()
    reply = shared.put(path, body, query, Idempotency_Key="k-2")
    assert (reply.status, reply.code) == (422, "idempotency_mismatch")
    assert shared.spooled() == before


def test_newer_upload_supersedes_an_older_one_to_the_same_path(shared: Api) -> None:
    """The older task is superseded, and the log says by what."""
    older, newer = shared.put("root/newer", b"1"), shared.put("root/newer", b"2")
    shared.logged_with("upload.superseded", task_id=older.task_id, by=newer.task_id)
    assert shared.task(older)["state"] == "superseded"


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
_TUS = {"Tus-Resumable": "1.0.0", "Upload-Length": "1", "Content-Type": "application/offset+octet-stream",
        "Upload-Metadata": "instance YzE=,path L3Jvb3QvdA=="}
_FORM = form([("instance", None, b"c1"), ("path", None, b"/root/"), ("f", "name", b"x")])


@pytest.mark.parametrize(("method", "address", "headers", "body"), [
    ("PUT", "/v1/instances/c1/files/root/t", {}, b"x"),
    ("POST", "/upload", {"X-Container-Name": "c1", "X-File-Path": "/root/t"}, b"x"),
    ("POST", "/v1/uploads", {"Content-Type": TYPE}, _FORM),
    ("POST", "/v1/tus/", _TUS, b"x"),
    ("PUT", "/v1/instances/c1/files/root/t", {"Upload-Complete": "?1", "Upload-Draft-Interop-Version": "6",
                                                    "X-Interim": "no"}, b"x"),
], ids=["put", "post", "form", "tus", "draft"])
def test_trace_of_an_upload_is_kept_with_its_task_and_told(
    shared: Api, method: str, address: str, headers: dict[str, str], body: bytes,
) -> None:
    """Whichever way it comes; what is no trace is passed over."""
    for trace, kept in ((TRACE, TRACE), ("00-" + "0" * 32 + TRACE[35:], None)):
        reply = shared.ask(method, address, body, **headers, traceparent=trace)
        assert reply.status in {201, 202}
        assert reply.headers.get("traceparent") == kept
        task = shared.tasks()[0]
        assert task["traceparent"] == kept
        assert shared.logged_with("upload.accepted", task_id=task["id"]).get("traceparent") == kept


def test_log_has_one_line_for_an_upload(shared: Api) -> None:
    """The event's fields are what was sent, as values."""
    path = '/root/"task_id": "x"'
    reply = shared.post(path, b"hello")
    event = shared.logged_with("upload.accepted", task_id=reply.task_id)
    assert {key: event[key] for key in ("task_id", "instance", "project", "path", "size", "sha256")} == {
        "task_id": reply.task_id, "instance": "c1", "project": "default", "path": path, "size": 5,
        "sha256": hashlib.sha256(b"hello").hexdigest()}


def test_state_is_closed_to_others(api: Api) -> None:
    """Neither files nor directories nor the socket are open to the world."""
    api.put("root/a", Idempotency_Key="k")
    for path in [api.state, *api.state.rglob("*"), api.socket_path]:
        assert path.lstat().st_mode & 0o007 == 0, path
    assert api.socket_path.stat().st_mode & 0o777 == 0o660


def test_curl_uploads_a_file(shared: Api, tmp_path: Path) -> None:
    """`curl -T` names the file itself, over TCP and over the Unix socket; with an Expect header too."""
    curl = shutil.which("curl")
    assert curl is not None
    file = tmp_path / "파일 1"
    file.write_bytes(b"x" * 2_000_000)
    for where in (["--unix-socket", str(shared.socket_path), "http://courier"], [f"http://127.0.0.1:{shared.port}"]):
        command = [curl, "-sS", "--fail", "-T", str(file), *where[:-1], f"{where[-1]}/v1/instances/c1/files/root/"]
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)
    assert [task["path"] for task in shared.tasks()[:2]] == ["/root/파일 1"] * 2


def test_uploads_side_by_side_are_all_kept(shared: Api) -> None:
    """Many connections at once: each body is stored under its own task."""
    with ThreadPoolExecutor(16) as threads:
        replies = list(threads.map(lambda n: shared.put(f"root/f{n}", f"{n}".encode() * 1000), range(200)))
    assert {reply.status for reply in replies} == {202}
    assert len({reply.json()["id"] for reply in replies}) == 200
    wanted = {f"/root/f{n}": hashlib.sha256(f"{n}".encode() * 1000).hexdigest() for n in range(200)}
    assert {task["path"]: task["sha256"] for task in shared.tasks()[:200]} == wanted


def test_upload_goes_on_when_its_database_was_replaced(api: Api) -> None:
    """A database that was set aside under the running API is left behind before the 202."""
    api.put("root/a")
    for database in (api.state / "queue").glob("shard-*/data.db"):
        database.rename(database.with_name("aside.db"))
        for rest in database.parent.glob("data.db-*"):
            rest.rename(rest.with_name(rest.name.replace("data", "aside")))
    reply = api.put("root/b")
    assert reply.status == 202
    assert [task["path"] for task in api.tasks()] == ["/root/b"]


Faulty = Callable[..., Api]


@pytest.mark.parametrize(("fault", "status", "code", "files"), [
    ("spool.open=ENOSPC", 507, "no_room", 0), ("spool.open=EIO", 503, "storage_failed", 0),
    ("spool.write=ENOSPC", 507, "no_room", 0), ("spool.write=EDQUOT", 507, "no_room", 0),
    ("spool.sync=EIO", 503, "storage_failed", 0),
    ("spool.link=EROFS", 503, "storage_failed", 0),
    ("spool.linksync=EIO", 503, "outcome_unknown", 1), ("spool.dirsync=EIO", 503, "outcome_unknown", 1),
    ("queue.insert=ENOSPC", 507, "no_room", 0), ("queue.commit=EIO", 503, "storage_failed", 0),
    ("queue.committed=EIO", 503, "outcome_unknown", 1),
])
def test_fault_leaves_nothing_or_is_said_to_be_unknown(start: Faulty, fault: str, status: int, code: str, files: int) -> None:
    """After a fault the client has an error and nothing is left, or is told that nobody knows."""
    api = start(environment={"INCUS_COURIER_FAULTS": fault})
    for number, size in enumerate((10, 600_000), start=1):
        reply = api.put("root/a", b"x" * size)
        assert (reply.status, reply.code) == (status, code)
        assert len(api.spooled()) == number * files
    assert api.stop() == 0
