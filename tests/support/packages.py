"""Programs that tests need, from the Debian packages that have them."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path


def lacking(tools: Mapping[str, str]) -> list[str]:
    """The packages of the programs (program: package) that this machine does not have."""
    return sorted({package for tool, package in tools.items() if shutil.which(tool) is None})


def provide(tools: Mapping[str, str]) -> None:
    """Install what is lacking of the programs. Needs root."""
    packages = lacking(tools)
    if not packages:
        return
    # Lists that are old name packages that are gone; without a network they may do all the same.
    subprocess.run(["apt-get", "-q", "update"], check=False, stdout=subprocess.DEVNULL)
    subprocess.run(["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", "install", "--no-install-recommends", *packages],
                   env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, stdout=subprocess.DEVNULL, check=True)


def unpacked(package: str, directory: Path) -> Path:
    """Download a Debian package, install nothing, and return the directory with its files below `directory`. Needs root."""
    downloads, files = directory / f"{package}-download", directory / package
    downloads.mkdir()
    # apt fetches as a user of its own.
    shutil.chown(downloads, "_apt")
    fetch = ["apt-get", "-qq", "download", package]
    if subprocess.run(fetch, cwd=downloads, capture_output=True, check=False).returncode != 0:
        subprocess.run(["apt-get", "-qq", "update"], check=False, capture_output=True)
        subprocess.run(fetch, cwd=downloads, check=True, capture_output=True)
    [file] = downloads.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", file, files], check=True)
    return files
