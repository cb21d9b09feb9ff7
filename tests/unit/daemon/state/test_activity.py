"""What a worker tells of itself, in a small file."""

import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon.state import activity
from daemon.state.activity import SLOT_BYTES, Activity, Blocked, Publisher, Pushing, RemoteStanding
from daemon.state.layout import Layout
from daemon.state.shard_lock import ShardLock

KEY = "local/default/c1"
#: What has to be there, and what must not be.
LEAST = {"at": 1, "pid": 1, "started_at": 1, "lanes": 0, "keeps": 0, "threads": 0, "sessions": 0, "stalled": 0}
WRONG: list[dict[str, Any]] = [
    {"at": "1"}, {"at": True}, {"at": 1e300}, {"at": -1}, {"lanes": 1.5}, {"lanes": None}, {"code": 1}, {"remotes": {}},
    {"remotes": [1]}, {"remotes": [{}]}, {"remotes": [{"remote": "x", "up": 1, "since": 1}]}]


def told(**values: Any) -> Activity:
    """What a worker of this process may tell."""
    made = Activity(
        at=2e9, pid=os.getpid(), started_at=1e9, lanes=1, keeps=2, threads=3, sessions=1, stalled=1, code="queue_full",
        message="no room", wal_bytes=4096,
        remotes=(RemoteStanding(remote="local", up=False, since=1e9, code="incus_unreachable", message="no", next_try_at=2e9),
                 RemoteStanding(remote="eu", up=True, since=1.5e9)),
        pushing=(Pushing(task_id="t", instance_key=KEY, path="/\u202e\x1b[31m\ud800", size_bytes=9, sent_bytes=4, since=1e9),),
        blocked=(Blocked(instance_key=KEY, since=1e9, code="instance_stopped", message="", next_try_at=None),), more=7)
    return replace(made, **values)


@pytest.fixture
def publisher(layout: Layout) -> Iterator[Publisher]:
    """The worker's end."""
    made = Publisher(layout, 0)
    yield made
    made.close()


@pytest.fixture
def lock(layout: Layout) -> Iterator[ShardLock]:
    """The lock of a worker that runs: of this process."""
    made = ShardLock(layout, 0)
    made.acquire()
    yield made
    made.release()


def test_what_is_told_is_read_as_it_was_told(layout: Layout, publisher: Publisher, lock: ShardLock) -> None:
    """Each time what was told last is read, whatever is in its names; a worker that is gone does nothing."""
    for number in range(3):
        publisher.publish(told(more=number))
        assert activity.read(layout, 0) == told(more=number)
    lock.release()
    assert activity.read(layout, 0) is None
    assert activity.last(layout, 0) == told(more=2)


def test_worker_that_has_told_nothing_is_not_taken_for_the_one_before(
    layout: Layout, publisher: Publisher, lock: ShardLock,
) -> None:
    """What its forerunner did says nothing of it."""
    assert activity.read(layout, 0) is None
    publisher.publish(told(pid=os.getpid() + 1))
    assert activity.read(layout, 0) is None


def test_next_worker_goes_on_where_the_last_one_ended(layout: Layout, publisher: Publisher) -> None:
    """Nobody reads what an earlier worker told once a later one has told something."""
    for number in range(5):
        publisher.publish(told(more=number))
    later = Publisher(layout, 0)
    later.publish(told(more=5))
    later.close()
    assert activity.last(layout, 0) == told(more=5)


@pytest.mark.parametrize("cut", [0, 10, 30])
def test_half_of_a_slot_is_not_read(layout: Layout, publisher: Publisher, cut: int) -> None:
    """While one is being written the one before counts."""
    publisher.publish(told(more=1))
    publisher.publish(told(more=2))
    with layout.activity(0).open("r+b") as file:
        file.seek(cut)
        file.write(b"\xff" * 8)
    assert activity.last(layout, 0) == told(more=1)


def test_longest_lists_are_cut_and_it_is_told_how_much_is_missing(layout: Layout, publisher: Publisher) -> None:
    """The file stays small however much there is to tell."""
    [push] = told().pushing
    [blocked] = told().blocked
    publisher.publish(told(pushing=(replace(push, path="/" + "\u202e" * 4000),) * 100, blocked=(blocked,) * 150, more=0))
    found = activity.last(layout, 0)
    assert found is not None
    assert found.pushing[0].path == "/" + "\u202e" * 4000
    assert len(found.pushing) + len(found.blocked) + found.more == 250
    assert len(found.blocked) + found.more_blocked == 150
    assert layout.activity(0).stat().st_size <= 2 * SLOT_BYTES


@pytest.mark.parametrize("text", [
    "", "{}", "[]", "null", "[" * 20_000, '{"at": NaN}', "\xff",
    *(json.dumps(LEAST | wrong) for wrong in WRONG),
])
def test_what_makes_no_sense_is_nothing(layout: Layout, publisher: Publisher, text: str) -> None:
    """Whoever reads believes nothing that is not of its type, and does not fail."""
    publisher.publish(told())
    data = text.encode("latin-1")
    head = struct.pack("<8sQII", b"courier1", 99, len(data), zlib.crc32(data, zlib.crc32(struct.pack("<Q", 99))))
    layout.activity(0).write_bytes(head + data)
    assert activity.last(layout, 0) is None


def test_what_a_later_version_tells_besides_is_left_out(layout: Layout, publisher: Publisher) -> None:
    """Versions that know more and less of it understand each other."""
    publisher.publish(told())
    data = layout.activity(0).read_bytes()[SLOT_BYTES + 24:]
    later = json.dumps(json.loads(data) | {"mood": "well"}).encode()
    head = struct.pack("<8sQII", b"courier1", 99, len(later), zlib.crc32(later, zlib.crc32(struct.pack("<Q", 99))))
    layout.activity(0).write_bytes(head + later)
    assert activity.last(layout, 0) == told()


def test_what_has_the_name_is_cleared_away_and_no_trouble_is_raised(layout: Layout, publisher: Publisher, tmp_path: Path) -> None:
    """A link is not followed; where nothing can be written, nothing is told, and the worker does its work."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    layout.activity(0).symlink_to(mine)
    assert activity.last(layout, 0) is None
    publisher.publish(told())
    assert mine.read_text() == "mine"
    assert activity.last(layout, 0) == told()
    gone = Publisher(Layout(tmp_path / "nowhere"), 0)
    gone.publish(told())
    assert activity.last(Layout(tmp_path / "nowhere"), 0) is None


def test_nobody_but_the_worker_writes_there(layout: Layout) -> None:
    """Where two users share the state the other one reads only."""
    layout.directory.chmod(0o2750)
    shared = Publisher(Layout(layout.directory), 0)
    shared.publish(told())
    shared.close()
    assert layout.activity(0).stat().st_mode & 0o777 == 0o640
