"""The clients that run in node, installed once for all tests, as `tests/clients` pins them."""

import contextlib
import fcntl
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import ROOT

HERE = ROOT / "tests/clients"
_INSTALLED = HERE / "node_modules/.package-lock.json"


def install() -> None:
    """Install what is pinned, if it is not there; fail where that cannot be."""
    missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    if missing:
        pytest.fail(f"{' and '.join(missing)} missing: apt-get install nodejs npm")
    with (HERE / "package-lock.json").open() as pinned:
        # Several workers may come at once.
        fcntl.flock(pinned, fcntl.LOCK_EX)
        if _INSTALLED.exists() and _INSTALLED.stat().st_mtime >= (HERE / "package-lock.json").stat().st_mtime:
            return
        done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=HERE, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.fail(f"npm ci in {HERE} failed:\n{done.stderr}")


def upload(job: Mapping[str, Any], timeout_s: float = 240.0) -> dict[str, Any]:
    """Run one job (see `upload.mjs`); return the last that it tells."""
    with running(job) as process:
        out, err = process.communicate(timeout=timeout_s)
    assert out.strip(), err
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    return told


@contextlib.contextmanager
def running(job: Mapping[str, Any]) -> Iterator["subprocess.Popen[str]"]:
    """Start one job; it has ended afterwards, one way or the other."""
    with subprocess.Popen(["node", str(HERE / "upload.mjs"), json.dumps(job)], cwd=HERE, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def metadata(instance: str, path: str, **more: str) -> dict[str, str]:
    """What an upload is told about itself."""
    return {"instance": instance, "path": path, **more}


def as_file(directory: Path, name: str, content: bytes) -> Path:
    """A file with that content."""
    file = directory / name
    file.write_bytes(content)
    return file
