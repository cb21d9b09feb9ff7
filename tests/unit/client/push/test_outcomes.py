"""What becomes of files as exit codes, lines of JSON and sentences; and what an interrupted push leaves."""

import json
from pathlib import Path

import pytest

from client.http import Response
from client.push.outcomes import PushedFile, PushEnd, accepted, decided, exit_code, is_finished, unsent
from client.push.plan import PlannedFile
from client.push.record import ACCEPTED_KEPT_S, UPLOAD_KEPT_S, ResumeEntry, ResumeRecord, entry_key, state_directory
from client.push.report import shown_size, summary
from client.push.sending import next_part_bytes
from client.push.source import FileIdentity
from client.push.unsent import Unsent

FILE = PlannedFile("report", "/srv/report", 3, 0o640)
TASK = "01a203af-ced4-760f-ae26-10636e7e5bca"


def ended(*ends: PushEnd) -> list[PushedFile]:
    """Files that ended so."""
    return [PushedFile(source="f", to="/f", end=end) for end in ends]


@pytest.mark.parametrize(("ends", "code"), [
    ((), 0),
    ((PushEnd.ACCEPTED, PushEnd.DELIVERED, PushEnd.SKIPPED, PushEnd.PLANNED), 0),
    ((PushEnd.FAILED, PushEnd.SKIPPED), 1),
    ((PushEnd.FAILED, PushEnd.DELIVERED), 3),
    ((PushEnd.FAILED, PushEnd.UNDECIDED), 3),
    ((PushEnd.DELIVERED, PushEnd.UNDECIDED), 75),
    ((PushEnd.DELIVERED, PushEnd.INTERRUPTED, PushEnd.FAILED), 130),
])
def test_exit_code_says_how_far_all_files_came(ends: tuple[PushEnd, ...], code: int) -> None:
    """0 means that nothing is missing; each other number says what a script does next."""
    assert exit_code(ended(*ends)) == code
    assert exit_code(ended(*ends), interrupted=True) == 130


@pytest.mark.parametrize(("task", "end", "code"), [
    ({"id": TASK, "state": "delivered", "error": {"code": "old", "message": "x"}}, PushEnd.DELIVERED, None),
    ({"id": TASK, "state": "failed", "error": {"code": "target_is_directory", "message": "x"}}, PushEnd.FAILED, "target_is_directory"),
    ({"id": TASK, "state": "superseded", "error": None}, PushEnd.FAILED, "superseded"),
    ({"id": TASK, "state": "deferred", "error": None}, None, None),
    ({"id": [], "state": "unheard", "error": 3}, None, None),
])
def test_only_what_is_delivered_is_in_place(task: dict[str, object], end: PushEnd | None, code: str | None) -> None:
    """A dead letter, a newer upload and a cancelled task are failures, with their reason; all else is not decided."""
    found = decided(FILE, task)
    assert (found.end if found else None, found.code if found else None) == (end, code)


def test_refusal_keeps_the_words_of_the_service() -> None:
    """A code of a newer service is told as it is; what is no answer of this service is told as such."""
    kind = {"content-type": "application/problem+json"}
    new = Unsent.refused(Response(400, kind, json.dumps({"code": "new_code", "detail": "New.", "hint": "Do."}).encode()))
    assert (new.code, new.detail, new.hint, new.resumable) == ("new_code", "New.", "Do.", False)
    odd = Unsent.refused(Response(404, {"content-type": "text/html"}, b"<h1>"))
    assert (odd.code, odd.detail) == ("bad_answer", "It answered 404 Not Found.")
    assert Unsent.refused(Response(401, kind, b"[1]")).resumable
    assert unsent(FILE, odd).as_json("c1")["error"]["code"] == "bad_answer"
    assert unsent(FILE, Unsent("undecided"), task_id=TASK).end is PushEnd.UNDECIDED


def test_sentence_of_one_file_says_where_it_is() -> None:
    """A single file is told with its task; of many there is a sum."""
    assert summary([accepted(FILE, TASK)], "c1") == f"report is accepted for c1/srv/report (task {TASK})"
    assert summary([*ended(PushEnd.FAILED), accepted(FILE, TASK)], "c1") == "2 files: 1 accepted, 1 failed (3 bytes)"
    assert [shown_size(size) for size in (1023, 1024, 5 * 2**30)] == ["1023 bytes", "1.0 KiB", "5.0 GiB"]


