"""Streams: who follows is told what he asks for and may see, in order, nothing twice, and whether something is missing."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.access.requester import Requester
from api.following import stream as module
from api.following.event_id import to_id
from api.following.stream import Stream, Streams
from api.following.view import EventFilter
from api.queries.reader import Reader
from daemon.access.caller import Caller, Link, anonymous
from daemon.errors import Rejected
from daemon.model.grant import Grant, Permission
from daemon.model.task import State
from daemon.model.upload import Upload
from tests.support.depot import Depot
from tests.support.event_stream import Event, Parser

WEB = Caller(name="token:web", links=(Link("token:web", Grant(may=frozenset({Permission.READ}), instances=("web-*",))),))


class Client:
    """Somebody who follows."""

    def __init__(self, wanted: EventFilter, caller: Caller) -> None:
        self.caller = caller
        self.parser = Parser()
        self.left = asyncio.Event()
        self.stream = Stream(Requester(caller, self._again), wanted)
        self.pieces: AsyncGenerator[bytes, None]
        self._events: list[Event] = []

    async def begin(self, streams: Streams, last_id: str) -> None:
        """Follow; with the first piece it is known from where on."""
        self.pieces = await streams.begin(self.stream, last_id, self._receive)
        assert await self.read()

    async def _again(self) -> Caller:
        if not self.caller.links:
            raise Rejected("bad_credential")
        return self.caller

    async def _receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def read(self) -> bool:
        """Read the next piece; False: the stream has ended."""
        piece = await anext(self.pieces, None)
        self._events += self.parser.feed(piece or b"")
        return piece is not None

    async def next(self) -> Event:
        """Wait for the next event."""
        while not self._events:
            assert await self.read(), "the stream ended"
        return self._events.pop(0)

    async def hears(self, *events: tuple[Upload, State]) -> str:
        """Wait for these events, which come next; return the id of the last one."""
        heard = [await self.next() for _ in events]
        assert [event.task for event in heard] == [(upload.task_id, state.label) for upload, state in events]
        return heard[-1].last_id

    async def is_reset(self) -> str:
        """Wait for the next event: something is missing. Return its id."""
        event = await self.next()
        assert event.name == "reset"
        return event.last_id

    async def ends(self) -> None:
        """Wait for the end."""
        while await self.read():
            pass
        assert self._events == []


class House:
    """A queue and its streams."""

    def __init__(self, depot: Depot, streams: Streams) -> None:
        self.depot = depot
        self.streams = streams
        self._clients: list[Client] = []
        self._names = itertools.count()

    async def follow(self, wanted: EventFilter | None = None, *, caller: Caller | None = None, last_id: str = "") -> Client:
        """Follow; with the first piece it is known from where on."""
        client = Client(wanted or EventFilter(), caller or anonymous(None))
        await client.begin(self.streams, last_id)
        self._clients.append(client)
        return client

    def put(self, number: int = 1, **values: Any) -> list[Upload]:
        """Put uploads, each in a transaction of its own."""
        return [self.depot.accept(f"/{next(self._names)}", **values) for _ in range(number)]

    async def close(self) -> None:
        """Have all clients leave."""
        for client in self._clients:
            await client.pieces.aclose()


@pytest.fixture
def depot(quick_path: Path) -> Iterator[Depot]:
    """One shard."""
    with Depot(quick_path / "state") as made:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for."""
    monkeypatch.setattr(module, "GATHER_S", 0.0)


@asynccontextmanager
async def at_home(depot: Depot) -> AsyncIterator[House]:
    """Streams that are told what happens."""
    with closing(Reader(depot.layout, depot.spool, 1)) as reader, closing(Streams(reader)) as streams:
        watch = asyncio.create_task(streams.hub.watch())
        house = House(depot, streams)
        yield house
        await house.close()
        watch.cancel()


def queued(*uploads: Upload) -> list[tuple[Upload, State]]:
    """Their first events."""
    return [(upload, State.QUEUED) for upload in uploads]


def test_follower_is_told_what_happens_from_then_on_and_resumes_with_nothing_missed_or_twice(depot: Depot) -> None:
    """From the first position on, from within, and from the end; also when there is more than one page to catch up with."""
    async def follow() -> None:
        async with at_home(depot) as house:
            house.put()
            client = await house.follow()
            start = client.parser.last_id
            assert client.parser.retry_ms > 0
            [first] = house.put(instance="c2")
            depot.settle(first, State.DEFERRED, due_at=0.0)
            depot.queue.promote_due(1.0, 9)
            depot.settle(first, State.FAILED)
            states = [State.QUEUED, State.PUSHING, State.DEFERRED, State.QUEUED, State.PUSHING, State.FAILED]
            everything = [(first, state) for state in states] + queued(*house.put(3))
            middle = await client.hears(*everything[:4])
            last = await client.hears(*everything[4:])
            more = house.put(2)
            for last_id, rest in ((start, everything), (middle, everything[4:]), (last, [])):
                late = await house.follow(last_id=last_id)
                await late.hears(*rest, *queued(*more))
                new = house.put()
                await late.hears(*queued(*new))
                more += new

    with pytest.MonkeyPatch.context() as small:
        small.setattr(module, "PAGE", 2)
        asyncio.run(follow())


