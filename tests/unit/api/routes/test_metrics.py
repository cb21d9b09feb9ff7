"""The address of the metrics where the disk does not answer."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from api.http.response import REQUESTER
from api.metrics.figures import Figures
from api.overview import fresh
from api.overview.fresh import Fresh
from api.routes.metrics import MetricRoutes
from daemon.access.caller import anonymous
from daemon.errors import Rejected
from tests.unit.api.metrics.test_exposition import figures


def test_disk_that_hangs_is_a_refusal_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where numbers of before are known: they would look as if nothing went on. It goes on by itself."""
    goes_on = threading.Event()
    goes_on.set()

    def look() -> Figures:
        goes_on.wait()
        return figures()

    monkeypatch.setattr(fresh, "MAX_AGE_S", 0.0)
    monkeypatch.setattr(fresh, "ANSWERS_WITHIN_S", 0.01)
    scope: dict[str, Any] = {"query_string": b"", "headers": [], "state": {REQUESTER: SimpleNamespace(caller=anonymous(None))}}

    async def statuses(threads: ThreadPoolExecutor) -> list[int | str]:
        found: list[int | str] = []
        routes = MetricRoutes(Fresh(look, threads))

        async def ask() -> None:
            try:
                found.append((await routes.get_metrics(scope, _nothing)).status)
            except Rejected as error:
                found.append(error.code)

        goes_on.clear()
        await ask()
        goes_on.set()
        monkeypatch.setattr(fresh, "ANSWERS_WITHIN_S", 60.0)
        await ask()
        goes_on.clear()
        monkeypatch.setattr(fresh, "ANSWERS_WITHIN_S", 0.01)
        await ask()
        goes_on.set()
        return found

    with ThreadPoolExecutor(1) as threads:
        assert asyncio.run(statuses(threads)) == ["queue_unreadable", 200, "queue_unreadable"]


async def _nothing() -> dict[str, Any]:
    return {}
