import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.processes import ROOT
from tests.support.service import Service


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def _run(*words: str, **variables: str) -> Done:
    command = [sys.executable, "-c", "from daemon.cli import main; main()", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def _long_name(directory: Path) -> Path:
    return directory / ("x" * 300)


def _file(directory: Path) -> Path:
    (directory / "file").write_text("no directory")
    return directory / "file"


def _ring(directory: Path) -> Path:
    (directory / "ring").symlink_to("ring")
    return directory / "ring"


@pytest.mark.parametrize("make", [_long_name, _file, _ring])
def test_check_says_what_is_wrong_when_the_state_cannot_be_a_directory(tmp_path: Path, make: object) -> None:
    """A state directory that is a file, a ring of links or too long a name is one failed line, not a crash."""
    assert callable(make)
    service = Service(tmp_path)
    done = _run("--config", str(service.config), "check", INCUS_COURIER__STATE__DIRECTORY=str(make(tmp_path)))
    assert done.code == 1
    assert "FAIL state directory: " in done.out
    assert done.err == ""


@pytest.mark.parametrize("make", [_long_name, _file, _ring])
def test_status_complains_in_one_line_when_the_state_cannot_be_a_directory(tmp_path: Path, make: object) -> None:
    """Commands that look at the state say what they did not find, without a traceback."""
    assert callable(make)
    service = Service(tmp_path)
    done = _run("--config", str(service.config), "status", INCUS_COURIER__STATE__DIRECTORY=str(make(tmp_path)))
    assert done.code != 0
    assert done.err.startswith("incus-courier: ")
    assert "Traceback" not in done.err
