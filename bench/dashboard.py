"""How soon somebody who opens the dashboard sees something, however much waits."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, sync_playwright

from bench import fill
from bench.figures import Figure, Goal, Section, median
from bench.plan import Plan
from bench.service import Service

TITLE: Final = "The dashboard"
_CHROMIUM: Final = Path("/usr/bin/chromium")
_SMALL: Final = 1000
_PEER: Final = f"{_SMALL:,} pending"
METHOD: Final = f"""\
Debian's Chromium opens a page of a service without workers, each time with nothing kept from before. *First paint*
is the browser's own figure (`first-contentful-paint`); *whole* is until what was asked for is on the page. Beside it:
the same with {_SMALL:,} tasks.
"""
#: A page, its address, and what is there once it is whole.
_PAGES: Final = {"Overview": ("", ".tiles"), "Instances": ("instances", "td.heat"), "Tasks": ("tasks", "a.task-link")}
_PAINT: Final = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
_SOON: Final = (Goal("value", "<", 300),)


def run(plan: Plan) -> Section:
    """Measure it."""
    if not _CHROMIUM.exists():
        return Section(title=TITLE, method=METHOD, figures=[], notes=["Not measured: apt-get install chromium"])
    scratch = plan.directory("dashboard")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(_CHROMIUM), args=["--no-sandbox"])
        large, small = (_opened(browser, scratch / str(count), count, plan.rounds) for count in (plan.pending, _SMALL))
        browser.close()
    return Section(title=TITLE, method=METHOD, figures=list(_figures(plan.pending, large, small)), notes=[])


def _figures(
    pending: int, large: dict[str, tuple[float, float]], small: dict[str, tuple[float, float]],
) -> Iterator[Figure]:
    for page, (paint, whole) in large.items():
        small_paint, small_whole = small[page]
        yield Figure(what=f"{page}, first paint, {pending:,} pending", value=paint, unit="ms", peer=_PEER,
                     peer_value=small_paint, goals=_SOON)
        yield Figure(what=f"{page}, whole, {pending:,} pending", value=whole, unit="ms", peer=_PEER,
                     peer_value=small_whole)


def _opened(browser: Browser, state: Path, pending: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Until something is seen, and until all is, in milliseconds; of each page."""
    fill.fill(state, pending, files=False)
    with Service(state, target="directory") as service:
        service.start_api()
        seen: dict[str, list[tuple[float, float]]] = {page: [] for page in _PAGES}
        for _ in range(rounds):
            for page, (address, whole) in _PAGES.items():
                with browser.new_context() as context:
                    tab = context.new_page()
                    tab.goto(f"http://127.0.0.1:{service.port}/ui/{address}")
                    tab.wait_for_selector(whole)
                    seen[page].append((tab.evaluate(_PAINT), tab.evaluate("performance.now()")))
    return {page: (median([paint for paint, _ in times]), median([whole for _, whole in times]))
            for page, times in seen.items()}
