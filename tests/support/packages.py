"""Programs that tests need, from the Debian packages that have them."""

import os
import shutil
import subprocess
from collections.abc import Mapping


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
