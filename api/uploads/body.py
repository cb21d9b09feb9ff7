"""The body of one request as it arrives: in pieces, counted, and only as slow as is allowed."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final

from api.http.client_gone import ClientGone as ClientGone
from api.http.pace import Pace
from api.http.response import Event, Receive
from daemon.errors import Rejected

#: A deadline is moved once so much of its time has gone by.
SLACK: Final = 0.05


class Body:
    """Reads the pieces of one body. Only the time spent waiting for the client counts against it."""

    received_bytes = 0
    #: True when the last piece is there.
    ended = False
    _waited_s = 0.0
    _refusal: Rejected | None = None
    _limit: asyncio.Timeout | None = None

    def __init__(
        self, receive: Receive, *, length: int | None, max_bytes: int, pace: Pace, too_large: str = "too_large",
        unannounced: Callable[[int], Awaitable[None]] | None = None, counted: Callable[[int], None] | None = None,
    ) -> None:
        """Read with `receive`; `too_large` is the code for what has more than `max_bytes`.

        `unannounced` is told how many bytes came of which nobody knew before; what it raises ends the body.
        `counted` is told of all bytes that came.
        """
        self._receive = receive
        self._length = length
        self._max_bytes = max_bytes
        self._pace = pace
        self._unannounced = unannounced if length is None else None
        self._counted = counted
        self._too_large = too_large
        self._gathered: list[bytes] = []
        self._clock = asyncio.get_running_loop().time
        #: True when its length was stated.
        self.announced = length is not None

    async def pieces(self, at_least: int) -> list[bytes]:
        """The next pieces: `at_least` bytes and a little more, or all that was left when the body ended.

        Raises Rejected('too_large', 'too_slow' or 'incomplete_body'), what `refuse` was given, what `unannounced`
        raises, and ClientGone: keep nothing then.
        """
        if self._refusal is not None:
            raise self._refusal
        pieces = self._gathered = list[bytes]()
        before = self.received_bytes
        wanted = before + at_least
        try:
            waiting = self._gather_at_hand(wanted)
            if waiting is not None:
                await self._gather_until(wanted, waiting)
        except TimeoutError as error:
            raise self._refusal or Rejected("too_slow") from error
        finally:
            if self._counted is not None:
                self._counted(self.received_bytes - before)
        if self._unannounced is not None:
            await self._unannounced(sum(map(len, pieces)))
        self._gathered = []
        return pieces

    def rest(self) -> list[bytes]:
        """The pieces that had come when `pieces` raised; none after that."""
        rest, self._gathered = self._gathered, []
        return rest

    def refuse(self, refusal: Rejected) -> None:
        """Take no more of it: whoever reads gets the refusal. What is whole already stays so."""
        self._refusal = refusal
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(self._clock())

    def _deadline(self, now: float) -> float:
        """When to give up if nothing comes; a little late, because it is not moved for every piece."""
        return now + self._pace.patience_s(self.received_bytes, self._waited_s) + self._pace.timeout_s * SLACK

    def _gather_at_hand(self, wanted: int) -> "_Begun | None":
        """Take what has come already, so that a small body costs no timer; what is waited for then, or None."""
        while not self.ended and self.received_bytes < wanted:
            steps = self._receive().__await__()
            try:
                waits_for = next(steps)
            except StopIteration as end:
                self._take(end.value)
            else:
                return _Begun(steps, waits_for)
        return None

    async def _gather_until(self, wanted: int, receiving: Awaitable[Event]) -> None:
        """Take what comes. Raises TimeoutError when it does not come in time."""
        moved_at = self._clock()
        try:
            async with asyncio.timeout_at(self._deadline(moved_at)) as limit:
                self._limit = limit
                await self._next(receiving)
                while not self.ended and self.received_bytes < wanted:
                    now = self._clock()
                    if now - moved_at > self._pace.timeout_s * SLACK:
                        limit.reschedule(self._deadline(now))
                        moved_at = now
                    await self._next(self._receive())
        finally:
            self._limit = None

    async def _next(self, receiving: Awaitable[Event]) -> None:
        began = self._clock()
        event = await receiving
        self._waited_s += self._clock() - began
        self._take(event)

    def _take(self, event: Event) -> None:
        if event["type"] == "http.disconnect":
            raise ClientGone
        piece: bytes = event.get("body", b"")
        self.received_bytes += len(piece)
        if self.received_bytes > self._max_bytes:
            raise Rejected(self._too_large)
        self.ended = not event.get("more_body", False)
        if self.ended and self._length is not None and self.received_bytes != self._length:
            raise Rejected("incomplete_body")
        if piece:
            self._gathered.append(piece)


class _Begun(Generator[Any, None, Event]):
    """An event whose receiving has begun, and waits: to be awaited."""

    def __init__(self, steps: Generator[Any, None, Event], waits_for: object) -> None:
        self._steps = steps
        #: What it waits for, until that was told.
        self._untold = [waits_for]

    def __await__(self) -> Generator[Any, None, Event]:
        return self

    def send(self, value: None) -> Any:
        """Go on, as the event loop wants it."""
        return self._untold.pop() if self._untold else self._steps.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise an error where it waits, as the event loop does to cancel it."""
        return self._steps.throw(*error)
