"""Renaming without replacing."""

import os
from pathlib import Path

import pytest

from daemon.state.rename import rename_new


def test_file_is_renamed_unless_the_name_is_taken(tmp_path: Path) -> None:
    """From one directory into another; what has the name stays as it is."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "here" / "a").write_text("a")
    (tmp_path / "there" / "taken").write_text("other")
    here, there = (os.open(tmp_path / name, os.O_RDONLY | os.O_DIRECTORY) for name in ("here", "there"))
    try:
        with pytest.raises(FileExistsError):
            rename_new("a", "taken", src_dir_fd=here, dst_dir_fd=there)
        rename_new("a", "b", src_dir_fd=here, dst_dir_fd=there)
        with pytest.raises(FileNotFoundError):
            rename_new("a", "c", src_dir_fd=here, dst_dir_fd=there)
    finally:
        os.close(here)
        os.close(there)
    assert {path.name: path.read_text() for path in (tmp_path / "there").iterdir()} == {"b": "a", "taken": "other"}
