"""`incus-courier push` against a real service, as people and scripts run it."""

import os
import pty
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cut_line import CutLine
from tests.support.pushing import PUSH, begin_push, end_push, environment, push
from tests.support.service import Service
from tests.support.tokens import make_token
from tests.support.waiting import PATIENCE_S, eventually

MIB = 2**20


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that delivers into a tree, in which c1 is there."""
    with Service(tmp_path_factory.mktemp("service"), {"delivery": {"mkdirs": False}}) as made:
        (made.layout.instances / "c1").mkdir(parents=True)
        yield made.start()
        assert not made.mistakes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to push from, with a tree in it."""
    (tmp_path / "tree" / "sub" / "empty").mkdir(parents=True)
    (tmp_path / "tree" / "a").write_text("a")
    (tmp_path / "tree" / "a").chmod(0o750)
    (tmp_path / "tree" / "sub" / "umlaut ä").write_text("b")
    return tmp_path


def records(folder: Path) -> list[Path]:
    """What interrupted pushes have left."""
    return list((folder / "state").rglob("*.jsonl"))


def test_files_come_as_they_are(service: Service, folder: Path) -> None:
    """A tree is in the instance with bytes and modes when --wait ends with 0; a line of JSON tells of each file."""
    done = push(folder, service.address, "-r", "tree", "c1/srv/", "--wait", "--timeout", "60")
    assert done.code == 0, done
    lines = {line["source"]: line for line in done.json}
    assert {source: (line["path"], line["outcome"]) for source, line in lines.items()} == {
        "tree/a": ("/srv/tree/a", "delivered"), "tree/sub/umlaut ä": ("/srv/tree/sub/umlaut ä", "delivered"),
        "tree/sub/empty": (None, "skipped")}
    assert service.client.task(lines["tree/a"]["task_id"])["mode"] == "0750"
    assert service.delivered("c1", "/srv/tree/sub/umlaut ä") == b"b"
    assert records(folder) == []


def test_standard_input_goes_in_parts_of_unknown_number(service: Service, folder: Path) -> None:
    """What a pipe gives is pushed whole: a little of it at once, more of it in parts."""
    for content in ("a line\n", "0123456789abcdef" * 600_000):
        process = begin_push(folder, service.address, "-", "c1/piped", "--wait", stdin=subprocess.PIPE)
        done = end_push(process, content)
        assert done.code == 0, done
        assert service.delivered("c1", "/piped") == content.encode()


def test_exit_codes_and_reasons(service: Service, folder: Path) -> None:
    """Each way to end has its number, and each file its reason."""
    assert push(folder, service.address, "tree/a", "c1").code == 2
    nobody = push(folder, "unix:" + str(folder / "none"), "tree/a", "c1/", "--retry-for", "0")
    assert (nobody.code, nobody.json[0]["error"]["code"]) == (1, "no_server")
    (folder / "tree" / "link").symlink_to("a")
    some = push(folder, service.address, "-r", "tree", "c1/", "--wait")
    assert (some.code, {line["error"]["code"] for line in some.json if line["error"]}) == (3, {"link_not_followed", "empty_directory"})
    dead = push(folder, service.address, "tree/a", "c1/none/a", "--wait")
    assert (dead.code, dead.json[0]["error"]["code"], dead.json[0]["state"]) == (1, "parent_not_found", "failed")
    dry = push(folder, "http://127.0.0.1:1", "tree/a", "c1/x", "--dry-run")
    assert (dry.code, dry.json[0]["outcome"]) == (0, "planned")
    service.stop("worker-0")
    late = push(folder, service.address, "tree/a", "c1/late", "--wait", "--timeout", "0")
    assert (late.code, late.json[0]["outcome"]) == (75, "undecided")
    assert "Shard 0 has no worker. " in late.err, "who waits is told why"
    assert len(records(folder)) == 1
    service.start()
    again = push(folder, service.address, "tree/a", "c1/late", "--wait")
    assert (again.code, again.json[0]["task_id"]) == (0, late.json[0]["task_id"]), "it goes on to wait for the same task"
    assert records(folder) == []


