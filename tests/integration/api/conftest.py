"""Fixtures: API processes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.api.running import Api
from tests.support.processes import Forked, Launcher

Start = Callable[..., Api]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Start]:
    """Launch API processes that end with the test; sections of the configuration as keywords."""
    with ExitStack() as stack:
        def launch_one(directory: Path = tmp_path, environment: Mapping[str, str] | None = None,
                       launcher: Launcher = Forked, **settings: Mapping[str, Any]) -> Api:
            return stack.enter_context(Api(directory, settings, environment or {}, launcher))

        yield launch_one


@pytest.fixture
def start(launch: Start) -> Start:
    """Launch API processes and wait until they take uploads."""
    return lambda *arguments, **settings: launch(*arguments, **settings).started()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API process with the default settings for all tests of a module: what the others left is there too."""
    with Api(tmp_path_factory.mktemp("shared"), {}, {}) as api:
        yield api.started()


@pytest.fixture
def api(start: Start) -> Api:
    """An API process with the default settings."""
    return start()
