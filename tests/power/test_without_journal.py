"""Where ext4 has no journal, what was made durably is there when the power was cut and the disk was checked.

Nothing but the syncs keeps a file and its names together then. What is made under load is in `test_packs` and
`test_power_cut`.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from daemon import failpoints
from daemon.delegation import Child, open_delegations
from daemon.model.grant import EVERYTHING
from daemon.model.upload import Destination, Upload
from daemon.partials import Plan, open_partials
from daemon.spool import Spool, open_spool
from daemon.state import released, shard_count
from daemon.state.layout import Layout
from daemon.state.shard_count import ShardCount
from tests.power.disks import EXT4_WITHOUT_JOURNAL, Disk, run, snapshot
from tests.support.depot import an_upload

pytestmark = pytest.mark.power

_DISK_BYTES = 32 * 2**20
#: Makes something durably; the power is cut at the first `yield`, nothing is open at the second, and then it is looked
#: for on the disk as it is found.
Story = Callable[[Layout], Iterator[None]]
PLAN = Plan(destination=Destination("local", "default", "c1", "/x"), display_name="x", mode=None, uid=None, gid=None,
            mkdirs=None, idempotency_key=None, digests=frozenset(), owner="token:ci", metadata="", created_at=1.0)


def an_upload_in_its_file(layout: Layout) -> Iterator[None]:
    """An upload that is sealed."""
    upload = an_upload(data=b"hello")
    with closing(open_spool(layout)) as spool:
        incoming = spool.begin(5)
        incoming.write(b"hello")
        incoming.seal(upload).release()
        yield
    yield
    with closing(open_spool(layout)) as spool, spool.open(upload) as source:
        assert source.read(5) == b"hello"


def a_resumable_upload(layout: Layout) -> Iterator[None]:
    """A resumable upload of which nothing has come yet."""
    with closing(open_spool(layout)) as spool, closing(open_partials(layout, spool)) as partials:
        upload_id = partials.create(PLAN, 5)
        yield
    yield
    with closing(open_spool(layout)) as spool, closing(open_partials(layout, spool)) as partials:
        turn = partials.want(upload_id)
        partial = turn and turn.take()
        assert partial
        assert partial.plan == PLAN
        partial.release()


def a_token_that_was_made_for_a_part(layout: Layout) -> Iterator[None]:
    """The first token for a part of somebody's rights."""
    child = Child(key_id="A", sha256="0" * 64, root="token:ci", parent="token:ci", grant=EVERYTHING, made_at=1, expires_at=9)
    with closing(open_delegations(layout)) as store:
        store.put(child, now=1)
        yield
    yield
    with closing(open_delegations(layout)) as store:
        assert store.lineage("A") == [child]


def the_number_of_shards(layout: Layout) -> Iterator[None]:
    """The number of shards of a new state."""
    shard_count.establish(layout, 3)
    yield
    yield
    assert shard_count.read(layout) == ShardCount(3)


def another_number_of_shards(layout: Layout) -> Iterator[None]:
    """The number of shards, after a migration began."""
    shard_count.establish(layout, 3)
    os.sync()
    shard_count.record(layout, ShardCount(3, 2))
    yield
    yield
    assert shard_count.read(layout) == ShardCount(3, 2)


def an_instance_that_was_let_go(layout: Layout) -> Iterator[None]:
    """The list of what a cell has let go."""
    released.release(layout, "local/default/c1")
    yield
    yield
    assert released.read(layout) == {"local/default/c1"}


@pytest.mark.parametrize("story", [
    an_upload_in_its_file, a_resumable_upload, a_token_that_was_made_for_a_part, the_number_of_shards,
    another_number_of_shards, an_instance_that_was_let_go])
def test_what_was_made_durably_is_there_when_there_is_no_journal(story: Story, tmp_path: Path) -> None:
    """Each with its content, whatever else of the disk was not written."""
    disk = Disk(tmp_path / "state.disk", tmp_path / "state", _DISK_BYTES, EXT4_WITHOUT_JOURNAL)
    disk.mount()
    layout = Layout(disk.mountpoint / "courier")
    try:
        layout.create()
        told = story(layout)
        next(told)
        [copy] = snapshot([disk])
        next(told)
        assert disk.unmount()
        copy.replace(disk.file)
        disk.mount()
        with suppress(StopIteration):
            next(told)
    finally:
        assert disk.unmount()


def names_on_the_disk(directory: Path, faults: str) -> set[int]:
    """How many names removed uploads have, as far as the disk knows, at the moment when their blocks are free."""
    disk = Disk(directory / "state.disk", directory / "state", _DISK_BYTES, EXT4_WITHOUT_JOURNAL)
    disk.mount()
    layout = Layout(disk.mountpoint / "courier")
    try:
        layout.create()
        with closing(open_spool(layout)) as spool:
            uploads = [accept(spool, number) for number in range(100)]
            # The disk knows them all.
            os.sync()
            inodes = [(layout.bucket(upload.destination.bucket) / upload.task_id).stat().st_ino for upload in uploads]
            failpoints.arm(faults)
            assert spool.remove(uploads) == {}
            [copy] = snapshot([disk])
        return {int(re.findall(r"Links: (\d+)", run("debugfs", "-R", f"stat <{inode}>", str(copy)))[0]) for inode in inodes}
    finally:
        failpoints.arm("")
        assert disk.unmount()


def accept(spool: Spool, number: int) -> Upload:
    """An upload that is durable."""
    upload = an_upload(f"/{number}", bytes(20_000), instance=f"c{number}")
    incoming = spool.begin(None)
    incoming.write(bytes(20_000))
    incoming.seal(upload).release()
    return upload


def test_disk_knows_that_uploads_are_gone_before_their_blocks_are_free(tmp_path: Path) -> None:
    """Else two files have a block when the power is cut, and the check of the disk gives one of them a copy of it.

    It puts the copy where it knows of no file: that may be one that was accepted since.
    """
    assert names_on_the_disk(tmp_path, "") == {0}


def test_disk_does_not_know_when_that_sync_is_left_out(tmp_path: Path) -> None:
    """The control: they have their names there."""
    assert names_on_the_disk(tmp_path, "spool.gonesync=skip") == {1}