def test_terminal_is_shown_nothing_that_could_change_it(service: Service, folder: Path) -> None:
    """On a terminal there are bars and a sentence; an evil name is escaped, and the cursor is there again at the end."""
    (folder / "tree" / "evil\x1b]0;owned\x07").write_text("e")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PUSH, "-r", "tree", "c1/tty", "--wait"], cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True,
        env={**environment(folder, service.address), "TERM": "xterm"})
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:
        pass
    os.close(ours)
    assert process.wait(PATIENCE_S) == 3
    assert b"\x1b]0;owned" not in shown
    assert rb"evil\x1b]0;owned\x07" in shown
    assert b"4 files: 2 delivered, 1 failed, 1 skipped" in shown
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l")


def test_push_goes_on_where_it_was(service: Service, folder: Path) -> None:
    """After the line was cut, the API killed and the push interrupted, the same command sends only what is missing.

    A file that changes under way is not sent.
    """
    content = os.urandom(40 * MIB)
    (folder / "big").write_bytes(content)

    def reach() -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        try:
            made.connect(service.address.removeprefix("unix:"))
        except OSError:
            made.close()
            raise
        return made

    with CutLine(reach, cuts=1, span=(20 * MIB, 20 * MIB)) as line:
        server = f"http://127.0.0.1:{line.port}"
        first = begin_push(folder, server, "big", "tree/a", "c1/")
        eventually(lambda: line.cut == 1)
        service.kill("api")
        first.send_signal(signal.SIGINT)
        done = end_push(first)
        assert done.code == 130, done
        assert {file["source"]: file["outcome"] for file in done.json}["big"] == "interrupted"
        assert len(records(folder)) == 1
        began = len(line.parts)
        service.start()
        done = push(folder, server, "big", "tree/a", "c1/", "--wait")
        assert done.code == 0, done
        resumed = [part for part in line.parts[began:] if part.sent_bytes > MIB]
        assert resumed[0].offset >= 16 * MIB
        assert sum(part.sent_bytes for part in resumed) <= 24 * MIB
        assert service.delivered("c1", "/big") == content
        assert records(folder) == []
    with CutLine(reach, cuts=1, span=(20 * MIB, 20 * MIB)) as line:
        changing = begin_push(folder, f"http://127.0.0.1:{line.port}", "big", "c1/other")
        eventually(lambda: line.cut == 1)
        with (folder / "big").open("ab") as file:
            file.write(b"more")
        done = end_push(changing)
        assert (done.code, done.json[0]["error"]["code"]) == (1, "file_changed"), done
        assert not any(task.destination.path == "/other" for task in service.tasks())


def test_token_is_shown_and_its_refusal_told_of_every_file(folder: Path) -> None:
    """With a token of few rights everything else is refused by name; a wrong one lets nobody in."""
    (folder / "service").mkdir()
    with Service(folder / "service") as service:
        token = make_token(service.config, "ci", may=["upload"], paths=["/in/**"])
        service.start()
        (folder / "token").write_text(token + "\n")
        done = push(folder, service.address, "-p", "tree/a", "c1/in/a", "--token-file", "token")
        assert (done.code, done.json[0]["outcome"]) == (0, "accepted"), done
        done = push(folder, service.address, "-p", "tree/a", "c1/out/a", INCUS_COURIER_TOKEN=token)
        assert (done.code, done.json[0]["error"]["code"]) == (1, "path_not_allowed")
        done = push(folder, service.address, "-r", "tree", "c1/in/", INCUS_COURIER_TOKEN=token[:-1])
        assert [line["error"]["code"] for line in done.json if line["outcome"] == "failed"] == ["bad_credential"] * 2
        assert token not in done.out + done.err
