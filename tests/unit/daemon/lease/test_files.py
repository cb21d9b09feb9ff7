"""What a lease of files asks before each rename: the lock, the token of the host, and the storage."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.errors import CannotStart
from daemon.lease.files import PROVEN_S, FileLease, FileLeases
from daemon.state.layout import Layout
from daemon.state.tenure import Host, read_token
from tests.support.depot import a_state

ME = Host("a", "boot-1")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A new state directory."""
    return a_state(tmp_path)


@pytest.fixture
def leases(layout: Layout) -> Iterator[FileLeases]:
    """The leases of a worker."""
    made = FileLeases(layout, ME, 2)
    yield made
    made.close()


@pytest.fixture
def lease(leases: FileLeases) -> Iterator[FileLease]:
    """The lease of shard 0."""
    made = leases.lease(0)
    yield made
    made.release()


def test_storage_has_to_take_something_when_it_was_not_seen_to_for_two_seconds(
    lease: FileLease, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And only then: what is asked before each rename costs no sync."""
    clock = [100.0]
    writes: list[int] = []
    monkeypatch.setattr("daemon.lease.files.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(os, "fdatasync", writes.append)
    for _ in range(3):
        lease.check_storage()
    lease.renew()
    assert len(writes) == 1
    clock[0] += PROVEN_S + 1
    lease.check_storage()
    assert len(writes) == 2


@pytest.mark.parametrize(("number", "held_up"), [(errno.EIO, True), (errno.EROFS, True), (errno.ENOSPC, False)])
def test_nothing_is_let_through_when_the_storage_takes_nothing(
    lease: FileLease, monkeypatch: pytest.MonkeyPatch, number: int, held_up: bool,
) -> None:
    """What is remembered of it says nothing; but a disk that is only full is there."""
    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fdatasync", fail)
    lease.check()
    for _ in range(2):
        if held_up:
            with pytest.raises(OSError, match=os.strerror(number)):
                lease.check_storage()
        else:
            lease.check_storage()


def test_host_has_ended_when_its_last_worker_has(layout: Layout, leases: FileLeases, lease: FileLease) -> None:
    """Until then the state is not left to another host."""
    FileLeases(layout, ME, 2).close()
    assert_ended(layout, False)
    lease.release()
    leases.close()
    assert_ended(layout, True)


def test_shard_is_not_taken_by_a_host_that_lost_the_state_while_it_waited(layout: Layout, leases: FileLeases) -> None:
    """It lets go of the lock: the next one gets it."""
    other = FileLeases(layout, Host("b", "boot-9"), 2, take_over=True)
    with pytest.raises(CannotStart) as caught:
        leases.lease(0)
    assert caught.value.code == "state_lost"
    other.lease(0).release()
    other.close()


def assert_ended(layout: Layout, ended: bool) -> None:
    """The token says, or does not say, that its host has ended in order."""
    token = read_token(layout)
    assert token is not None
    assert token.ended is ended
