"""The log as lines and as the journal's fields."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from daemon import log as logs
from daemon.config import Log
from daemon.log import log
from daemon.log.events import EVENTS
from daemon.model.text import is_plain
from tests.support.waiting import PATIENCE_S
from tests.unit.daemon.log.test_journal import Reader

NASTY = "/srv/a b\nPRIORITY=0\n{\"event\": \"forged\"}\x1b[2J 한글"


@pytest.fixture(autouse=True)
def quiet_after(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave the log as it was for the other tests."""
    yield
    logs.setup(Log(format="json"), "test")


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """A journal that the log writes to."""
    reader = Reader(str(tmp_path / "journal"))
    monkeypatch.setattr(logs, "SOCKET", reader.path)
    logs.setup(Log(format="journal"), "worker")
    yield reader
    if os.path.exists(reader.path):
        reader.close()


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The reading end of the log's lines."""
    reading, writing = socket.socketpair()
    reading.settimeout(PATIENCE_S)
    monkeypatch.setattr(logs, "_STDERR", writing.fileno())
    with reading, writing:
        yield reading


def test_event_has_the_journals_own_fields(journal: Reader) -> None:
    """Message, priority, identifier, MESSAGE_ID and the place in the code are what journalctl filters by."""
    log("push.delivered", task_id="t1", instance="web1", path="/srv/x", size=5, code=None)
    fields = journal.read()
    assert fields["MESSAGE"] == "A file is in its instance: instance=web1 path=/srv/x size=5"
    assert fields["MESSAGE_ID"] == EVENTS["push.delivered"].message_id
    assert fields["PRIORITY"] == "6"
    assert fields["SYSLOG_IDENTIFIER"] == "incus-courier-worker"
    assert (fields["CODE_FILE"], fields["CODE_FUNC"]) == (__file__, "test_event_has_the_journals_own_fields")
    assert fields["CODE_LINE"].isdigit()
    assert (fields["INCUS_TASK_ID"], fields["INCUS_INSTANCE"], fields["INCUS_SIZE"]) == ("t1", "web1", "5")
    assert "INCUS_CODE" not in fields


def test_message_says_who_did_what_to_a_task(journal: Reader) -> None:
    """The line that people read has the wish and the person, not only the fields beside it."""
    log("task.commanded", task_id="t1", verb="hold", asked_by="alice", state="held")
    assert journal.read()["MESSAGE"] == "A task was changed by a person: verb=hold asked_by=alice"


def test_value_cannot_forge_a_field_in_the_journal(journal: Reader) -> None:
    """What a client sent is one value, and in the sentence it is quoted."""
    log("push.failed", task_id="t1", path=NASTY)
    fields = journal.read()
    assert fields["INCUS_PATH"] == NASTY
    assert fields["PRIORITY"] == "3"
    assert "\n" not in fields["MESSAGE"]
    assert "\x1b" not in fields["MESSAGE"]


def test_value_cannot_forge_a_line(stderr: socket.socket) -> None:
    """As JSON an event is one line, whatever a client sent."""
    logs.setup(Log(format="json"), "api")
    log("upload.rejected", path=NASTY)
    lines = stderr.recv(65536).decode().splitlines()
    assert len(lines) == 1
    found = json.loads(lines[0])
    assert (found["path"], found["event"], found["component"]) == (NASTY, "upload.rejected", "api")


def test_value_cannot_move_the_cursor_of_a_console(stderr: socket.socket) -> None:
    """On a console a value's control characters are shown, not obeyed."""
    logs.setup(Log(format="console"), "api")
    log("upload.rejected", path=NASTY)
    text = stderr.recv(65536).decode()
    assert text.count("\n") == 1
    assert "\x1b[2J" not in text


def test_events_become_json_lines_where_there_is_no_journal(
    stderr: socket.socket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:
    """A machine without a journal loses nothing."""
    monkeypatch.setattr(logs, "SOCKET", str(tmp_path / "none"))
    logs.setup(Log(format="journal"), "worker")
    log("worker.started", shard=1)
    assert json.loads(stderr.recv(65536))["event"] == "worker.started"


def test_events_become_json_lines_while_the_journal_is_gone(journal: Reader, stderr: socket.socket) -> None:
    """When the journal goes away in the middle, the lines go to stderr."""
    logs.setup(Log(format="journal"), "worker")
    log("worker.started", shard=1)
    assert journal.read()["INCUS_SHARD"] == "1"
    journal.close()
    log("worker.stopped", shard=1)
    assert json.loads(stderr.recv(65536))["event"] == "worker.stopped"


def test_lost_lines_are_reported_in_the_log_itself(stderr: socket.socket) -> None:
    """Once somebody reads again, an event says how many lines are missing."""
    logs.setup(Log(format="json"), "api")
    total = 20_000
    for number in range(total):
        log("upload.accepted", size=number)
    text = b""
    while b"log.lost" not in text or not text.endswith(b"\n"):
        text += stderr.recv(2**20)
        log("upload.accepted", size=total)
        total += 1
    found = [json.loads(line) for line in text.splitlines()]
    lost = sum(line["lines"] for line in found if line["event"] == "log.lost")
    assert lost > 0
    assert lost + len([line for line in found if line["event"] == "upload.accepted"]) <= total


def test_event_below_the_level_is_left_out(journal: Reader) -> None:
    """The level of the configuration is the least important that is written."""
    logs.set_level("warning")
    log("worker.started", shard=1)
    log("worker.waiting", code="queue_full")
    assert journal.read()["INCUS_EVENT"] == "worker.waiting"


def test_unknown_event_is_a_mistake() -> None:
    """Only events of the table can be logged."""
    with pytest.raises(KeyError):
        log("no.such_event")


EVIL = "/x\u202e\x1b[2J\u2028 y"


def test_journal_has_the_value_in_its_field_and_escaped_in_its_sentence(journal: Reader) -> None:
    """Journalctl shows the sentence as it is, and programs read the fields."""
    log("push.delivered", instance="web1", path=EVIL)
    fields = journal.read()
    assert is_plain(fields["MESSAGE"])
    assert fields["INCUS_PATH"] == EVIL


@pytest.mark.parametrize("form", ["json", "console"])
def test_line_cannot_steer_a_terminal(stderr: socket.socket, form: Literal["json", "console"]) -> None:
    """Who reads the log as it is written sees what was there, and nothing of it is obeyed."""
    logs.setup(Log(format=form), "worker")
    log("push.delivered", instance="web1", path=EVIL)
    line = stderr.recv(65536).decode().rstrip("\n")
    assert is_plain(line)
    assert form == "console" or json.loads(line)["path"] == EVIL
