import os
import socket
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


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_check_fails_when_other_machines_would_reach_an_address(tmp_path: Path, address: str) -> None:
    """What `serve` would refuse to open is said by the check already; with api.allow_anonymous both are content."""
    service = Service(tmp_path, {"api": {"listen": ["127.0.0.1:0", address]}})
    done = _run("--config", str(service.config), "check")
    assert done.code == 1
    assert f"FAIL addresses: api.listen: {address} can be reached from other machines" in done.out
    done = _run("--config", str(service.config), "check", INCUS_COURIER__API__ALLOW_ANONYMOUS="true")
    assert done.code == 0
    assert "ok   addresses: 127.0.0.1:0" in done.out


def test_check_fails_when_an_address_is_not_of_this_machine(tmp_path: Path) -> None:
    """An address that cannot be bound here (192.0.2.0/24 is for documentation) is named, with the kernel's reason."""
    service = Service(tmp_path, {"api": {"listen": ["192.0.2.1:8420"]}})
    done = _run("--config", str(service.config), "check")
    assert done.code == 1
    assert "FAIL addresses: api.listen: 192.0.2.1:8420: Cannot assign requested address" in done.out


def test_check_is_content_while_the_service_runs(tmp_path: Path) -> None:
    """An address that the service itself has taken is no failure."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        service = Service(tmp_path, {"api": {"listen": [f"127.0.0.1:{taken.getsockname()[1]}"]}})
        done = _run("--config", str(service.config), "check")
    assert done.code == 0, done.out
