"""Who is let in."""

import asyncio
import gc
from dataclasses import replace

import pytest

from api.http.peers import Shares
from api.queries.reader import Reader, Snapshot
from api.uploads import backlog as backlog_module
from api.uploads.admission import Admission, Load, refusal
from api.uploads.backlog import Backlog
from daemon.config import Limits
from daemon.errors import Rejected

LIMITS = Limits(max_upload_bytes=1000, max_pending_tasks=10, max_pending_bytes=5000, min_free_bytes=100)
EMPTY = Snapshot(pending_tasks=0, pending_bytes=0, free_bytes=10_000)


@pytest.mark.parametrize(("length", "seen", "load", "draining", "code"), [
    (1000, EMPTY, Load(), False, None),
    (None, EMPTY, Load(), False, None),
    (1001, EMPTY, Load(), False, "too_large"),
    (1001, EMPTY, Load(), True, "too_large"),
    (0, EMPTY, Load(), True, "draining"),
    (0, Snapshot(pending_tasks=10, pending_bytes=0, free_bytes=10_000), Load(), False, "backlog_full"),
    (0, Snapshot(pending_tasks=9, pending_bytes=0, free_bytes=10_000), Load(), False, None),
    (0, Snapshot(pending_tasks=9, pending_bytes=0, free_bytes=10_000), Load(tasks_since=1), False, "backlog_full"),
    (0, Snapshot(pending_tasks=9, pending_bytes=0, free_bytes=10_000), Load(uploads=1), False, "backlog_full"),
    (500, Snapshot(pending_tasks=0, pending_bytes=4500, free_bytes=10_000), Load(), False, None),
    (501, Snapshot(pending_tasks=0, pending_bytes=4500, free_bytes=10_000), Load(), False, "backlog_full"),
    (1, Snapshot(pending_tasks=0, pending_bytes=4500, free_bytes=10_000), Load(task_bytes_since=500), False, "backlog_full"),
    (1, Snapshot(pending_tasks=0, pending_bytes=4500, free_bytes=10_000), Load(announced_bytes=500), False, "backlog_full"),
    (500, Snapshot(pending_tasks=0, pending_bytes=0, free_bytes=600), Load(), False, None),
    (501, Snapshot(pending_tasks=0, pending_bytes=0, free_bytes=600), Load(), False, "no_room"),
    (1, Snapshot(pending_tasks=0, pending_bytes=0, free_bytes=600), Load(unwritten_bytes=500), False, "no_room"),
    (1, Snapshot(pending_tasks=0, pending_bytes=0, free_bytes=600), Load(written_since=500), False, "no_room"),
    (None, Snapshot(pending_tasks=0, pending_bytes=0, free_bytes=99), Load(), False, "no_room"),
])
def test_refusal_is_decided_by_what_is_announced_and_what_is_there(
    length: int | None, seen: Snapshot, load: Load, draining: bool, code: str | None,
) -> None:
    """Each limit is reached exactly at its number, with what is being received counted in."""
    assert refusal(length, limits=LIMITS, has_place=True, seen=seen, load=load, draining=draining) == code


def test_upload_is_refused_when_its_peer_has_no_place() -> None:
    """Not before it is known that it could be taken otherwise."""
    for length, code in ((0, "too_busy"), (1001, "too_large")):
        assert refusal(length, limits=LIMITS, has_place=False, seen=EMPTY, load=Load(), draining=False) == code


def test_place_is_given_back_when_an_upload_ends_either_way() -> None:
    """An upload that fails leaves no trace in the counts."""
    admission = Admission(EMPTY, Shares(lambda: 4))
    with admission.admit(300, "me", LIMITS) as place:
        place.wrote(100)
        assert (admission.load.uploads, admission.load.announced_bytes, admission.load.unwritten_bytes) == (1, 300, 200)
    with pytest.raises(ZeroDivisionError), admission.admit(300, "me", LIMITS):
        raise ZeroDivisionError
    assert admission.load == Load(written_since=100)


