"""What an API process counts for good, and the files that keep it."""

import errno
import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from api.counting import kept
from api.counting.counted import Counted
from api.counting.kept import SLOT_BYTES, KeptCounts
from daemon import failpoints
from daemon.errors import ERRORS
from daemon.model import counters
from daemon.model.counters import ACCEPT_SECONDS, API_FAMILIES, NEW, RECEIVED_BYTES, REPLAYED, Key, refusals
from daemon.state.layout import Layout
from daemon.state.slots import HEAD_BYTES, write_slot


@pytest.fixture
def layout(quick_path: Path) -> Layout:
    """A new state directory."""
    made = Layout(quick_path / "state")
    made.create()
    return made


def everything() -> dict[Key, float]:
    """Every counter that there can be, at a large number."""
    counted = Counted()
    for code in ERRORS:
        counted.refuse(code)
    counted.receive(1)
    for number in range(30):
        counted.accept(0.001 * 3.3 ** number, replayed=number % 2 == 0)
    return {key: value * 2.0**53 / 3 for key, value in counted.values().items()}


def test_counts_are_of_the_table_alone() -> None:
    """What somebody sends never becomes a label."""
    counted = Counted()
    counted.accept(0.02, replayed=False)
    counted.accept(0.03, replayed=True)
    counted.receive(7)
    for code in ("backlog_full", "sslv3_alert", None, 'x",y="z'):
        counted.refuse(code)
    found = counted.values()
    assert (found[NEW], found[REPLAYED], found[RECEIVED_BYTES], found[refusals("backlog_full")]) == (1, 1, 7, 1)
    assert dict(counters.buckets(ACCEPT_SECONDS, found))["+Inf"] == 2
    assert [labels for name, labels in found if name == "refusals_total"] == ["code=backlog_full"]
    names = {name for family in API_FAMILIES.values() for name in family.names}
    assert {name for name, _ in everything()} == names


def test_all_counters_fit_into_the_file(layout: Layout) -> None:
    """However large they become."""
    mine = KeptCounts(layout)
    mine.keep(everything())
    mine.close()
    assert KeptCounts(layout).totals() == everything()
    assert layout.counted(0).stat().st_size < 2 * SLOT_BYTES - HEAD_BYTES


def test_counters_go_on_after_a_restart_and_of_several_processes(layout: Layout) -> None:
    """Each process has a file of its own; those of processes that are gone count, however few there are by then."""
    first, second = KeptCounts(layout), KeptCounts(layout)
    first.keep({NEW: 1})
    second.keep({NEW: 10})
    first.keep({NEW: 2})
    assert first.totals() == second.totals() == {NEW: 12}
    first.close()
    second.close()
    alone = KeptCounts(layout)
    alone.keep({})
    assert alone.totals() == {NEW: 12}
    alone.keep({NEW: 5, REPLAYED: 1})
    assert alone.totals() == {NEW: 17, REPLAYED: 1}
    assert sorted(path.name for path in layout.access.iterdir()) == ["counted-00", "counted-01"]
    alone.close()


def test_what_is_told_was_kept_before(layout: Layout) -> None:
    """So a process that is killed takes nothing back."""
    mine = KeptCounts(layout)
    told = []
    for number in range(4):
        mine.keep({NEW: number})
        told.append(mine.totals())
        assert KeptCounts(layout).totals() == mine.totals()
    assert all(before.get(NEW, 0) <= after.get(NEW, 0) for before, after in pairwise(told))
    mine.close()


@pytest.mark.parametrize("at", [0, SLOT_BYTES])
def test_half_of_what_is_written_is_not_read(layout: Layout, at: int) -> None:
    """Each slot is whole, or the other one counts."""
    mine = KeptCounts(layout)
    mine.keep({NEW: 1})
    mine.keep({NEW: 2})
    with layout.counted(0).open("r+b") as file:
        file.seek(at + HEAD_BYTES)
        file.write(b"\xff")
    assert KeptCounts(layout).totals() == {NEW: 1 if at == 0 else 2}
    mine.close()


def _damage(layout: Layout) -> None:
    layout.counted(0).write_bytes(b"no counters")


def _directory(layout: Layout) -> None:
    layout.counted(0).mkdir()


def _link(layout: Layout) -> None:
    layout.counted(0).symlink_to("/etc/hostname")


