"""Who is let in."""

import asyncio
import gc
import os
from collections.abc import Iterator

import pytest

from api.http.peers import Shares
from api.queries.reader import Reader, Waiting
from api.uploads import backlog as backlog_module
from api.uploads.admission import Admission, fits
from api.uploads.backlog import Backlog
from api.uploads.headroom import Headroom
from daemon.config import Limits
from daemon.errors import Rejected
from daemon.process.shared_counts import Column, SharedCounts, create

LIMITS = Limits(max_upload_bytes=1000, max_pending_tasks=10, max_pending_bytes=5000, min_free_bytes=100)
NOTHING = Waiting()


def door(waiting: Waiting = NOTHING, free_bytes: int = 10_000, counts: SharedCounts | None = None) -> Admission:
    """The door of a process with four places, alone unless it has `counts` in common with others."""
    common = counts or SharedCounts()
    return Admission(waiting, Shares(lambda: 4, common, Column.UPLOADS), common.tally(Column.ANNOUNCED_BYTES),
                     Headroom(common, lambda: free_bytes))


@pytest.fixture
def doors() -> Iterator[tuple[Admission, Admission]]:
    """The doors of two processes of one service."""
    descriptor = create(2)
    first, second = (door(counts=SharedCounts(descriptor, row)) for row in range(2))
    yield first, second
    os.close(descriptor)


def code_of(admission: Admission, length: int | None = 0, peer: str = "me", limits: Limits = LIMITS) -> str | None:
    """What an upload would be refused with now, or None."""
    try:
        with admission.admit(length, peer, limits):
            return None
    except Rejected as error:
        return error.code


@pytest.mark.parametrize(("tasks", "size_bytes", "fitting"), [
    (1, 1000, True), (10, 5000, True), (11, 0, False), (1, 5001, False)])
def test_backlog_is_full_exactly_at_its_limits(tasks: int, size_bytes: int, *, fitting: bool) -> None:
    """Whichever is reached first."""
    assert fits(tasks, size_bytes, LIMITS) == fitting


@pytest.mark.parametrize(("waiting", "length", "code"), [
    (Waiting(tasks=10), 0, "backlog_full"), (Waiting(tasks=9), 0, None),
    (Waiting(size_bytes=4500), 500, None), (Waiting(size_bytes=4500), 501, "backlog_full")])
def test_upload_counts_for_the_backlog_while_it_is_decided_about(
    waiting: Waiting, length: int, code: str | None,
) -> None:
    """With what waits, and what was accepted since that was counted."""
    assert code_of(door(waiting), length) == code
    since = door()
    since.refresh(waiting, Waiting())
    assert code_of(since, length) == code
    since.refresh(Waiting(), Waiting(tasks=-waiting.tasks, size_bytes=-waiting.size_bytes))
    assert code_of(since, length) == code


@pytest.mark.parametrize(("length", "free", "code"), [
    (500, 600, None), (501, 600, "no_room"), (0, 100, None), (0, 99, "no_room")])
def test_upload_leaves_as_much_on_the_disk_as_is_wanted(length: int, free: int, code: str | None) -> None:
    """The limit is reached exactly at its number."""
    assert code_of(door(free_bytes=free), length) == code


def test_upload_is_refused_when_it_is_too_large_first_and_when_its_peer_has_no_place_last() -> None:
    """What cannot be helped by waiting is said first."""
    admission = door()
    admission.draining = True
    assert [code_of(admission, 1001), code_of(admission, 0)] == ["too_large", "draining"]
    admission.draining = False
    with admission.admit(0, "me", LIMITS), admission.admit(0, "me", LIMITS), admission.admit(0, "me", LIMITS):
        assert [code_of(admission), code_of(admission, peer="you")] == ["too_busy", None]


def test_place_is_given_back_when_an_upload_ends_either_way() -> None:
    """An upload that fails leaves no trace in the counts."""
    admission = door()
    with admission.admit(300, "me", LIMITS) as place:
        place.owe(100)
        assert (admission.shares.taken, admission.announced.total, admission.headroom.unwritten_bytes) == (1, 300, 100)
    with pytest.raises(ZeroDivisionError), admission.admit(300, "me", LIMITS):
        raise ZeroDivisionError
    assert code_of(door(free_bytes=0)) == "no_room"
    assert (admission.shares.taken, admission.announced.total, admission.headroom.unwritten_bytes) == (0, 0, 0)


