"""What all tests share: where Incus is, and what its absence means."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.live.host import Host, find_host
from tests.power import disks
from tests.support.certificates import Authority

#: The one reason why a test is left out.
NO_INCUS = "no Incus answers on this machine; `make incus` installs one"
#: Debian's browser, and why the dashboard is not tried without it.
CHROMIUM = Path("/usr/bin/chromium")
NO_CHROMIUM = "no Chromium on this machine; `apt-get install chromium` installs one"
#: What scrapes the service, and tries its alert rules.
PROMETHEUS = ("prometheus", "promtool")
NO_PROMETHEUS = "no Prometheus on this machine; `apt-get install prometheus` installs one"
#: Where it exists, a directory in memory: syncing costs nothing there.
_MEMORY = Path("/dev/shm")
#: What `--quick` needs there, with some to spare.
_QUICK_BYTES = 2**30
#: What `--quick` tries of each property, instead of 100.
_QUICK_EXAMPLES = 25
#: The umask that the tests were started with.
_UMASK = os.umask(0o022)
os.umask(_UMASK)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the command line say how often the power is cut, and that it is in a hurry."""
    parser.addoption("--power-cuts", type=int, default=20, metavar="N", help="cut the power N times (20)")
    parser.addoption("--fuzz-seconds", type=int, default=10, metavar="S", help="fuzz for S seconds in all (10)")
    parser.addoption("--quick", action="store_true", help="fewer random examples, and all state in memory if it has room")


def pytest_configure(config: pytest.Config) -> None:
    """Judge no example by how long it takes; be quick if that was asked for."""
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
    settings.load_profile("any machine")
    if not config.getoption("--quick"):
        return
    settings.register_profile("quick", settings.get_profile("any machine"), max_examples=_QUICK_EXAMPLES)
    settings.load_profile("quick")
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _QUICK_BYTES:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(_MEMORY)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what this machine cannot run, except where that was promised (CI=true): there it fails."""
    if os.environ.get("CI") == "true":
        return
    live = [item for item in items if item.get_closest_marker("live")]
    power = [item for item in items if item.get_closest_marker("power")]
    _leave_out(live, NO_INCUS if live and find_host() is None else None)
    _leave_out(power, disks.missing())
    browser = [item for item in items if item.get_closest_marker("browser")]
    _leave_out(browser, None if CHROMIUM.exists() else NO_CHROMIUM)
    prometheus = [item for item in items if item.get_closest_marker("prometheus")]
    _leave_out(prometheus, None if all(map(shutil.which, PROMETHEUS)) else NO_PROMETHEUS)
    several = [item for item in items if item.get_closest_marker("root")]
    _leave_out(several, "acting as several users needs root" if os.geteuid() != 0 else None)


def _leave_out(items: list[pytest.Item], reason: str | None) -> None:
    for item in items if reason else ():
        item.add_marker(pytest.mark.skip(reason=reason or ""))


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """Every test begins with the usual umask: a process of the service sets its own, for good."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """A new directory that is quick to write to, for tests that make whole state directories."""
    made = Path(tempfile.mkdtemp(prefix="courier-test-", dir=_MEMORY if _MEMORY.is_dir() else None))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs certificates for tests."""
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def incus() -> Host:
    """The Incus of this machine; it removes the containers that it made when the session ends."""
    host = find_host()
    assert host is not None, NO_INCUS
    return host


@pytest.fixture(autouse=True)
def _no_file_chosen_before() -> Iterator[None]:
    """A command that a test gave in its own process does not choose the configuration of the next one's."""
    yield
    commands = sys.modules.get("daemon.cli.main")
    if commands is not None:
        commands.ChosenFile.file = None


@pytest.fixture(autouse=True)
def _same_umask_for_all() -> Iterator[None]:
    """A test that makes a state directory in its own process shuts nobody out of what the next one makes."""
    yield
    os.umask(_UMASK)
