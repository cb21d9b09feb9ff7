"""Fixtures: a real Chromium, and a real service for it to look at."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.looking import Look, looking
from tests.conftest import CHROMIUM, NO_CHROMIUM
from tests.support.service import Service


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's own Chromium, without its sandbox, which root cannot have. One thread cannot have two of them at once."""
    assert CHROMIUM.exists(), NO_CHROMIUM
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that delivers into a directory, and makes no missing directories there."""
    directory: Path = tmp_path_factory.mktemp("browser")
    with Service(directory, {"delivery": {"mkdirs": False, "drain_s": 5}}) as made:
        made.settings["api"]["listen"] = [made.address, "127.0.0.1:0"]
        made.write_config()
        yield made.start()


@pytest.fixture
def look(chromium: Browser, service: Service) -> Iterator[Look]:
    """Look at the service; whatever a test is about, no policy is broken and no script fails."""
    with looking(chromium, service) as look:
        yield look


@pytest.fixture
def page(look: Look) -> Page:
    """A page of who may do everything."""
    return look.context().new_page()
