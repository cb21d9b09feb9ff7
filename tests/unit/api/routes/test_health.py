"""Who asks whether uploads can be taken."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.routes import health
from api.routes.health import Examiner, Probe, Readiness
from daemon.config import load
from tests.support.waiting import PATIENCE_S

CONFIG = load(None)


class Disk:
    """A probe of a disk that answers when it may."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = threading.Event()
        self.admission = SimpleNamespace(trouble=lambda: None)

    def examine(self, _config: Any) -> Readiness:
        """Wait, and find nothing in the way."""
        self.asked += 1
        assert self.may_answer.wait(PATIENCE_S)
        return Readiness([], [1])


def ask(disk: Disk, scenario: Callable[[Examiner], Any]) -> None:
    """Run a scenario with who examines the disk."""
    async def run() -> None:
        with ThreadPoolExecutor(2) as threads:
            try:
                await scenario(Examiner(cast(Probe, disk), threads))
            finally:
                disk.may_answer.set()

    asyncio.run(run())


def test_who_asks_at_once_shares_one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask, one thread is busy with it; who asks later has it tried anew."""
    monkeypatch.setattr(health, "ANSWERS_WITHIN_S", PATIENCE_S)
    disk = Disk()

    async def scenario(examiner: Examiner) -> None:
        asking = [asyncio.create_task(examiner.examine(CONFIG)) for _ in range(5)]
        await asyncio.sleep(0)
        disk.may_answer.set()
        assert [found.status for found in await asyncio.gather(*asking)] == [200] * 5
        assert disk.asked == 1
        await examiner.examine(CONFIG)
        assert disk.asked == 2

    ask(disk, scenario)


def test_nobody_waits_for_a_disk_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is the answer then; it is tried once for all, until it answers."""
    monkeypatch.setattr(health, "ANSWERS_WITHIN_S", 0.01)
    disk = Disk()

    async def scenario(examiner: Examiner) -> None:
        for _ in range(3):
            found = await examiner.examine(CONFIG)
            assert [reason.code for reason in found.reasons] == ["storage_failed"]
            assert "not answered" in found.reasons[0].detail
        assert disk.asked == 1
        monkeypatch.setattr(health, "ANSWERS_WITHIN_S", PATIENCE_S)
        disk.may_answer.set()
        assert (await examiner.examine(CONFIG)).status == 200

    ask(disk, scenario)
