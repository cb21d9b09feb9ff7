import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(name: str) -> dict[str, int]:
    """What a lock file names, and how many hashes each has."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    return {line.split()[0]: line.count("--hash=sha256:") for line in text.splitlines() if re.match(r"[a-z]", line)}


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-build.txt"])
def test_lock_file_has_a_hash_for_each_of_its_packages(name: str) -> None:
    """Nothing is installed that is not, byte for byte, what was looked at when the file was made."""
    packages = locked(name)
    assert packages
    assert min(packages.values()) >= 1


def test_what_builds_the_package_is_locked_in_the_version_that_the_project_names() -> None:
    """The build runs code, too: it comes from the lock file, and not unseen from wherever packages come from."""
    assert list(locked("requirements-build.txt")) == PROJECT["build-system"]["requires"]
    for file in ("Makefile", "packaging/stage"):
        text = (ROOT / file).read_text().replace("\\\n", " ")
        builds = [line for line in text.splitlines() if " install " in line and "--no-deps" in line]
        assert builds
        assert all("--no-build-isolation" in line for line in builds), file