def test_body_of_unknown_length_is_counted_as_it_comes() -> None:
    """The piece before the newest may still be held in memory, all others are written."""
    admission = door(free_bytes=600)
    with admission.admit(None, "me", LIMITS) as place:
        for size, owed in ((200, 200), (100, 300), (400, 500)):
            place.expect(size)
            assert admission.headroom.unwritten_bytes == owed
        assert code_of(admission, 1) == "no_room"
        with pytest.raises(Rejected, check=lambda error: error.code == "no_room"):
            place.expect(101)
    assert admission.headroom.unwritten_bytes == 0


def test_body_that_is_ahead_of_the_disk_counts_until_it_is_written() -> None:
    """What is not written, and what was expected last: who writes may hold that back."""
    admission = door(free_bytes=9999)
    with admission.admit(None, "me", LIMITS) as place:
        for size, unwritten, owed in ((200, 0, 200), (100, 200, 300), (100, 300, 400), (50, 250, 400), (50, 0, 100)):
            place.expect(size, unwritten)
            assert admission.headroom.unwritten_bytes == owed
    assert admission.headroom.unwritten_bytes == 0


def test_body_of_unknown_length_counts_in_full_since_the_disk_was_asked() -> None:
    """Each piece does, though no more than two of them are ever on their way at once."""
    free = [1000]
    counts = SharedCounts()
    admission = door(counts=counts)
    admission.headroom = Headroom(counts, lambda: free[0], lambda: 0.0)
    with admission.admit(None, "me", LIMITS) as place:
        place.expect(300)
        place.expect(300)
        free[0] = 700
        place.expect(300)
        free[0] = 400
        with pytest.raises(Rejected, check=lambda error: error.code == "no_room"):
            place.expect(300)


def test_processes_do_not_fill_the_disk_together(doors: tuple[Admission, Admission]) -> None:
    """What one is receiving counts for the other."""
    first, second = doors
    limits = LIMITS.model_copy(update={"min_free_bytes": 9_100})
    with first.admit(500, "me", limits) as place:
        assert [code_of(second, 400, limits=limits), code_of(second, 401, limits=limits)] == [None, "no_room"]
        place.owe(0)
        assert code_of(second, 900, limits=limits) is None


def test_limits_hold_for_all_processes_together(doors: tuple[Admission, Admission]) -> None:
    """Places, tasks and bytes."""
    first, second = doors
    narrow = LIMITS.model_copy(update={"max_pending_bytes": 1000})
    scarce = LIMITS.model_copy(update={"max_pending_tasks": 1})
    with first.admit(600, "me", LIMITS):
        assert [code_of(second, 400, limits=narrow), code_of(second, 401, limits=narrow)] == [None, "backlog_full"]
        assert code_of(second, limits=scarce) == "backlog_full"
        with first.admit(0, "you", LIMITS), first.admit(0, "you", LIMITS), first.admit(0, "they", LIMITS):
            assert code_of(second, peer="other") == "too_busy"
    assert code_of(second, peer="other") is None


def test_upload_that_was_accepted_while_it_is_counted_counts() -> None:
    """It may be in the new counts or not: together they are never too low."""
    admission = door()
    admission.accepted(70)
    before = admission.since
    admission.accepted(30)
    admission.refresh(Waiting(tasks=1, size_bytes=70), before)
    assert admission.waiting == Waiting(tasks=2, size_bytes=100)
    admission.refresh(Waiting(tasks=2, size_bytes=100), admission.since)
    assert admission.waiting == Waiting(tasks=2, size_bytes=100)


def test_what_was_counted_twice_is_counted_once_when_the_counts_are_renewed() -> None:
    """Counts that may be too high are taken anew before an upload is turned away."""
    counted = Waiting(tasks=LIMITS.max_pending_tasks - 1)

    async def scenario() -> Admission:
        admission = door(counted)
        admission.accepted(0)
        assert code_of(admission) == "backlog_full"
        backlog = Backlog(Reading(counted), admission)
        await backlog.renew()
        backlog.close()
        return admission

    assert code_of(asyncio.run(scenario())) is None


def test_counts_that_nobody_waited_for_are_no_mistake_when_they_cannot_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh enough counts are still there; the uploads that need newer ones are told, and the log has no mistake."""
    monkeypatch.setattr(backlog_module, "SNAPSHOT_S", 0.0)
    mistakes: list[object] = []

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: mistakes.append(context))
        backlog = Backlog(Unreadable(NOTHING), door())
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

    def __init__(self, found: Waiting) -> None:
        self._found = found

    def waiting(self) -> Waiting:
        """The counts."""
        return self._found


class Unreadable(Reading):
    """Cannot read."""

    def waiting(self) -> Waiting:
        """Refuse."""
        raise Rejected("storage_failed")
