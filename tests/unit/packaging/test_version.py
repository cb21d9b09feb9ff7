"""One version, wherever it is asked for."""

import re
from importlib.metadata import version

from daemon import __version__
from tests.support.command import incus_courier
from tests.support.processes import ROOT


def test_command_says_its_version() -> None:
    """Who reports a fault can say what it was met in."""
    done = incus_courier("--version")
    assert (done.code, done.out) == (0, f"incus-courier {__version__}\n")


def test_installed_package_has_the_version_of_the_code() -> None:
    """The wheel takes its version from the code: there is no second one."""
    assert version("incus-courier") == __version__


def test_debian_changelog_begins_with_the_version_of_the_code() -> None:
    """A package is not built with the notes of another version."""
    first = (ROOT / "packaging/debian/changelog").read_text().splitlines()[0]
    assert re.match(r"incus-courier \((.+)-\d+\) ", first)
    assert f"({__version__}-" in first
