"""Streams of what happens to tasks: each is told all that its client asks for and may see, in order and once.

A stream first reads what happened since the position that its client brings, as fast as the client takes it, then it is
told what happens, with all others at once. When it falls too far behind, or its client's rights change, it reads again
from where it is. What happened before a position that the queue does not know any more is missed: the client is told.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Final

from api.access.requester import Requester
from api.following.event_id import from_id
from api.following.hub import TICK_S, Hub
from api.following.view import EventFilter, View, first_text, heartbeat_text, reset_text, text_for, told_of
from api.http.client_gone import until_gone
from api.http.response import Receive
from api.queries.reader import Reader
from api.threads import joined
from daemon.access.decide import decide
from daemon.errors import Rejected
from daemon.log import log
from daemon.model.grant import Permission
from daemon.process.thread_pools import begin_pool
from daemon.task_queue import Happened, Position

#: A client that is told nothing for so long is sent a comment, so that nothing on the way takes the stream for dead.
HEARTBEAT_S: Final = 15.0
#: Between two pieces of one stream: what happens meanwhile is sent at once.
GATHER_S: Final = 0.1
#: What waits in one stream for its client to read. Those who follow the same have the same bytes.
MOST_WAITING_BYTES: Final = 512 * 1024
#: Events that are read at once for one client that was away.
PAGE: Final = 200

Positions = tuple[Position, ...]
#: What a client is sent next, and up to where that tells it.
Piece = tuple[bytes, Positions]


class _Missed(Exception):
    """What happened after a position is not known any more."""


class Stream:
    """One client that follows."""

    def __init__(self, requester: Requester, wanted: EventFilter) -> None:
        self.requester = requester
        self.view = View(wanted, requester.caller)
        self.ended = False
        #: True when it has to read what it was not told.
        self.behind = False
        self.woken = asyncio.Event()
        self._waiting: deque[Piece] = deque()
        self._waiting_bytes = 0

    def tell(self, piece: Piece) -> None:
        """Keep it for the client, or fall behind."""
        if self.behind:
            return
        self._waiting_bytes += len(piece[0])
        self._waiting.append(piece)
        if self._waiting_bytes > MOST_WAITING_BYTES:
            self.fall_behind()
        self.woken.set()

    def take(self) -> Piece | None:
        """All that waits, and up to where that is; None when nothing does."""
        if not self._waiting:
            return None
        taken = b"".join(text for text, _ in self._waiting), self._waiting[-1][1]
        self._forget()
        return taken

    def fall_behind(self) -> None:
        """Nothing that waits counts: it is read anew, with what the client may see by then."""
        self._forget()
        self.behind = True
        self.woken.set()

    def end(self) -> None:
        """Send nothing more."""
        self._forget()
        self.ended = True
        self.woken.set()

    def _forget(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0


class Streams:
    """All streams of this process. To be used on the event loop."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        #: Apart from who waits for single tasks: to look up the tasks of all events takes longer.
        self.hub: Final = Hub(reader, tasks=True)
        self._thread = begin_pool(1, "events")
        self._all: set[Stream] = set()
        #: Up to where it was read what happens: no client is told anything beyond.
        self._positions: Positions = ()
        #: Those who are told what happens from there on; the others read what they missed.
        self._told: set[Stream] = set()
        self._turn = asyncio.Lock()
        self._draining = False

    async def begin(self, stream: Stream, last_id: str, receive: Receive) -> AsyncGenerator[bytes, None]:
        """All that the client is sent, from after the event of that id on; from now on if there is none.

        What is no id is told to have missed something. It ends when the client is gone. Raises Rejected.
        """
        now = await joined(self._thread.submit(self._reader.positions))
        after = from_id(last_id, self._reader.shards)
        if after is not None:
            return self._follow(stream, after, first_text(None), receive)
        first = first_text(None) + reset_text(now) if last_id else first_text(now)
        return self._follow(stream, now, first, receive)

    async def _follow(
        self, stream: Stream, after: Positions, first: bytes, receive: Receive,
    ) -> AsyncGenerator[bytes, None]:
        gone = asyncio.create_task(until_gone(receive))
        gone.add_done_callback(lambda _: stream.end())
        try:
            await self._enter(stream)
            if self._draining:
                stream.end()
            yield first
            while not stream.ended:
                text, reached = await self._next(stream, after)
                if stream.ended or stream.behind:
                    # It may be more than the client may see by now: it is read anew.
                    continue
                after = reached
                if text:
                    yield text
                    if stream in self._told:
                        await asyncio.wait([gone], timeout=GATHER_S)
        except Rejected as error:
            # The client comes again, and is told what is wrong.
            log("api.waiting", code=error.code, detail=error.detail)
        finally:
            gone.cancel()
            self._leave(stream)

    # --- what one client is sent -------------------------------------------------------------------------

    async def _next(self, stream: Stream, after: Positions) -> Piece:
        if stream.behind:
            stream.behind = False
            self._told.discard(stream)
        if stream in self._told:
            return await self._wait(stream, after)
        try:
            return await self._read_on(stream, after)
        except _Missed:
            now = self._begin_telling(stream)
            return reset_text(now), now

    async def _wait(self, stream: Stream, after: Positions) -> Piece:
        """What the client is told while it happens."""
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                while (piece := stream.take()) is None and not (stream.ended or stream.behind):
                    stream.woken.clear()
                    await stream.woken.wait()
        except TimeoutError:
            # Where nothing waits, it was told of all that happened.
            piece = stream.take() or (heartbeat_text(self._positions), self._positions)
        return piece or (b"", after)

    async def _read_on(self, stream: Stream, after: Positions) -> Piece:
        """Some of what the client has missed; with the last of it, it begins to be told what happens."""
        texts = []
        for shard in range(self._reader.shards):
            text, after, full = await self._read(stream, shard, after, self._positions[shard])
            texts.append(text)
            if full:
                return b"".join(texts), after
        if any(map(_is_beyond, after, self._positions)):
            # Another process told the client so, or it has just begun.
            await asyncio.sleep(TICK_S)
            return b"".join(texts), after
        # What is left is little; what happens from now on waits meanwhile.
        now = self._begin_telling(stream)
        for shard in range(self._reader.shards):
            before: Positions = ()
            while before != after and after[shard] != now[shard]:
                before = after
                text, after, _ = await self._read(stream, shard, after, now[shard])
                texts.append(text)
        return b"".join(texts), now

    async def _read(
        self, stream: Stream, shard: int, after: Positions, up_to: Position,
    ) -> tuple[bytes, Positions, bool]:
        """A page of what happened in a shard, where it ends, and whether it is full. Raises _Missed and Rejected."""
        return await joined(self._thread.submit(self._page, stream.view, shard, after, up_to))

    def _page(self, view: View, shard: int, after: Positions, up_to: Position) -> tuple[bytes, Positions, bool]:
        happened = self._reader.happened(shard, after[shard], PAGE, tasks=True)
        happened = _cut(happened, after[shard] if _is_beyond(after[shard], up_to) else up_to)
        if happened.lost or any(event.task_id not in happened.tasks for event in happened.events):
            raise _Missed
        text = text_for(view, list(told_of(happened, shard, after)))
        return text, _moved(after, shard, happened.position), len(happened.events) == PAGE

    # --- what all are told -------------------------------------------------------------------------------

    def tell(self, shard: int, happened: Happened) -> None:
        """Tell it to all who are told what happens; those who follow the same get the same bytes."""
        events = list(told_of(happened, shard, self._positions))
        self._positions = _moved(self._positions, shard, happened.position)
        texts: dict[View, bytes] = {}
        for stream in self._told:
            text = texts.get(stream.view)
            if text is None:
                text = reset_text(self._positions) if happened.lost else text_for(stream.view, events)
                texts[stream.view] = text
            if text:
                stream.tell((text, self._positions))

    def _begin_telling(self, stream: Stream) -> Positions:
        """Tell it what happens after the positions that this returns, and nothing of before."""
        stream.take()
        self._told.add(stream)
        return self._positions

    async def _enter(self, stream: Stream) -> None:
        """Read what happens for as long as somebody follows. Raises Rejected."""
        async with self._turn:
            if not self._all:
                self._positions = await self.hub.join(self)
            self._all.add(stream)

    def _leave(self, stream: Stream) -> None:
        self._told.discard(stream)
        if stream in self._all:
            self._all.discard(stream)
            if not self._all:
                self.hub.leave(self)

    # --- all of them -------------------------------------------------------------------------------------

    async def recheck(self) -> None:
        """End the streams of who may not follow any more; the others see what they may see by now."""
        for stream in list(self._all):
            try:
                caller = await stream.requester.again()
                if (code := decide(caller, Permission.READ)) is not None:
                    raise Rejected(code)
            except Rejected as refusal:
                # What cannot be looked up at the moment is looked up again.
                if not refusal.is_ours:
                    stream.end()
            else:
                if caller != stream.view.caller:
                    stream.view = replace(stream.view, caller=caller)
                    stream.fall_behind()

    def end(self) -> None:
        """The process drains: end all streams, also those that begin from now on."""
        self._draining = True
        for stream in self._all:
            stream.end()

    def close(self) -> None:
        """Wait for the threads to end."""
        self.hub.close()
        self._thread.shutdown()


def _is_beyond(position: Position, other: Position) -> bool:
    return position.epoch == other.epoch and position.seq > other.seq


def _moved(positions: Positions, shard: int, position: Position) -> Positions:
    return (*positions[:shard], position, *positions[shard + 1:])


def _cut(happened: Happened, up_to: Position) -> Happened:
    """Only what happened up to that position."""
    if happened.lost or happened.position.seq <= up_to.seq:
        return happened
    events = tuple(event for event in happened.events if event.seq <= up_to.seq)
    return replace(happened, events=events, position=up_to)