@pytest.mark.parametrize("harm", [_damage, _directory, _link])
def test_file_that_cannot_be_read_begins_with_nothing(
    layout: Layout, harm: Callable[[Layout], None],
) -> None:
    """What has the name is put out of the way; from then on all is kept."""
    harm(layout)
    mine = KeptCounts(layout)
    mine.keep({NEW: 1})
    mine.keep({NEW: 2})
    mine.close()
    assert KeptCounts(layout).totals() == {NEW: 2}


def test_counters_stand_still_while_nothing_can_be_written_and_that_is_told_once(
    layout: Layout, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All processes tell the same then, also one that has just begun; what was counted is kept as soon as it can be."""
    told: list[str] = []
    monkeypatch.setattr(kept, "log", lambda event, **_: told.append(event))
    mine = KeptCounts(layout)
    mine.keep({NEW: 1})
    failpoints.arm("counted.write=ENOSPC")
    for number in range(2, 5):
        mine.keep({NEW: number})
        assert mine.totals() == KeptCounts(layout).totals() == {NEW: 1}
    assert told == ["counters.not_kept"]
    mine.close()
    again = KeptCounts(layout)
    again.keep({NEW: 2})
    assert again.totals() == {NEW: 1}
    failpoints.arm("")
    again.keep({NEW: 2})
    assert KeptCounts(layout).totals() == again.totals() == {NEW: 3}
    again.close()


def test_half_of_a_slot_on_a_full_disk_takes_nothing_back(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is tried: the other slot counts."""
    mine, write = KeptCounts(layout), os.pwrite
    mine.keep({NEW: 1})
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, at: write(descriptor, data[:HEAD_BYTES + 1], at))
    for number in range(2, 5):
        mine.keep({NEW: number})
        assert mine.totals() == KeptCounts(layout).totals() == {NEW: 1}
    monkeypatch.undo()
    mine.keep({NEW: 4})
    assert KeptCounts(layout).totals() == {NEW: 4}
    mine.close()


def test_what_cannot_be_read_just_now_counts_as_it_was(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has no descriptors left takes nothing back."""
    other, mine = KeptCounts(layout), KeptCounts(layout)
    other.keep({NEW: 1})
    mine.keep({NEW: 10})
    assert mine.totals() == {NEW: 11}
    other.keep({NEW: 2})
    for name in ("open", "listdir"):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, _no_descriptors)
            assert mine.totals() == {NEW: 11}
    assert mine.totals() == {NEW: 12}
    mine.close()
    other.close()


def _no_descriptors(*_: Any, **__: Any) -> Any:
    raise OSError(errno.EMFILE, "none left")


def test_file_that_is_removed_is_made_again(layout: Layout) -> None:
    """With all that this process knows of."""
    mine = KeptCounts(layout)
    mine.keep({NEW: 1})
    mine.close()
    again = KeptCounts(layout)
    again.keep({NEW: 1})
    layout.counted(0).unlink()
    again.keep({NEW: 1})
    assert KeptCounts(layout).totals() == again.totals() == {NEW: 2}
    again.close()


@pytest.mark.parametrize("rows", [
    {}, None, "x", [1], [[]], [["nothing_total", "", 1]], [["refusals_total", "code=made_up", 1]],
    [["accepted_total", 'result="', 1]], [["accepted_total", "result=new", -1]], [["accepted_total", "result=new", True]],
    [["accepted_total", "result=new", "1"]], [["accepted_total", "result=new", float("inf")]],
    [["accepted_total", "result=new", float("nan")]], [[["accepted_total"], "result=new", 1]]])
def test_what_makes_no_sense_is_left_out(layout: Layout, rows: Any) -> None:
    """A file of another version, or of somebody else, makes no metric that nobody knows."""
    descriptor = os.open(layout.counted(0), os.O_CREAT | os.O_RDWR, 0o600)
    write_slot(descriptor, SLOT_BYTES, 1, json.dumps(rows).encode())
    os.close(descriptor)
    mine = KeptCounts(layout)
    mine.keep({NEW: 1})
    assert mine.totals() == {NEW: 1}
    mine.close()


def test_more_processes_than_files_count_for_nobody_until_they_have_one(
    layout: Layout, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is no end of files otherwise, and what no other process knows would come and go."""
    monkeypatch.setattr(kept, "MOST_FILES", 1)
    first, second = KeptCounts(layout), KeptCounts(layout)
    first.keep({NEW: 1})
    second.keep({NEW: 2})
    assert second.totals() == first.totals() == {NEW: 1}
    first.close()
    second.keep({NEW: 2})
    assert second.totals() == {NEW: 3}
    second.close()
