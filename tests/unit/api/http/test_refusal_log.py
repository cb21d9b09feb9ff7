"""The log of refusals."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from api.http import refusal_log
from api.http.refusal_log import RefusalLog
from tests.support.waiting import PATIENCE_S

Lines = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    """What is logged, in a service whose pauses end soon."""
    logged: Lines = []
    monkeypatch.setattr(refusal_log, "log", lambda event, **fields: logged.append((event, fields)))
    monkeypatch.setattr(refusal_log, "PAUSE_S", 0.01)
    return logged


def refuse(log: RefusalLog, number: int, peer: str = "a", code: str = "bad_path", root: str | None = None) -> None:
    """Refuse the uploads 1 to `number`."""
    for path in range(1, number + 1):
        log.log("upload.rejected", peer=peer, code=code, root=root, path=path)


def on_a_loop(scenario: Callable[[RefusalLog], None], lines: Lines, wanted: int) -> None:
    """Run `scenario` on an event loop until there are so many lines."""
    async def run() -> None:
        scenario(RefusalLog())
        async with asyncio.timeout(PATIENCE_S):
            while len(lines) < wanted:
                await asyncio.sleep(0)

    asyncio.run(run())


def test_first_refusal_is_logged_at_once_and_the_newest_later_stands_for_the_others(lines: Lines) -> None:
    """A hundred refusals are two lines."""
    on_a_loop(lambda log: refuse(log, 100), lines, 2)
    first, second = ({"peer": "a", "code": "bad_path", "path": path} for path in (1, 100))
    assert lines == [("upload.rejected", first), ("upload.rejected", {**second, "left_out": 98})]


def test_second_refusal_is_logged_whole(lines: Lines) -> None:
    """Nothing was left out before it."""
    on_a_loop(lambda log: refuse(log, 2), lines, 2)
    assert lines[1] == ("upload.rejected", {"peer": "a", "code": "bad_path", "path": 2, "left_out": None})


def test_other_kinds_and_other_peers_are_logged_at_once(lines: Lines) -> None:
    """A flood hides nobody else's refusal."""
    def scenario(log: RefusalLog) -> None:
        refuse(log, 10)
        refuse(log, 1, peer="b")
        refuse(log, 1, code="bad_mode")
        assert [fields["path"] for _, fields in lines] == [1, 1, 1]

    on_a_loop(scenario, lines, 4)


def test_refusals_that_were_kept_back_are_logged_at_the_end(lines: Lines) -> None:
    """The process may end within the pause."""
    def scenario(log: RefusalLog) -> None:
        refuse(log, 3)
        log.close()

    on_a_loop(scenario, lines, 2)
    assert lines[1][1]["path"] == 3


def test_nothing_is_remembered_of_a_peer_that_is_refused_no_more(lines: Lines) -> None:
    """Its next refusal is logged at once."""
    async def run() -> None:
        log = RefusalLog()
        for number in (1, 2):
            refuse(log, 1)
            assert len(lines) == number
            async with asyncio.timeout(PATIENCE_S):
                while log._kept:
                    await asyncio.sleep(0)

    asyncio.run(run())


def test_those_who_come_by_one_proxy_hide_nothing_of_each_other(lines: Lines) -> None:
    """Whoever was given rights is told apart from the others, also where all of them have one address."""
    def scenario(log: RefusalLog) -> None:
        refuse(log, 100, root="user:mallory")
        refuse(log, 1, root="user:alice")
        refuse(log, 100, root="user:mallory")

    on_a_loop(scenario, lines, 3)
    assert [fields["path"] for _, fields in lines] == [1, 1, 100]