def test_place_owes_nothing_below_zero_when_more_comes_than_was_announced() -> None:
    """A body of unknown length pays for nothing that others announced."""
    admission = Admission(EMPTY, Shares(lambda: 4))
    with admission.admit(None, "me", LIMITS) as place, admission.admit(50, "me", LIMITS):
        place.wrote(700)
        assert admission.load.unwritten_bytes == 50


def test_counts_since_the_snapshot_are_forgotten_when_there_is_a_newer_one() -> None:
    """What the new snapshot counts is not counted again."""
    admission = Admission(EMPTY, Shares(lambda: 4))
    admission.accepted(70)
    assert (admission.load.tasks_since, admission.load.task_bytes_since) == (1, 70)
    admission.refresh(Snapshot(pending_tasks=1, pending_bytes=70, free_bytes=9_000), replace(admission.load))
    assert admission.load == Load()
    assert not admission.doubtful


def test_upload_that_was_accepted_while_a_snapshot_was_taken_is_counted() -> None:
    """It may be in the snapshot or not: the count is never too low, and says that it may be too high."""
    admission = Admission(EMPTY, Shares(lambda: 4))
    admission.accepted(70)
    before = replace(admission.load)
    with admission.admit(30, "me", LIMITS) as place:
        place.wrote(30)
    admission.accepted(30)
    admission.refresh(Snapshot(pending_tasks=1, pending_bytes=70, free_bytes=9_000), before)
    assert admission.load == Load(tasks_since=1, task_bytes_since=30, written_since=30)
    assert admission.doubtful
    admission.refresh(Snapshot(pending_tasks=2, pending_bytes=100, free_bytes=9_000), replace(admission.load))
    assert (admission.load, admission.doubtful) == (Load(), False)


def test_nobody_is_refused_for_a_doubtful_count() -> None:
    """Counts that may be too high are taken anew before an upload is turned away."""
    full = Snapshot(pending_tasks=LIMITS.max_pending_tasks - 1, pending_bytes=0, free_bytes=10**9)

    async def scenario() -> Admission:
        admission = Admission(full, Shares(lambda: 4))
        before = replace(admission.load)
        admission.accepted(0)
        admission.refresh(full, before)
        assert admission.refusal(0, "me", LIMITS) == "backlog_full"
        backlog = Backlog(Reading(full), admission)
        await backlog.settle_doubt()
        backlog.close()
        return admission

    assert asyncio.run(scenario()).refusal(0, "me", LIMITS) is None


def test_counts_that_nobody_waited_for_are_no_mistake_when_they_cannot_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh enough counts are still there; the uploads that need newer ones are told, and the log has no mistake."""
    monkeypatch.setattr(backlog_module, "SNAPSHOT_S", 0.0)
    mistakes: list[object] = []

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: mistakes.append(context))
        backlog = Backlog(Unreadable(EMPTY), Admission(EMPTY, Shares(lambda: 4)))
        await backlog.freshen()
        monkeypatch.setattr(backlog_module, "MAX_AGE_S", -1.0)
        with pytest.raises(Rejected, check=lambda error: error.code == "storage_failed"):
            await backlog.freshen()
        monkeypatch.setattr(backlog_module, "MAX_AGE_S", 1000.0)
        await backlog.freshen()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(others)
        del others
        backlog.close()

    asyncio.run(scenario())
    gc.collect()
    assert mistakes == []


class Reading(Reader):
    """Reads always the same counts."""

    def __init__(self, found: Snapshot) -> None:
        self._found = found

    def snapshot(self) -> Snapshot:
        """The counts."""
        return self._found


class Unreadable(Reading):
    """Cannot read."""

    def snapshot(self) -> Snapshot:
        """Refuse."""
        raise Rejected("storage_failed")


def test_upload_is_let_in_again_when_there_is_room_again() -> None:
    """A refusal is about now."""
    admission = Admission(Snapshot(pending_tasks=0, pending_bytes=0, free_bytes=0), Shares(lambda: 4))
    with pytest.raises(Rejected, check=lambda error: error.code == "no_room"), admission.admit(1, "me", LIMITS):
        pass
    admission.refresh(EMPTY, replace(admission.load))
    with admission.admit(1, "me", LIMITS):
        assert admission.load.uploads == 1
