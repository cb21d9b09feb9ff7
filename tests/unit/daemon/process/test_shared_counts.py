"""Counts of several processes."""

import os
from collections.abc import Iterator

import pytest

from daemon.process.shared_counts import Column, SharedCount, SharedCounts, create


@pytest.fixture
def descriptor() -> Iterator[int]:
    """Counts for two processes."""
    made = create(2)
    yield made
    os.close(made)


def test_processes_see_what_the_others_count(descriptor: int) -> None:
    """Each adds to its own part, and reads the sum."""
    parent = SharedCounts(descriptor).tally(Column.UPLOADS, 0)
    parent.add(3)
    child = os.fork()
    if child == 0:
        SharedCounts(descriptor).tally(Column.UPLOADS, 1).add(4)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (parent.own, parent.total) == (3, 7)
    assert SharedCounts(descriptor).tally(Column.CONNECTIONS, 0).total == 0


def test_process_that_is_gone_counts_no_more(descriptor: int) -> None:
    """Its part is emptied, and the others keep theirs."""
    counts = SharedCounts(descriptor)
    tallies = [counts.tally(column, row) for column in Column for row in (0, 1)]
    for number, tally in enumerate(tallies, 1):
        tally.add(number)
    counts.clear(1)
    assert [tally.own for tally in tallies] == [1, 0, 3, 0, 5, 0, 7, 0]


def test_process_that_is_alone_counts_for_itself() -> None:
    """It needs nothing from anybody."""
    for tally in (SharedCounts().tally(Column.UNWRITTEN_BYTES, 0), SharedCount.alone()):
        tally.add(2**40)
        tally.add(-1)
        assert (tally.own, tally.total) == (2**40 - 1, 2**40 - 1)


def test_counts_cannot_be_cut_short(descriptor: int) -> None:
    """Who has them mapped would be killed by it."""
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
