import errno
import os

import pytest

from daemon.errors import CannotStart
from daemon.state import shard_count
from daemon.state.append_lease import AppendLease, acquire_alone
from daemon.state.layout import Layout
from daemon.state.shard_count import ShardCount


def test_count_is_what_the_first_process_is_configured_for_in_a_new_directory(layout: Layout) -> None:
    """The first one to come decides, and everyone after it finds that number."""
    assert shard_count.establish(layout, 4) == ShardCount(4)
    assert shard_count.establish(layout, 2) == ShardCount(4)


def test_count_is_told_by_the_databases_when_the_file_is_missing(layout: Layout) -> None:
    """A lost file does not make a directory with databases look new."""
    layout.make_shard(0)
    layout.make_shard(5)
    assert shard_count.establish(layout, 2) == ShardCount(6)


def test_count_serves_nobody_while_rows_are_being_moved(layout: Layout) -> None:
    """Between two numbers neither the old nor the new one may be served."""
    shard_count.record(layout, ShardCount(4, moving_to=2))
    found = shard_count.read(layout)
    assert found == ShardCount(4, moving_to=2)
    assert not found.serves(4)
    assert not found.serves(2)


@pytest.mark.parametrize("text", ["", "0\n", "many\n", "2 2 2\n", "-1\n"])
def test_count_that_cannot_be_understood_stops_the_start(layout: Layout, text: str) -> None:
    """A damaged file is a question for a person, who is told what was probably in it."""
    layout.make_shard(2)
    layout.shards_file.write_text(text)
    with pytest.raises(CannotStart, match="probably 3"):
        shard_count.read(layout)


def test_lease_is_shared_and_keeps_the_migration_out(layout: Layout) -> None:
    """Any number of processes append at once; the migration waits for the last of them."""
    first, second = AppendLease(layout, 2), AppendLease(layout, 2)
    assert first.acquire() is None
    assert second.acquire() is None
    assert acquire_alone(layout) is None
    first.release()
    assert acquire_alone(layout) is None
    second.release()
    assert acquire_alone(layout) is not None


def test_lease_says_what_it_waits_for_when_the_number_differs(layout: Layout) -> None:
    """A process that is configured for another number does not append, and does not keep the migration out."""
    shard_count.establish(layout, 4)
    waiting = AppendLease(layout, 2).acquire()
    assert waiting is not None
    assert "has 4 shards" in waiting
    assert acquire_alone(layout) is not None


def test_lease_waits_while_rows_are_being_moved(layout: Layout) -> None:
    """Nobody appends under the migration."""
    assert acquire_alone(layout) is not None
    waiting = AppendLease(layout, 2).acquire()
    assert waiting is not None
    assert "is being moved" in waiting


def test_lease_is_had_where_a_full_quota_takes_no_date(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers look a little later then; clients are to be told that there is no room."""
    def full(descriptor: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "utime", full)
    lease = AppendLease(layout, 2)
    assert lease.acquire() is None
    assert acquire_alone(layout) is None
    lease.release()
