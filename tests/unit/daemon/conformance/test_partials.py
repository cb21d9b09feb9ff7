"""What the door of resumable uploads promises, whatever stands behind it."""

import dataclasses
import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from daemon.errors import Rejected
from daemon.model.upload import Destination, Upload
from daemon.partials import Census, Partial, Partials, PartialState, Phase, Plan, count, open_partials
from daemon.spool import CheckedSpool, open_checked
from daemon.state.layout import Layout
from tests.support.depot import new_id

DATA = b"hello, world"
PLAN = Plan(destination=Destination("local", "default", "c1", "/x"), display_name="x", mode=0o640, uid=None, gid=7,
            mkdirs=None, idempotency_key="k", digests=frozenset({("sha-256", "00")}), owner="token:ci",
            metadata="path eA==", created_at=1000.5)


@dataclass
class Kept:
    """What keeps resumable uploads, as two processes open it."""

    layout: Layout
    spool: CheckedSpool
    partials: Partials
    others: Partials

    def make(self, length: int | None = len(DATA)) -> str:
        """Make one."""
        return self.partials.create(PLAN, length)

    def hold(self, upload_id: str, partials: Partials | None = None) -> Partial:
        """Hold one that nobody holds."""
        turn = (partials or self.partials).want(upload_id)
        assert turn is not None
        partial = turn.take()
        assert partial is not None
        return partial

    def state(self, upload_id: str) -> PartialState:
        """How one stands."""
        found = self.others.find(upload_id)
        assert found is not None
        return found[1]

    def receive(self, data: bytes = DATA) -> str:
        """Make one and give it bytes."""
        upload_id = self.make()
        partial = self.hold(upload_id)
        partial.store([data])
        partial.keep(2000.0)
        partial.release()
        return upload_id

    def choose(self, upload_id: str) -> tuple[Partial, Upload]:
        """Receive the rest of one, and choose what it becomes."""
        partial = self.hold(upload_id)
        partial.rewind()
        partial.store([DATA[partial.size:]])
        partial.keep(2000.0)
        upload = an_upload()
        partial.choose(upload)
        return partial, upload

    def move(self, upload_id: str) -> Upload:
        """Bring one into the spool, as far as a crash before its row would leave it."""
        partial, upload = self.choose(upload_id)
        partial.incoming().seal(upload).release()
        partial.release()
        return upload


def an_upload() -> Upload:
    """What the upload of DATA becomes."""
    return Upload(task_id=new_id(), destination=PLAN.destination, size=len(DATA), created_at=3000.0,
                  sha256=hashlib.sha256(DATA).hexdigest())


@pytest.fixture
def kept(quick_path: Path) -> Iterator[Kept]:
    """Nothing yet."""
    layout = Layout(quick_path / "state")
    layout.create()
    spool = open_checked(layout)
    kept = Kept(layout, spool, open_partials(layout, spool), open_partials(layout, spool))
    yield kept
    kept.partials.close()
    kept.others.close()
    spool.close()


def test_what_was_asked_for_is_there_for_every_process(kept: Kept) -> None:
    """All of it, with what its client wants to be told again."""
    upload_id = kept.make(5)
    assert kept.others.find(upload_id) == (PLAN, PartialState(offset=0, length=5, changed_at=PLAN.created_at))
    assert kept.make(None) != upload_id


@pytest.mark.parametrize("upload_id", ["", "../access/x", "x" * 22, "x" * 22 + ".head", "\0" * 22])
def test_nothing_is_found_under_another_name(kept: Kept, upload_id: str) -> None:
    """Whatever a client writes into an address."""
    assert kept.partials.find(upload_id) is None
    assert kept.partials.want(upload_id) is None


def test_what_was_kept_is_told_and_what_was_only_stored_is_not(kept: Kept) -> None:
    """A crash leaves what was told, and the next one goes on from there."""
    upload_id = kept.make()
    partial = kept.hold(upload_id)
    partial.store([b"hel", b"lo"])
    partial.keep(2000.0)
    partial.store([b"torn"])
    assert (kept.state(upload_id).offset, partial.size) == (5, 9)
    partial.release()
    again = kept.hold(upload_id, kept.others)
    again.rewind()
    again.store([DATA[5:8]])
    assert again.read(0, 99) == DATA[:8]
    again.release()


def test_last_byte_is_not_told_before_the_end(kept: Kept) -> None:
    """Who is told all of it would take it for done; what was told before is never taken back."""
    upload_id = kept.receive()
    assert kept.state(upload_id) == PartialState(offset=len(DATA) - 1, length=len(DATA), changed_at=2000.0)
    unknown = kept.make(None)
    partial = kept.hold(unknown)
    partial.store([DATA])
    partial.keep(2000.0)
    partial.keep(2001.0, len(DATA))
    partial.release()
    assert kept.state(unknown) == PartialState(offset=len(DATA), length=len(DATA), changed_at=2001.0)


def test_newest_request_gets_an_upload(kept: Kept) -> None:
    """Whoever has it is told, also in another process; who waited before gives up."""
    upload_id = kept.make()
    held = kept.hold(upload_id)
    assert not held.is_wanted()
    second, third = kept.others.want(upload_id), kept.partials.want(upload_id)
    assert second is not None
    assert third is not None
    assert held.is_wanted()
    assert third.take() is None
    with pytest.raises(Rejected) as refused:
        second.take()
    assert refused.value.code == "upload_busy"
    second.leave()
    held.release()
    taken = third.take()
    assert taken is not None
    assert not taken.is_wanted()
    taken.remove()
    taken.release()
    assert kept.partials.find(upload_id) is None