def test_follower_is_told_only_what_he_asks_for_and_may_see(depot: Depot) -> None:
    """What is no affair of his moves his position on all the same, with the next heartbeat."""
    async def follow() -> None:
        async with at_home(depot) as house:
            [web], [db] = house.put(instance="web-1", client="token:ci"), house.put(instance="db-1")
            everybody, guest = await house.follow(), await house.follow(caller=WEB)
            asks = [EventFilter(task_ids=frozenset({web.task_id})), EventFilter(instance_key="local/default/web-1"),
                    EventFilter(client="token:ci"), EventFilter(states=frozenset({State.CANCELLED}))]
            asking = [await house.follow(wanted) for wanted in asks]
            depot.settle(db, State.FAILED)
            await everybody.hears((db, State.PUSHING), (db, State.FAILED))
            while guest.parser.last_id != everybody.parser.last_id:
                await guest.read()
            assert guest.parser.comments > 0
            depot.settle(web, State.CANCELLED)
            for client in (everybody, guest, *asking[:3]):
                await client.hears((web, State.PUSHING), (web, State.CANCELLED))
            last = await asking[3].hears((web, State.CANCELLED))
            late = await house.follow(caller=WEB, last_id=last)
            [web] = house.put(instance="web-2")
            for client in (guest, late):
                await client.hears((web, State.QUEUED))

    with pytest.MonkeyPatch.context() as small:
        small.setattr(module, "HEARTBEAT_S", 0.0)
        asyncio.run(follow())


def test_follower_whose_position_is_unknown_is_told_so_and_goes_on(depot: Depot) -> None:
    """Of another database, too old, of the future, never given, or with tasks between that are gone."""
    async def follow() -> None:
        async with at_home(depot) as house:
            client = await house.follow()
            start = client.parser.last_id
            [gone] = house.put()
            first = await client.hears(*queued(gone))
            depot.settle(gone, State.DELIVERED)
            await client.hears((gone, State.PUSHING), (gone, State.DELIVERED))
            depot.queue.unspool([depot.task(gone).order])
            assert depot.queue.clear_finished(4e9, 0, 9) == 1
            late = await house.follow(last_id=first)
            reset = await late.is_reset()
            assert depot.queue.forget_events(4e9, 9, 9) > 0
            for last_id in (start, "garbage", reset[:-1] + "w"):
                late = await house.follow(last_id=last_id)
                assert await late.is_reset() == reset
                await late.hears(*queued(*house.put()))
                reset = late.parser.last_id
            depot.queue.begin_epoch()
            now = await late.is_reset()
            assert now != reset
            late = await house.follow(last_id=reset)
            assert await late.is_reset() == now

    asyncio.run(follow())


def test_follower_who_falls_behind_reads_what_he_was_not_told(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for him is bounded; he misses nothing, and nobody else waits for him."""
    async def follow() -> None:
        async with at_home(depot) as house:
            slow, other = await house.follow(), await house.follow()
            first = queued(*house.put())
            await slow.hears(*first)
            await other.hears(*first)
            monkeypatch.setattr(module, "MOST_WAITING_BYTES", 1000)
            some = house.put(9)
            reading = asyncio.create_task(other.hears(*queued(*some)))
            while not slow.stream.behind:
                await asyncio.sleep(0)
            await slow.hears(*queued(*some))
            await reading
            await slow.hears(*queued(*house.put()))

    asyncio.run(follow())


def test_stream_is_told_nothing_of_before_where_the_process_has_not_read_it_yet(depot: Depot) -> None:
    """Neither who begins now, nor who comes from another process that is quicker."""
    async def follow() -> None:
        with closing(Reader(depot.layout, depot.spool, 1)) as reader, closing(Streams(reader)) as streams:
            house = House(depot, streams)
            first = await house.follow()
            reading = asyncio.create_task(first.read())
            while not streams._told:
                await asyncio.sleep(0)
            before = house.put()
            clients = [await house.follow(), await house.follow(last_id=to_id([depot.queue.position()]))]
            hearing = [asyncio.create_task(client.next()) for client in clients]
            await asyncio.sleep(0)
            watch = asyncio.create_task(streams.hub.watch())
            await reading
            await first.hears(*queued(*before))
            while len(streams._told) < 3:
                await asyncio.sleep(0)
            [now] = house.put()
            assert [event.task for event in await asyncio.gather(*hearing)] == [(now.task_id, "queued")] * 2
            await house.close()
            watch.cancel()

    asyncio.run(follow())


def test_rights_count_as_they_are_when_something_happens(depot: Depot) -> None:
    """Whose rights change is told what he may see by then; whose identity ends, or who may not read, is told nothing."""
    async def follow() -> None:
        async with at_home(depot) as house:
            client, ended, writer = [await house.follow() for _ in range(3)]
            [web], [db] = house.put(instance="web-1"), house.put(instance="db-1")
            client.caller = WEB
            ended.caller = replace(WEB, links=())
            writer.caller = replace(WEB, links=(Link("w", Grant(may=frozenset({Permission.UPLOAD}))),))
            await house.streams.recheck()
            await ended.ends()
            await writer.ends()
            await client.hears((web, State.QUEUED))
            depot.settle(db, State.FAILED)
            depot.settle(web, State.FAILED)
            await client.hears((web, State.PUSHING), (web, State.FAILED))

    asyncio.run(follow())


def test_stream_ends_with_its_client_and_with_the_process(depot: Depot) -> None:
    """At once, and nothing of it is left; while nobody follows nothing is read."""
    async def follow() -> None:
        async with at_home(depot) as house:
            clients = [await house.follow() for _ in range(3)]
            start = clients[0].parser.last_id
            clients[0].left.set()
            await clients[0].ends()
            [upload] = house.put()
            await clients[1].hears((upload, State.QUEUED))
            house.streams.end()
            for client in clients[1:]:
                await client.read()
                await client.ends()
            late = await house.follow(last_id=start)
            await late.ends()
            assert house.streams._all == house.streams._told == set()
            assert house.streams.hub._positions is None

    asyncio.run(follow())
