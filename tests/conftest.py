"""What all tests share: where Incus is, and what its absence means."""

import os

import pytest

from tests.live.host import Host, find_host

#: The one reason why a test is left out.
NO_INCUS = "no Incus answers on this machine; `make incus` installs one"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the live tests where there is no Incus, except where one was promised (CI=true): there they fail."""
    live = [item for item in items if item.get_closest_marker("live")]
    if live and os.environ.get("CI") != "true" and find_host() is None:
        for item in live:
            item.add_marker(pytest.mark.skip(reason=NO_INCUS))


@pytest.fixture(scope="session")
def incus() -> Host:
    """The Incus of this machine; it removes the containers that it made when the session ends."""
    host = find_host()
    assert host is not None, NO_INCUS
    return host
