"""Telling an /etc/subuid with which Incus starts no container."""

import subprocess
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[3] / "scripts/hosts-lib.sh"
INCUS = "root:1000000:1000000000\n"


def complaint(file: Path) -> str:
    """What is said of the file; empty if nothing is wrong."""
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", '. "$1"; need_one_range "$2"', "incus-host", LIBRARY, file],
                          capture_output=True, text=True, check=False)
    assert done.returncode == (1 if done.stderr else 0)
    return done.stderr


@pytest.mark.parametrize("content", [
    "", INCUS, f"lxd:100000:65536\n{INCUS}alice:165536:65536\n", f"# root:1:2\n\n{INCUS}#root:3:4\n", f"{INCUS}rooty:1:2\n",
])
def test_one_range_for_root_is_enough(tmp_path: Path, content: str) -> None:
    """Other users' ranges, comments and a file without root say nothing."""
    file = tmp_path / "subuid"
    file.write_text(content)
    assert complaint(file) == ""


def test_missing_file_is_no_second_range(tmp_path: Path) -> None:
    """Without the file Incus has ids of its own choice."""
    assert complaint(tmp_path / "subuid") == ""


@pytest.mark.parametrize("more", ["root:1001000000:10000001", "ROOT:5:6", "root:1000000:1000000000"])
def test_second_range_for_root_is_named_with_its_line(tmp_path: Path, more: str) -> None:
    """The file, the line to remove, and what it costs to leave it."""
    file = tmp_path / "subuid"
    file.write_text(f"alice:165536:65536\n{INCUS}{more}\n")
    said = complaint(file)
    assert f"line 3 of {file} ({more}) gives root a second range" in said
    assert "remove that line" in said
    assert file.read_text().endswith(f"{more}\n")
