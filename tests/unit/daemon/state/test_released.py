"""The instances that a cell has let go of."""

import errno
import os
import stat
from pathlib import Path

import pytest

from daemon import failpoints
from daemon.state import released
from daemon.state.layout import Layout
from daemon.state.released import ReleasedInstances

WEB, DB = "local/default/web-1", "eu/größe/db"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A new state directory."""
    made = Layout(tmp_path / "state")
    made.create()
    return made


def test_what_was_let_go_of_is_known_until_it_is_taken_back(layout: Layout) -> None:
    """Also by who has looked before; doing either twice changes nothing."""
    known = ReleasedInstances(layout)
    assert not known.has(WEB)
    for _ in range(2):
        released.release(layout, WEB)
        released.release(layout, DB)
        assert known.has(WEB)
        assert released.read(layout) == {WEB, DB}
    for _ in range(2):
        released.adopt(layout, WEB)
        assert not known.has(WEB)
        assert known.has(DB)
    released.adopt(layout, DB)
    assert released.read(layout) == frozenset()


@pytest.mark.parametrize("step", failpoints.CELL_STEPS)
def test_failed_disk_leaves_the_old_lines_or_the_new_ones(layout: Layout, step: str) -> None:
    """At every step; the next change finds its way."""
    released.release(layout, WEB)
    for change, before, after in ((released.release, {WEB}, {WEB, DB}), (released.adopt, {WEB, DB}, {WEB})):
        failpoints.arm(f"{step}=EIO@1")
        with pytest.raises(OSError, match="Input/output error") as caught:
            change(layout, DB)
        assert caught.value.errno == errno.EIO
        assert released.read(layout) == (after if step == "cells.dirsync" else before)
        failpoints.arm("")
        change(layout, DB)
        assert released.read(layout) == after


def test_api_reads_it_and_does_not_write_it(layout: Layout) -> None:
    """Where two users share the state its group may read, whatever the umask of who gives the command."""
    layout.directory.chmod(0o2770)
    before = os.umask(0o077)
    try:
        released.release(Layout(layout.directory), WEB)
    finally:
        os.umask(before)
    assert stat.S_IMODE(layout.released.stat().st_mode) == 0o640


@pytest.mark.parametrize("text", ["", "local/default\n", "local/default/web-1", "a\n", "\xff/b/c\n"])
def test_damaged_file_is_not_believed(layout: Layout, text: str) -> None:
    """Nobody can tell then what the cell has let go of."""
    released.release(layout, WEB)
    layout.released.write_bytes(text.encode("latin-1"))
    with pytest.raises(OSError, match="is damaged"):
        ReleasedInstances(layout).has(WEB)
