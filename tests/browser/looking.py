"""Looking at a service through a browser, and hearing whatever the browser complains of."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

from tests.browser.stand_in import stand_in
from tests.support.service import Service

AXE: Final = Path(__file__).parent / "axe-core" / "axe.min.js"
PHONE: Final = {"viewport": {"width": 360, "height": 740}}
#: What a browser says of every answer that is a refusal, and of a service that is away: no page can keep it from that.
_REFUSED: Final = "Failed to load resource"


class Look:
    """The windows of a test. `complaints` are broken policies, scripts that failed, and what else there was to say."""

    def __init__(self, browser: Browser, service: Service, stack: ExitStack) -> None:
        [started] = service.events("api.started")[-1:]
        port = next(door for door in started["listen"].split(", ") if door.startswith("127.")).rpartition(":")[2]
        self.address = f"http://127.0.0.1:{port}"
        self.complaints: list[str] = []
        self._browser = browser
        self._stack = stack

    def context(self, *, answers: dict[str, object] | None = None, **options: Any) -> BrowserContext:
        """A browser of somebody's own; `answers` are those of `stand_in`."""
        made: BrowserContext = self._stack.enter_context(self._browser.new_context(base_url=f"{self.address}/ui/", **options))
        made.set_default_timeout(20_000)
        made.on("console", self._hear)
        made.on("weberror", lambda error: self.complaints.append(str(error.error)))
        stand_in(made, **answers or {})
        return made

    def _hear(self, message: ConsoleMessage) -> None:
        if not message.text.startswith(_REFUSED):
            self.complaints.append(f"{message.type}: {message.text}")


@contextmanager
def looking(browser: Browser, service: Service) -> Iterator[Look]:
    """Look at a service; whatever it is for, no policy is broken and no script fails."""
    with ExitStack() as stack:
        look = Look(browser, service, stack)
        yield look
        assert look.complaints == []


def findings(page: Page) -> list[str]:
    """What axe finds on a page: what keeps people out, and where."""
    # As an administrator's tools have it: no policy of the page keeps it out.
    page.evaluate(AXE.read_text() + "; undefined")
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [json.dumps([rule["id"], node["target"], node["failureSummary"]]) for rule in found["violations"] for node in rule["nodes"]]


def is_wider_than_the_window(page: Page) -> bool:
    """True when one has to scroll sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))
