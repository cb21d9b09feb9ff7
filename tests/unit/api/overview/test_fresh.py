"""What is found out once for all who ask."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.overview import fresh as module
from api.overview.fresh import Fresh
from daemon.errors import Rejected


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """One thread."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


class Counting:
    """Looks, and counts how often."""

    def __init__(self) -> None:
        """Nothing hangs yet."""
        self.looked = 0
        self.goes_on = threading.Event()
        self.goes_on.set()

    def look(self) -> int:
        """How often it was looked, when it is let."""
        self.goes_on.wait()
        self.looked += 1
        return self.looked


def test_all_who_ask_within_a_second_are_told_the_same(threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many they are; after that it is looked again."""
    counting = Counting()

    async def ask() -> list[int]:
        fresh = Fresh(counting.look, threads)
        found = await asyncio.gather(*(fresh.get() for _ in range(50)), return_exceptions=False)
        found.append(await fresh.get())
        monkeypatch.setattr(module, "MAX_AGE_S", 0.0)
        return [*(one.value for one in found), (await fresh.get()).value]

    assert asyncio.run(ask()) == [1] * 51 + [2]


def test_nobody_waits_for_a_disk_that_hangs(threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was known is told, and that it is late; who was never told anything is refused. It goes on by itself."""
    counting = Counting()
    monkeypatch.setattr(module, "MAX_AGE_S", 0.0)

    async def ask() -> None:
        fresh, other = Fresh(counting.look, threads), Fresh(counting.look, threads)
        await fresh.get()
        monkeypatch.setattr(module, "ANSWERS_WITHIN_S", 0.01)
        counting.goes_on.clear()
        found = await fresh.get()
        assert (found.value, found.late) == (1, True)
        with pytest.raises(Rejected, check=lambda error: error.code == "queue_unreadable"):
            await other.get()
        monkeypatch.setattr(module, "OLDEST_S", 0.0)
        with pytest.raises(Rejected):
            await fresh.get()
        monkeypatch.setattr(module, "ANSWERS_WITHIN_S", 10.0)
        counting.goes_on.set()
        found = await fresh.get()
        assert (found.value, found.late) == (2, False)

    asyncio.run(ask())


def test_what_goes_wrong_is_told_to_all_who_wait_and_tried_again(threads: ThreadPoolExecutor) -> None:
    """A failure is not kept."""
    failing = [True]

    def look() -> str:
        if failing:
            failing.clear()
            raise Rejected("no_room")
        return "well"

    async def ask() -> str:
        fresh = Fresh(look, threads)
        found = await asyncio.gather(*(fresh.get() for _ in range(3)), return_exceptions=True)
        assert [getattr(error, "code", None) for error in found] == ["no_room"] * 3
        return (await fresh.get()).value

    assert asyncio.run(ask()) == "well"
