"""A package of these sources, a machine that it is installed on, and instances to deliver into."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.host import Container, Host
from tests.support.packages import provide
from tests.system.load import Load
from tests.system.machine import CONFIG, DEBIAN_12, INCUS_SOCKET, Machine, Release, give_incus, launched

ROOT = Path(__file__).resolve().parents[2]
#: Programs that make and check the package, and the Debian packages that have them.
TOOLS = {"dpkg-shlibdeps": "dpkg-dev", "strip": "binutils", "lintian": "lintian"}


def make_package(release: Release, folder: Path) -> Path:
    """Make the Debian package of these sources for a release, in a folder."""
    # Packed lightly: the tests have no use for a small one.
    environment = {**os.environ, "DPKG_DEB_COMPRESSOR_TYPE": "gzip", "DPKG_DEB_COMPRESSOR_LEVEL": "1"}
    done = subprocess.run([ROOT / "packaging/deb", "--python", release.python, "--output", folder],
                          env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip())


def make_image(release: Release) -> None:
    """Give Incus the image of a release, with systemd."""
    subprocess.run([ROOT / "scripts/systemd-image", release.name], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def tools() -> None:
    """The programs that make and check the package."""
    provide(TOOLS)


@pytest.fixture(scope="session")
def package(tools: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package of these sources."""
    return make_package(DEBIAN_12, tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="session")
def image(incus: Host) -> None:
    """The image with systemd."""
    make_image(DEBIAN_12)


@pytest.fixture(scope="session")
def fresh_machine(incus: Host, image: None) -> Iterator[Machine]:
    """A machine on which nothing is installed yet."""
    with launched(incus) as machine:
        yield machine


@pytest.fixture(scope="session")
def installed(incus: Host, image: None, package: Path) -> Iterator[Machine]:
    """A machine on which the service runs from its package, with an Incus to deliver into."""
    with launched(incus) as machine:
        machine.run("dpkg", "--force-unsafe-io", "-i", machine.push(package, "/root"))
        give_incus(machine)
        machine.configure(endpoint=INCUS_SOCKET, stopped="wait", min_free_bytes=0)
        machine.run("cp", CONFIG, "/root/config.toml")
        machine.systemctl("restart", "incus-courier.target")
        yield machine


@pytest.fixture
def machine(installed: Machine) -> Iterator[Machine]:
    """The machine with the service up, and configured as it was in the beginning."""
    installed.wait_active("incus-courier-api", "incus-courier-worker@0", "incus-courier-worker@1")
    yield installed
    if installed.status("cmp", "-s", CONFIG, "/root/config.toml") != 0:
        installed.run("cp", "/root/config.toml", CONFIG)
        installed.systemctl("restart", "incus-courier.target")


@pytest.fixture(scope="session")
def instance(incus: Host) -> Iterator[Container]:
    """An instance that runs."""
    with incus.container() as running:
        yield running


@pytest.fixture
def stopped_instance(incus: Host) -> Iterator[Container]:
    """An instance that does not run yet; uploads to it wait."""
    with incus.container(running=False) as stopped:
        yield stopped


@pytest.fixture
def load(machine: Machine, instance: Container) -> Load:
    """Uploads into the instance that runs."""
    return Load(machine, instance)
