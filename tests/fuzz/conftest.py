"""What fuzzing has: its share of the time, and a service to be hostile to."""

import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.fuzz.victim import Victim
from tests.integration.api.running import Api

Fuzz = Callable[[Callable[[], None]], None]
#: Examples between two looks at the clock.
_EXAMPLES = 200


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Fuzz:
    """Has hypothesis try a property again and again, with new examples, for this test's share of `--fuzz-seconds`."""
    tests = sum(item.get_closest_marker("fuzz") is not None for item in request.session.items)
    share_s = request.config.getoption("--fuzz-seconds") / tests

    def try_for_long(examine: Callable[[], None]) -> None:
        tried = settings(max_examples=_EXAMPLES, suppress_health_check=list(HealthCheck))(examine)
        end = time.monotonic() + share_s
        while True:
            tried()
            if time.monotonic() > end:
                return

    return try_for_long


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """An API process; at the end it has to be as good as new."""
    with Api(tmp_path_factory.mktemp("victim"), {"limits": {"max_upload_bytes": 100_000}, "uploads": {"max_partials": 1_000_000}}, {}) as api:
        victim = Victim(api.started())
        yield victim
        victim.check_for_leaks()