def test_upload_that_went_while_somebody_waited_is_not_found(kept: Kept) -> None:
    """Its files are no longer anybody's."""
    upload_id = kept.make()
    held, turn = kept.hold(upload_id), kept.others.want(upload_id)
    assert turn is not None
    held.remove()
    held.release()
    with pytest.raises(Rejected) as refused:
        turn.take()
    assert refused.value.code == "upload_not_found"


def test_what_was_chosen_stays_chosen(kept: Kept) -> None:
    """So that completing it twice gives the same task."""
    upload_id = kept.receive()
    partial, upload = kept.choose(upload_id)
    partial.release()
    again = kept.hold(upload_id, kept.others)
    assert (again.state.phase, again.state.upload, again.state.offset) == (Phase.COMPLETING, upload, len(DATA) - 1)
    sealed = again.incoming().seal(upload)
    with kept.spool.open(upload) as file:
        assert file.read(len(DATA)) == DATA
    [refused] = kept.spool.withdraw_all([sealed])
    assert refused is None
    again.release()
    # Its bytes came back.
    assert not kept.spool.holds(upload.destination.bucket, upload.task_id)
    third = kept.hold(upload_id)
    third.incoming().seal(upload).release()
    third.release()
    assert kept.spool.look(upload.destination.bucket, upload.task_id) is not None


def test_moved_one_is_sealed_again_and_not_taken_back(kept: Kept) -> None:
    """After a crash between its name and its row, recovery may have queued it."""
    upload_id = kept.receive()
    upload = kept.move(upload_id)
    again = kept.hold(upload_id, kept.others)
    assert (again.state.upload, again.is_taken) == (upload, False)
    sealed = again.incoming().seal(upload)
    [refused] = kept.spool.withdraw_all([sealed])
    assert refused is not None
    assert refused.code == "outcome_unknown"
    assert kept.spool.holds(upload.destination.bucket, upload.task_id)
    again.release()


def test_one_that_left_the_spool_had_its_row(kept: Kept) -> None:
    """Somebody delivered it, and let go of its bytes."""
    upload_id = kept.receive()
    upload = kept.move(upload_id)
    kept.spool.remove([upload])
    again = kept.hold(upload_id)
    assert again.is_taken
    again.conclude(upload.task_id, 4000.0)
    again.release()
    state = kept.state(upload_id)
    assert (state.phase, state.offset, state.task_id) == (Phase.COMPLETE, len(DATA), upload.task_id)


def test_census_counts_what_is_not_finished(kept: Kept) -> None:
    """Bytes that are here, and those that are still to come; by names, with all below them."""
    kept.receive(DATA[:4])
    done = kept.receive()
    upload = kept.move(done)
    held = kept.hold(done)
    held.conclude(upload.task_id, 4000.0)
    held.release()
    unfinished = Census(number=1, present_bytes=4, owed_bytes=len(DATA) - 4, oldest_at=1000.5)
    assert kept.others.census() == unfinished
    assert kept.others.census_under("token:ci") == unfinished
    assert kept.others.census_under("token:c") == Census()
    below = kept.others.create(dataclasses.replace(PLAN, owner="token:ci/child"), 3)
    assert kept.others.census_under("token:ci").number == 2
    found = count(kept.layout)
    assert (found.number, found.present_bytes) == (2, 4)
    assert below


def test_census_sees_what_changed_in_the_same_moment(kept: Kept) -> None:
    """The clock of the disk is coarse: what follows a look at once may have the time of what was looked at."""
    upload_id = kept.receive(DATA[:4])
    head = kept.layout.partials / f"{upload_id}.head"
    seen = head.stat().st_mtime_ns
    assert kept.others.census(fresh=True).present_bytes == 4
    held = kept.hold(upload_id)
    held.store([DATA[4:6]])
    held.keep(2000.0)
    held.release()
    os.utime(head, ns=(seen, seen))
    assert kept.others.census(fresh=True).present_bytes == 6


def test_sweep_removes_what_nothing_was_heard_of(kept: Kept) -> None:
    """But not what somebody holds, nor what is younger."""
    silent, held = kept.receive(), kept.receive()
    partial = kept.hold(held)
    assert kept.others.sweep(2000.0, 0.0) == []
    assert kept.others.sweep(2011.0, 10.0) == [silent]
    assert not partial.is_wanted()
    partial.release()
    assert kept.partials.find(silent) is None
    assert kept.partials.find(held) is not None


def test_sweep_removes_what_crashes_left(kept: Kept) -> None:
    """Bytes without a head are nobody's, and a damaged head is of no use; both only after a while."""
    orphan = kept.layout.partials / ("o" * 22)
    orphan.write_bytes(b"x")
    damaged, lost = kept.make(), kept.make()
    (kept.layout.partials / lost).unlink()
    (kept.layout.partials / f"{damaged}.head").write_bytes(b"rubbish" * 2000)
    now = time.time()
    assert kept.partials.sweep(now, 86400.0) == []
    assert orphan.exists()
    kept.partials.sweep(now + 2 * 86400.0, 86400.0)
    kept.partials.sweep(now + 2 * 86400.0, 86400.0)
    assert list(kept.layout.partials.iterdir()) == []
