"""Counts of several processes."""

import os
from collections.abc import Iterator

import pytest

from daemon.process.shared_counts import Column, SharedCounts, create


@pytest.fixture
def descriptor() -> Iterator[int]:
    """Counts for two processes."""
    made = create(2)
    yield made
    os.close(made)


def test_processes_see_what_the_others_count(descriptor: int) -> None:
    """Each adds to its own part, and reads the sum."""
    parent = SharedCounts(descriptor, 0).tally(Column.UPLOADS)
    parent.add(3)
    child = os.fork()
    if child == 0:
        SharedCounts(descriptor, 1).tally(Column.UPLOADS).add(4)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (parent.own, parent.total) == (3, 7)
    assert SharedCounts(descriptor).tally(Column.CONNECTIONS).total == 0


def test_process_that_is_gone_counts_no_more(descriptor: int) -> None:
    """Its part is emptied but for what stays, and the others keep theirs."""
    both = [SharedCounts(descriptor, row) for row in (0, 1)]
    for row, counts in enumerate(both, 1):
        for column in Column:
            counts.tally(column).add(row)
        counts.holders(Column.PAGES).add("me", row)
    SharedCounts(descriptor).clear(1)
    stays = [column is Column.LET_IN_BYTES for column in Column]
    assert [[counts.tally(column).own for column in Column] for counts in both] == [[1] * len(Column), [2 * one for one in stays]]
    assert both[1].holders(Column.PAGES).of("me") == 1


def test_process_that_is_alone_counts_for_itself() -> None:
    """It needs nothing from anybody."""
    tally = SharedCounts().tally(Column.UNWRITTEN_BYTES)
    tally.add(2**40)
    tally.add(-1)
    assert (tally.own, tally.total) == (2**40 - 1, 2**40 - 1)
    assert SharedCounts().tally(Column.UNWRITTEN_BYTES).total == 0


@pytest.mark.parametrize("column", [Column.CONNECTIONS, Column.UPLOADS, Column.PAGES])
def test_processes_see_who_holds_how_many(descriptor: int, column: Column) -> None:
    """Whichever of them the holder came to, and for each kind of place apart."""
    first, second = (SharedCounts(descriptor, row) for row in (0, 1))
    first.holders(column).add("me", 3)
    second.holders(column).add("me", 4)
    second.holders(column).add("you", 1)
    assert [first.holders(column).of(holder) for holder in ("me", "you", "nobody")] == [7, 1, 0]
    assert [first.holders(other).of("me") for other in (Column.CONNECTIONS, Column.UPLOADS, Column.PAGES) if other is not column] == [0, 0]


def test_holders_are_never_counted_too_low_and_seldom_too_high(descriptor: int) -> None:
    """However many there are: two who share both of their cells are as one, and few do."""
    holders = SharedCounts(descriptor).holders(Column.UPLOADS)
    for number in range(512):
        holders.add(f"192.0.2.{number}", 1)
    held = [holders.of(f"192.0.2.{number}") for number in range(512)]
    assert min(held) == 1
    assert held.count(1) > 400


def test_counts_cannot_be_cut_short(descriptor: int) -> None:
    """Who has them mapped would be killed by it."""
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)


def test_process_knows_whether_it_has_the_fewest(descriptor: int) -> None:
    """One that is alone always has; of several, also one that has as few as another."""
    alone = SharedCounts().tally(Column.CONNECTIONS)
    alone.add(3)
    assert (alone.alone, alone.fewest) == (True, True)
    first, second = (SharedCounts(descriptor, row).tally(Column.CONNECTIONS) for row in (0, 1))
    assert (first.alone, first.fewest, second.fewest) == (False, True, True)
    first.add(1)
    assert (first.fewest, second.fewest) == (False, True)
