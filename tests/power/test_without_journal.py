"""Where ext4 has no journal, what was made durably is there when the power was cut and the disk was checked.

Nothing but the syncs keeps a file and its names together then. What is made under load is in `test_packs` and
`test_power_cut`.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from daemon.delegation import Child, open_delegations
from daemon.model.grant import EVERYTHING
from daemon.model.upload import Destination
from daemon.partials import Plan, open_partials
from daemon.spool import open_spool
from daemon.state import released, shard_count
from daemon.state.layout import Layout
from daemon.state.shard_count import ShardCount
from tests.power.disks import EXT4_WITHOUT_JOURNAL, Disk, snapshot
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