def test_parts_grow_until_they_take_long_enough() -> None:
    """A fast line gets large parts, a slow one small ones, so that little is sent again after a crash."""
    assert next_part_bytes(2**24, 0.01) == 2**25
    assert next_part_bytes(2**30, 0.0) == 2**30
    assert next_part_bytes(2**24, 1000.0) == 2**23
    assert next_part_bytes(1, 1000.0) >= 1


def test_record_is_of_one_file_as_it_was(tmp_path: Path) -> None:
    """Another size, time, inode, destination, mode or server is another file; a run that ended leaves nothing."""
    was = FileIdentity(1, 2, 3, 4)
    key = entry_key("s", FILE, was, {"mode": "0640"})
    others = {entry_key("t", FILE, was, {"mode": "0640"}), entry_key("s", FILE, FileIdentity(1, 2, 3, 5), {"mode": "0640"}),
              entry_key("s", PlannedFile("report", "/x", 3, 0o640), was, {"mode": "0640"}), entry_key("s", FILE, was, {})}
    assert key not in others
    assert len(others) == 4
    first = ResumeRecord(tmp_path / "push", "s", now=1000.0)
    first.note(ResumeEntry(key=key, at=1000.0, upload="u"))
    first.note(ResumeEntry(key="sent", at=1000.0, task_id=TASK))
    first.note(ResumeEntry(key="given up", at=1000.0, upload="v"))
    first.forget("given up")
    assert ResumeRecord(tmp_path / "push", "s", now=1000.0).find(key) is None, "a run that is at work keeps its own"
    first.close(finished=False)
    assert ResumeRecord(tmp_path / "push", "other", now=1000.0).find(key) is None
    [kept] = (tmp_path / "push").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.write_bytes(kept.read_bytes() + b'{"key": 7}\n[\n{"key": "x", "odd": 1}\n"y"\n{"key"')
    second = ResumeRecord(tmp_path / "push", "s", now=1000.0 + ACCEPTED_KEPT_S + 1)
    found = second.find(key)
    assert found is not None
    assert found.upload == "u"
    assert second.find("sent") is None, "later the instance may be another one"
    assert second.find("given up") is None
    second.close(finished=True)
    assert list((tmp_path / "push").iterdir()) == []


def test_old_records_are_swept_and_none_is_needed(tmp_path: Path) -> None:
    """Whichever run comes by takes old ones away; where none can be kept, a push goes on without."""
    left = ResumeRecord(tmp_path / "push", "s")
    left.note(ResumeEntry(key="k", at=0.0, upload="u"))
    left.close(finished=False)
    [file] = (tmp_path / "push").iterdir()
    ResumeRecord(tmp_path / "push", "other", now=file.stat().st_mtime + UPLOAD_KEPT_S + 1)
    assert list((tmp_path / "push").iterdir()) == []
    (tmp_path / "file").write_text("")
    nowhere = ResumeRecord(tmp_path / "file" / "push", "s")
    nowhere.note(ResumeEntry(key="k", at=0.0, upload="u"))
    assert not nowhere.is_kept
    nowhere.close(finished=True)


def test_record_is_where_the_desktop_rules_say() -> None:
    """$XDG_STATE_HOME, if it is absolute; else below the home directory."""
    assert state_directory({"XDG_STATE_HOME": "/s", "HOME": "/h"}) == Path("/s/incus-courier/push")
    assert state_directory({"XDG_STATE_HOME": "s", "HOME": "/h"}) == Path("/h/.local/state/incus-courier/push")


def test_nothing_is_left_to_go_on_with_unless_something_is() -> None:
    """What was refused for good is at its end; what was interrupted, undecided or passing is not."""
    assert is_finished(ended(PushEnd.DELIVERED, PushEnd.FAILED, PushEnd.SKIPPED))
    assert not is_finished(ended(PushEnd.UNDECIDED))
    assert not is_finished([unsent(FILE, Unsent("no_server", resumable=True))])
