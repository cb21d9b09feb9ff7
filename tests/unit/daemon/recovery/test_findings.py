from dataclasses import replace

import pytest

from daemon.model.task import FINISHED, State, Task
from daemon.model.upload import Destination, Upload
from daemon.recovery.findings import FINDINGS, judge, mark_of
from daemon.spool import FOOTER_BYTES, Found, Mark

_META_BYTES = 300
_SIZE = 1000
_WHOLE = _SIZE + _META_BYTES + FOOTER_BYTES


def _task(state: State, *, code: str | None = None, spooled: bool = True) -> Task:
    upload = Upload(task_id="01890a5d-ac96-774b-bcce-b302099a8057", size=_SIZE, sha256="0" * 64,
                    destination=Destination("local", "default", "c1", "/a"))
    return Task(order=1, upload=upload, state=state, error_code=code, spooled=spooled)


def _file(mark: Mark, size: int = _WHOLE) -> Found:
    return Found(mark, size)


@pytest.mark.parametrize("state", [state for state in State if state not in FINISHED])
def test_task_and_file_agree_when_the_mark_says_the_state_and_the_size_fits(state: State) -> None:
    """A task that is not finished has a whole file whose name says how it stands."""
    assert judge(_task(state), _file(mark_of(state) or Mark.PENDING), _META_BYTES) is None


@pytest.mark.parametrize("state", [State.QUEUED, State.DEFERRED, State.HELD, State.FAILED])
def test_bytes_are_missing_when_a_task_that_needs_them_has_no_file(state: State) -> None:
    """Whatever is not finished needs its bytes."""
    assert judge(_task(state), None, _META_BYTES) == "bytes_missing"


@pytest.mark.parametrize(("code", "found"), [("bytes_missing", None), ("bytes_damaged", _file(Mark.FAILED, 7))])
def test_dead_letter_is_not_found_again_for_what_it_says_itself(code: str, found: Found | None) -> None:
    """What was found once is in the dead letters, and fsck is quiet about it."""
    assert judge(_task(State.FAILED, code=code), found, _META_BYTES) is None


@pytest.mark.parametrize(("state", "mark"), [
    (State.QUEUED, Mark.FAILED), (State.QUEUED, Mark.HELD), (State.DEFERRED, Mark.FAILED)])
def test_row_is_outdated_when_it_waits_and_the_mark_says_that_it_was_stopped(state: State, mark: Mark) -> None:
    """Marks come before rows: the row does not know what came after it. A delivery that is looked at again does."""
    assert judge(_task(state), _file(mark), _META_BYTES) == "row_outdated"
    assert judge(replace(_task(state), recheck=True), _file(mark), _META_BYTES) == "mark_wrong"


@pytest.mark.parametrize(("state", "mark"), [
    (State.FAILED, Mark.PENDING), (State.HELD, Mark.PENDING), (State.HELD, Mark.FAILED)])
def test_mark_is_wrong_when_it_says_another_state(state: State, mark: Mark) -> None:
    """A crash between renaming and settling leaves the two different."""
    assert judge(_task(state), _file(mark), _META_BYTES) == "mark_wrong"


@pytest.mark.parametrize("size", [0, _WHOLE - 1, _WHOLE + 1])
def test_file_is_suspected_when_its_size_does_not_fit(size: int) -> None:
    """A truncated file is seen without being opened."""
    assert judge(_task(State.QUEUED), _file(Mark.PENDING, size), _META_BYTES) == "file_damaged"


def test_file_is_suspected_whatever_its_size_when_sizes_are_not_trusted() -> None:
    """A thorough comparison reads every file."""
    assert judge(_task(State.QUEUED), _file(Mark.PENDING), _META_BYTES, trust_size=False) == "file_damaged"


@pytest.mark.parametrize("state", sorted(FINISHED))
@pytest.mark.parametrize("mark", Mark)
def test_bytes_of_a_finished_task_are_left_only_when_its_row_says_they_are_gone(state: State, mark: Mark) -> None:
    """A finished task's bytes stay until the barrier, under any mark; after it there should be none."""
    assert judge(_task(state), _file(mark), _META_BYTES) is None
    assert judge(_task(state, spooled=False), _file(mark), _META_BYTES) == "bytes_left"
    assert judge(_task(state, spooled=False), None, _META_BYTES) is None


@pytest.mark.parametrize("found", [None, _file(Mark.FAILED, 0)])
def test_task_is_not_judged_while_it_is_pushed(found: Found | None) -> None:
    """Its runner opens the file itself and says what it finds."""
    assert judge(_task(State.PUSHING), found, _META_BYTES) is None


def test_findings_are_sentences() -> None:
    """Every row of the table says what is wrong, what is done about it and what is left to do, in whole sentences."""
    for name, kind in FINDINGS.items():
        assert name == kind.name
        assert kind.title.endswith(".")
        assert kind.repair.endswith(".")
        assert kind.advice.endswith(".")
