"""The parts of a form as they arrive."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from api.http.pace import Pace
from api.http.response import Event
from api.uploads.body import ClientGone
from api.uploads.form_body import MAX_LEFT_BYTES, FormBody
from daemon.errors import Rejected
from tests.support.forms import BOUNDARY, form

STEADY = Pace(timeout_s=30.0, min_rate_bytes_s=1000, keep_alive_s=75.0)
TWO = form([("f", "a", b"x" * 10), ("f", "b", b"y" * 10)])


class Sender:
    """A client that sends pieces, and then ends or goes away."""

    def __init__(self, pieces: Sequence[bytes], *, goes: bool = False) -> None:
        self.pieces = list(pieces)
        self._goes = goes

    async def receive(self) -> Event:
        """The next piece."""
        if not self.pieces:
            return {"type": "http.disconnect"} if self._goes else {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.request", "body": self.pieces.pop(0), "more_body": True}


def read(sender: Sender, use: Callable[[FormBody], Awaitable[object]]) -> object:
    """What `use` makes of the form."""
    async def run() -> object:
        return await use(FormBody(sender.receive, BOUNDARY.encode(), length=None, pace=STEADY))

    return asyncio.run(run())


async def bytes_of(form_body: FormBody) -> bytes:
    """All that is left of a part."""
    found = b""
    while (event := await form_body.receive())["more_body"]:
        found += event["body"]
    return found


async def read_to_the_end(form_body: FormBody) -> None:
    """Pass over all parts."""
    going = True
    while going:
        going = await form_body.next_part() is not None


def test_parts_are_read_one_after_the_other_and_what_is_left_of_one_is_passed_over() -> None:
    """Whoever refuses a file need not read it."""
    sender = Sender([TWO[at:at + 7] for at in range(0, len(TWO), 7)])

    async def use(body: FormBody) -> list[object]:
        first = await body.next_part()
        second = await body.next_part()
        return [bool(first and second), await bytes_of(body), await body.receive(), await body.next_part()]

    assert read(sender, use) == [True, b"y" * 10, {"type": "http.request", "body": b"", "more_body": False}, None]


def test_no_more_is_read_than_is_wanted() -> None:
    """The network goes as fast as the disk."""
    head, rest = TWO[:TWO.index(b"x" * 10)], [b"x"] * 5
    sender = Sender([head, *rest])

    async def use(body: FormBody) -> int:
        await body.next_part()
        await body.receive()
        return len(sender.pieces)

    assert read(sender, use) == len(rest) - 1


def test_empty_input_is_told_from_an_empty_name() -> None:
    """Nothing is taken of a part to see that."""
    async def use(body: FormBody) -> list[object]:
        await body.next_part()
        empty = await body.is_empty()
        await body.next_part()
        return [empty, await body.is_empty(), await bytes_of(body)]

    assert read(Sender([form([("f", "", b""), ("f", "", b"x")])]), use) == [True, False, b"x"]


@pytest.mark.parametrize(("pieces", "code"), [
    ([TWO[:-10]], "bad_form"), ([TWO[:20]], "bad_form"), ([], "bad_form"),
    ([TWO[:-len(BOUNDARY) - 8], *[b"z" * 2**20] * (MAX_LEFT_BYTES // 2**20 + 1)], "long_form"),
    ([form([("f", "a", b"")] * 2000)], "long_form"),
])
def test_what_ended_a_form_ends_it_for_all_who_read_on(pieces: list[bytes], code: str) -> None:
    """So the files before it are told from those that were not read."""
    async def use(body: FormBody) -> Rejected | None:
        for _ in range(2):
            with pytest.raises(Rejected, check=lambda error: error.code == code):
                await read_to_the_end(body)
        return body.refusal

    refusal = read(Sender(pieces), use)
    assert isinstance(refusal, Rejected)


def test_client_that_goes_away_is_told_of_wherever_it_was() -> None:
    """In a file or between two."""
    for end in (30, TWO.index(b"y" * 10)):
        with pytest.raises(ClientGone):
            read(Sender([TWO[:end]], goes=True), read_to_the_end)


def test_what_follows_the_form_is_read_and_forgotten() -> None:
    """The connection can be used again."""
    sender = Sender([TWO, b"epilogue"])

    async def use(body: FormBody) -> int:
        await read_to_the_end(body)
        return len(sender.pieces)

    assert read(sender, use) == 0
