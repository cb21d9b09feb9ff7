"""What all tests share: where Incus is, and what its absence means."""

import os

import pytest

from tests.live.host import Host, find_host
from tests.power import disks

#: The one reason why a test is left out.
NO_INCUS = "no Incus answers on this machine; `make incus` installs one"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the command line say how often the power is cut."""
    parser.addoption("--power-cuts", type=int, default=20, metavar="N", help="cut the power N times (20)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what this machine cannot run, except where that was promised (CI=true): there it fails."""
    if os.environ.get("CI") == "true":
        return
    live = [item for item in items if item.get_closest_marker("live")]
    power = [item for item in items if item.get_closest_marker("power")]
    _leave_out(live, NO_INCUS if live and find_host() is None else None)
    _leave_out(power, disks.missing())


def _leave_out(items: list[pytest.Item], reason: str | None) -> None:
    for item in items if reason else ():
        item.add_marker(pytest.mark.skip(reason=reason or ""))


@pytest.fixture(scope="session")
def incus() -> Host:
    """The Incus of this machine; it removes the containers that it made when the session ends."""
    host = find_host()
    assert host is not None, NO_INCUS
    return host
