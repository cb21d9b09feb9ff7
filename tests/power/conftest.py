"""How often the power is cut."""

import pytest

from tests.power import disks
from tests.support.packages import provide

#: For so many cuts one more is made with a real Incus, one while resumable uploads come, and one while packs are made.
_INCUS_EVERY = _PACKS_EVERY = 5
_RESUMABLE_EVERY = 3


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes a `cut`, or one of another kind, once for each of them."""
    cuts = metafunc.config.getoption("--power-cuts")
    for name, count in (("cut", cuts), ("incus_cut", -(-cuts // _INCUS_EVERY)),
                        ("resumable_cut", -(-cuts // _RESUMABLE_EVERY)), ("pack_cut", -(-cuts // _PACKS_EVERY))):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, range(count))


@pytest.fixture(scope="session", autouse=True)
def _tools() -> None:
    """The programs that make disks."""
    provide(disks.TOOLS)
