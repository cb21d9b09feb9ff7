import os
from pathlib import Path

import pytest

from daemon.errors import CannotStart
from daemon.exits import EXIT_FAILED, exit_code
from daemon.layout import Layout

#: Where `struct statvfs` has its flags, as os.statvfs_result is built.
_FLAG = 8


def test_create_is_refused_on_a_read_only_filesystem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that the kernel made read-only ends a process with a sentence, and a restart may find it mended."""
    layout = Layout(tmp_path / "state")
    layout.create()
    real = list(os.statvfs(layout.directory))
    real[_FLAG] |= os.ST_RDONLY
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(real))
    with pytest.raises(CannotStart, match=r"state\.directory .* is on a read-only filesystem") as refused:
        layout.create()
    assert refused.value.code == "read_only_state"
    assert exit_code(refused.value) == EXIT_FAILED
