"""The body of a request as it arrives."""

import asyncio
from collections.abc import Iterable

import pytest

from api.http.pace import Pace
from api.http.response import Event, Receive
from api.uploads.body import Body, ClientGone
from daemon.errors import Rejected

STEADY = Pace(timeout_s=30.0, min_rate_bytes_s=1000, keep_alive_s=75.0)


@pytest.mark.parametrize(("received_bytes", "waited_s", "patience_s"), [
    (0, 0.0, 30.0), (0, 20.0, 10.0), (0, 30.0, 0.0), (0, 99.0, 0.0),
    (10_000, 30.0, 10.0), (1_000_000, 30.0, 30.0), (1_000_000, 1020.0, 10.0),
])
def test_patience_shrinks_when_the_body_falls_behind_its_pace(
    received_bytes: int, waited_s: float, patience_s: float,
) -> None:
    """A pause of `timeout_s` once, and from then on `min_rate_bytes_s`."""
    assert STEADY.patience_s(received_bytes, waited_s) == patience_s


def test_patience_is_the_same_for_every_pause_when_no_rate_is_asked_for() -> None:
    """A rate of 0 means that only pauses count."""
    assert Pace(timeout_s=30.0, min_rate_bytes_s=0, keep_alive_s=75.0).patience_s(0, 1e6) == 30.0


def coming(events: Iterable[bytes | str]) -> Receive:
    """A client: pieces of the body, then `end`, `gone` or silence."""
    waiting = iter(events)

    async def receive() -> Event:
        event = next(waiting, None)
        if event is None:
            await asyncio.Event().wait()
        if event == "gone":
            return {"type": "http.disconnect"}
        if event == "end":
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.request", "body": event, "more_body": True}

    return receive


async def gather(events: Iterable[bytes | str], at_least: int, length: int | None = None, pace: Pace = STEADY,
                 ) -> tuple[list[list[bytes]], int]:
    """All batches of a body of at most 100 bytes."""
    body = Body(coming(events), length=length, max_bytes=100, pace=pace)
    batches = []
    while not body.ended:
        batches.append(await body.pieces(at_least))
    return batches, body.received_bytes


def test_pieces_come_in_batches_of_at_least_the_size_asked_for() -> None:
    """A batch ends with the piece that fills it; the last one may be short."""
    batches, size = asyncio.run(gather([b"aa", b"b", b"cc", b"d", "end"], 3))
    assert (batches, size) == ([[b"aa", b"b"], [b"cc", b"d"], []], 6)


def test_body_that_has_come_already_is_taken_without_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a body that is waited for can be too slow."""

    async def read() -> tuple[list[list[bytes]], int]:
        monkeypatch.setattr(asyncio.get_running_loop(), "call_at", None)
        return await gather([b"abc", "end"], 10)

    assert asyncio.run(read()) == ([[b"abc"]], 3)


def test_body_is_waited_for_as_often_as_it_makes_wait() -> None:
    """Whatever it waits for, one thing after the other."""

    async def receive() -> Event:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        return {"type": "http.request", "body": b"abc", "more_body": False}

    async def read() -> list[bytes]:
        return await Body(receive, length=3, max_bytes=100, pace=STEADY).pieces(10)

    assert asyncio.run(read()) == [b"abc"]


def test_wait_for_a_body_is_cancelled_where_it_waits() -> None:
    """Whatever is open there is closed."""
    told: list[str] = []

    async def receive() -> Event:
        try:
            await asyncio.Event().wait()
        finally:
            told.append("ended")
        raise AssertionError

    async def cancelled() -> None:
        reading = asyncio.create_task(Body(receive, length=3, max_bytes=100, pace=STEADY).pieces(10))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(cancelled())
    assert told == ["ended"]


@pytest.mark.parametrize(("events", "length", "code"), [
    ([b"x" * 101], None, "too_large"), ([b"x" * 60, b"x" * 41], None, "too_large"),
    ([b"abc", "end"], 4, "incomplete_body"), ([b"abc", "end"], 2, "incomplete_body"),
])
def test_body_is_refused_when_it_is_not_what_was_announced(events: list[bytes | str], length: int | None, code: str) -> None:
    """Too long for the limit, or not as long as it was said to be."""
    with pytest.raises(Rejected, check=lambda error: error.code == code):
        asyncio.run(gather(events, 1000, length))


def test_body_is_refused_when_nothing_more_comes() -> None:
    """A pause that is too long ends the upload."""
    with pytest.raises(Rejected, check=lambda error: error.code == "too_slow"):
        asyncio.run(gather([b"abc"], 10, pace=Pace(timeout_s=0.01, min_rate_bytes_s=0, keep_alive_s=75.0)))


def test_client_that_is_gone_is_nobody_to_tell() -> None:
    """A disconnect is not a refusal."""
    with pytest.raises(ClientGone):
        asyncio.run(gather([b"abc", "gone"], 10))


def test_body_that_is_refused_while_it_comes_is_not_waited_for() -> None:
    """Whoever waits for the rest of it gets the refusal at once, and so does who asks later."""

    async def refused() -> list[str]:
        body = Body(coming([b"x"]), length=None, max_bytes=100, pace=STEADY)
        reading = asyncio.create_task(body.pieces(10))
        while body.received_bytes == 0:
            await asyncio.sleep(0)
        body.refuse(Rejected("bad_credential"))
        codes = []
        for waiting in (reading, body.pieces(10)):
            with pytest.raises(Rejected) as caught:
                await waiting
            codes.append(caught.value.code)
        return codes

    assert asyncio.run(refused()) == ["bad_credential"] * 2


@pytest.mark.parametrize(("length", "told"), [(None, [3, 2]), (5, [])])
def test_bytes_that_nobody_announced_are_told_as_they_come(length: int | None, told: list[int]) -> None:
    """Whoever counts them may end the body by that."""
    heard: list[int] = []

    async def hear(size: int) -> None:
        heard.append(size)

    async def read() -> None:
        body = Body(coming([b"abc", b"de", "end"]), length=length, max_bytes=100, pace=STEADY, unannounced=hear)
        while not body.ended:
            await body.pieces(3)

    asyncio.run(read())
    assert heard == told
