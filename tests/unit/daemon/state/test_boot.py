"""Which start of the machine this is, and what is done where nobody says it."""

import uuid
from pathlib import Path

import pytest

from daemon.state import boot
from daemon.state.boot import VARIABLE, boot_id
from tests.support.depot import Depot, an_upload, sealed


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does not see /proc/sys."""
    monkeypatch.setattr(boot, "_BOOT_ID", Path("/proc/sys/none"))
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.usefixtures("hidden")
def test_boot_id_is_told_by_systemd_to_whoever_does_not_see_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the form of the kernel, so that both tell the same; what is no id is none."""
    assert boot_id() is None
    told = uuid.uuid4()
    monkeypatch.setenv(VARIABLE, told.hex)
    assert boot_id() == str(told)
    monkeypatch.setenv(VARIABLE, "%b")
    assert boot_id() is None


@pytest.mark.usefixtures("hidden")
def test_uploads_are_taken_where_nobody_says_which_boot_it_is(quick_path: Path) -> None:
    """Each process then leaves numbers of events out, and whoever follows misses nothing."""
    with Depot(quick_path / "state") as depot:
        depot.queue.put_many(sealed(an_upload("/1")), supersede=False)
        last = depot.queue.position()
    with Depot(quick_path / "state") as depot:
        [upload] = [an_upload("/2")]
        depot.queue.put_many(sealed(upload), supersede=False)
        happened = depot.queue.happened(last, 9)
        assert not happened.lost
        assert [event.task_id for event in happened.events] == [upload.task_id]
        assert happened.events[0].seq > last.seq + 1
