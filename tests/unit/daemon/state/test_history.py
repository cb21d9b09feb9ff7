"""The last hour in numbers: one writer among all processes, gaps where nobody counted, and clocks that are set."""

from pathlib import Path
from typing import Any

import pytest

from daemon import failpoints
from daemon.state.history import (
    SLOTS,
    STEP_S,
    HistoryFile,
    Hour,
    Sample,
    pack,
    rates_between,
    rates_now,
    series,
    unpack,
    with_sample,
)
from daemon.state.layout import Layout

#: The beginning of a slot.
NOON = 1_700_000_000.0


def sample(step: int, **values: Any) -> Sample:
    """What is counted so many slots after noon: ten uploads and five deliveries in each."""
    defaults: dict[str, Any] = {
        "at": NOON + step * STEP_S + 0.05, "tick": 5000.0 + step * STEP_S, "uploads": 100.0 + 10 * step, "upload_bytes": 1e6,
        "deliveries": 50.0 + 5 * step, "delivery_bytes": 1e6, "waiting": 7.0, "failed": 1.0}
    return Sample(**{**defaults, **values})


def hour_of(*samples: Sample) -> Hour:
    """The hour that these make, one after the other."""
    hour: Hour = {}
    for one in samples:
        hour = with_sample(hour, one)
    return hour


@pytest.fixture
def layout(quick_path: Path) -> Layout:
    """A state directory."""
    made = Layout(quick_path / "state")
    made.create()
    return made


def test_hour_has_what_came_and_went_in_each_second_and_gaps_are_none() -> None:
    """A rate needs two slots beside each other; what waited is known from one."""
    found = series(hour_of(sample(0), sample(1), sample(3), sample(4)), NOON + 4 * STEP_S + 5)
    assert found.until == NOON + 4 * STEP_S
    assert (len(found.uploads), found.uploads[-6:]) == (SLOTS, (None, None, 1.0, None, None, 1.0))
    assert found.deliveries[-4:] == (0.5, None, None, 0.5)
    assert found.waiting[-6:] == (None, 7, 7, None, 7, 7)
    assert found.failed[-1] == 1


def test_slot_that_is_about_to_be_written_is_no_gap() -> None:
    """But for one whose time is over."""
    hour = hour_of(sample(0), sample(1))
    assert series(hour, NOON + 2 * STEP_S).waiting[-1] == 7
    assert series(hour, NOON + 3 * STEP_S).waiting[-2:] == (7, None)
    assert set(series({}, NOON).waiting) == {None}


def test_hour_forgets_what_is_older() -> None:
    """Each place is used again after an hour."""
    hour = hour_of(sample(0), sample(1), sample(SLOTS))
    assert sorted(hour) == [sample(1).slot, sample(SLOTS).slot]
    assert unpack(pack(hour)) == hour


def test_clock_that_is_set_back_leaves_no_later_slots_and_no_wrong_rates() -> None:
    """What was written under times to come is gone; ten minutes' uploads do not look like those of ten seconds."""
    before = [sample(step) for step in range(61)]
    back = [sample(step, at=sample(step - 60).at) for step in range(61, 63)]
    hour = hour_of(*before, *back)
    assert max(hour) == back[-1].slot
    found = series(hour, back[-1].at)
    assert found.uploads[-3:] == (None, None, 1.0)


@pytest.mark.parametrize("newer", [
    sample(1, tick=3.0), sample(1, uploads=3.0), sample(1, tick=5000.0), sample(60),
], ids=["another boot", "counting began anew", "no time", "long ago"])
def test_moments_that_do_not_belong_together_have_no_rates(newer: Sample) -> None:
    """Neither a restart of the machine nor a rebuilt queue looks like a flood."""
    assert rates_between(sample(0), newer) is None


def test_rates_of_now_are_those_since_a_slot_of_some_seconds_ago() -> None:
    """Not of the moment in which two counts were made; None until there is such a slot."""
    hour = hour_of(sample(0), sample(1))
    now = sample(1, at=NOON + STEP_S + 2, tick=5012.0, uploads=160.0)
    rates = rates_now(hour, now)
    assert rates is not None
    assert rates.uploads_s == pytest.approx(5.0)
    assert rates_now({}, now) is None


def test_one_of_all_processes_writes_until_it_ends_and_all_read(layout: Layout) -> None:
    """The next one goes on with what is there."""
    first, second = HistoryFile(layout), HistoryFile(layout)
    assert first.add(sample(0))
    assert not second.add(sample(1))
    assert first.add(sample(1))
    assert second.read() == hour_of(sample(0), sample(1))
    first.close()
    assert second.add(sample(2))
    assert HistoryFile(layout).read() == hour_of(sample(0), sample(1), sample(2))
    second.close()


def test_file_that_is_damaged_or_gone_is_an_hour_of_gaps(layout: Layout) -> None:
    """Half a slot is none; a file that was removed begins anew, for all."""
    file = HistoryFile(layout)
    assert file.read() == {}
    file.add(sample(0))
    file.add(sample(1))
    whole = layout.history.read_bytes()
    assert unpack(whole.replace(b"\x40", b"\x41")) == {}
    assert unpack(whole[:-len(whole) // 2] + whole[:7]).keys() <= {sample(0).slot, sample(1).slot}
    layout.history.unlink()
    assert file.add(sample(2))
    assert HistoryFile(layout).read() == hour_of(sample(2))
    file.close()


def test_disk_without_room_leaves_a_gap(layout: Layout) -> None:
    """What was written stays."""
    file = HistoryFile(layout)
    file.add(sample(0))
    failpoints.arm("history.write=ENOSPC@1")
    with pytest.raises(OSError, match="No space"):
        file.add(sample(1))
    assert file.add(sample(2))
    assert sorted(file.read()) == [sample(0).slot, sample(2).slot]
    file.close()
