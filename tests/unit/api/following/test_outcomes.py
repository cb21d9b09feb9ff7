"""Waiting for what becomes of tasks: what ends it, and what it costs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, NoReturn

import pytest

from api.following import outcomes
from api.following.hub import Hub
from api.following.outcomes import Outcomes
from api.http.client_gone import ClientGone
from api.http.peers import Shares
from api.http.response import PEER, Event
from api.live_config import LiveConfig
from api.queries.finder import Finder
from api.queries.reader import Reader
from daemon.config import Api, Config
from daemon.errors import Rejected
from daemon.model.task import State
from daemon.model.upload import Upload
from daemon.process.shared_counts import Column, SharedCounts
from daemon.task_queue import Change, Happened
from tests.support.depot import Depot, new_id
from tests.support.waiting import PATIENCE_S

#: As long as a test waits, and longer.
LONG_S = 300


class Client:
    """A client that prefers to wait."""

    def __init__(self, prefer: str = "wait=200", peer: str = "192.0.2.1") -> None:
        self.scope = {"headers": [(b"prefer", prefer.encode())] if prefer else [], "state": {PEER: peer}}
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self.receive = self._events.get

    def go(self) -> None:
        """Close the connection."""
        self._events.put_nowait({"type": "http.disconnect"})


class World:
    """A shard, and all that waiting for its tasks needs."""

    def __init__(self, depot: Depot, reader: Reader, hub: Hub, threads: ThreadPoolExecutor, places: int) -> None:
        self.depot = depot
        self.hub = hub
        self.shares = Shares(lambda: places, SharedCounts(), Column.WAITING)
        self.outcomes = Outcomes(LiveConfig(Config(api=Api(max_wait_s=LONG_S))), hub, reader, Finder(reader, threads),
                                 threads, self.shares)

    async def begin(self, *uploads: Upload, client: Client | None = None) -> "asyncio.Task[Any]":
        """Wait for uploads; come back when that has begun."""
        client = client or Client()
        before = self.shares.taken
        waiting = asyncio.create_task(self.outcomes.wait(
            client.scope, client.receive, *(upload.task_id for upload in uploads)))
        while self.shares.taken == before and not waiting.done():
            await asyncio.sleep(0)
        # Until it has looked: from then on only what is told can end it.
        while not (waiting.done() or any(wait._limit for waits in self.outcomes._waiting.values() for wait in waits)):
            await asyncio.sleep(0.001)
        return waiting

    @property
    def at_rest(self) -> bool:
        """Nobody waits, nobody follows, nothing is kept."""
        return (self.shares.taken, self.outcomes._waiting, self.hub._followers) == (0, {}, [])


@pytest.fixture
def depot(quick_path: Path) -> Iterator[Depot]:
    """One shard."""
    with Depot(quick_path / "state") as made:
        yield made


def in_world(depot: Depot, story: Callable[[World], Coroutine[Any, Any, None]], *, places: int = 9, told: bool = True) -> None:
    """Run a story, in which events are told; nothing is left of it."""
    @asynccontextmanager
    async def world() -> AsyncIterator[World]:
        with (closing(Reader(depot.layout, depot.spool, 1)) as reader, closing(Hub(reader)) as hub,
              ThreadPoolExecutor(1) as threads):
            watch = asyncio.create_task(hub.watch() if told else asyncio.sleep(LONG_S))
            yield World(depot, reader, hub, threads, places)
            watch.cancel()

    async def run() -> None:
        async with world() as made:
            async with asyncio.timeout(PATIENCE_S):
                await story(made)
            assert made.at_rest

    asyncio.run(run())


APPLIED = (("Preference-Applied", "wait=200"),)


@pytest.mark.parametrize("state", [State.DELIVERED, State.FAILED, State.CANCELLED, State.SUPERSEDED])
def test_outcome_ends_the_wait_and_nothing_before_it_does(depot: Depot, state: State) -> None:
    """A retry is none; nor is what becomes of other tasks. Who comes once it is known does not wait at all."""
    async def story(world: World) -> None:
        upload, other = depot.accept("/x"), depot.accept("/y")
        waiting = await world.begin(upload)
        depot.settle(other, State.DELIVERED)
        depot.settle(upload, State.DEFERRED, due_at=1.0)
        depot.queue.promote_due(2.0, 9)
        reader = await world.begin(upload)
        if state is State.SUPERSEDED:
            depot.accept("/x")
        elif state is State.CANCELLED:
            depot.queue.change([Change(task=depot.task(upload), state=state)])
        else:
            assert not waiting.done()
            depot.settle(upload, state)
        assert await waiting == await reader == APPLIED
        assert await (await world.begin(upload)) == APPLIED

    in_world(depot, story)


def test_several_tasks_are_waited_for_until_all_are_decided(depot: Depot) -> None:
    """In whatever order that happens."""
    async def story(world: World) -> None:
        first, second = depot.accept("/x"), depot.accept("/y")
        waiting = await world.begin(first, second)
        depot.settle(second, State.DELIVERED)
        one = await world.begin(second)
        assert await one == APPLIED
        assert not waiting.done()
        depot.settle(first, State.FAILED)
        assert await waiting == APPLIED

    in_world(depot, story)


@pytest.mark.parametrize(("prefer", "headers"), [
    ("", ()), ("respond-async", ()), ("wait=x", ()), ("wait=0", (("Preference-Applied", "wait=0"),)),
])
def test_who_does_not_prefer_to_wait_goes_on_at_once(depot: Depot, prefer: str, headers: tuple[tuple[str, str]]) -> None:
    """And so does who prefers to wait for no time."""
    async def story(world: World) -> None:
        assert await (await world.begin(depot.accept(), client=Client(prefer))) == headers

    in_world(depot, story)


def test_wait_is_as_long_as_is_allowed_at_most(depot: Depot) -> None:
    """The answer says how long it was."""
    async def story(world: World) -> None:
        upload = depot.accept()
        waiting = await world.begin(upload, client=Client("wait=999999999999"))
        depot.settle(upload, State.DELIVERED)
        assert await waiting == (("Preference-Applied", f"wait={LONG_S}"),)

    in_world(depot, story)


def test_client_that_goes_away_is_not_waited_for(depot: Depot) -> None:
    """Nothing is kept of it, also when it goes before its task was looked for."""
    async def story(world: World) -> None:
        upload, client = depot.accept(), Client()
        waiting = await world.begin(upload, client=client)
        staying = await world.begin(upload)
        client.go()
        with pytest.raises(ClientGone):
            await waiting
        gone = Client()
        gone.go()
        with pytest.raises(ClientGone):
            await world.outcomes.wait(gone.scope, gone.receive, upload.task_id)
        assert not staying.done()
        staying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await staying

    in_world(depot, story)


def test_nobody_waits_for_the_end_of_the_process(depot: Depot) -> None:
    """Who waits goes on at once, and who comes later does not begin to."""
    async def story(world: World) -> None:
        upload = depot.accept()
        waiting = [await world.begin(upload) for _ in range(3)]
        world.outcomes.end()
        assert await asyncio.gather(*waiting) == [APPLIED] * 3
        assert await (await world.begin(upload)) == ()

    in_world(depot, story)


def test_nothing_is_lost_with_the_events(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not told is looked for, some tasks at a time, also when that fails at first."""
    monkeypatch.setattr(outcomes, "BATCH", 2)
    monkeypatch.setattr(outcomes, "AGAIN_S", 0.01)

    async def story(world: World) -> None:
        uploads = [depot.accept(f"/{number}") for number in range(5)]
        waiting = [await world.begin(upload) for upload in uploads]
        find_all, left = Reader.find_all, [1]

        def failing(reader: Reader, shard: int, task_ids: Any) -> Any:
            if left and left.pop():
                raise Rejected("queue_unreadable")
            return find_all(reader, shard, task_ids)

        monkeypatch.setattr(Reader, "find_all", failing)
        for upload in uploads[1:]:
            depot.settle(upload, State.DELIVERED)
        world.outcomes.tell(0, Happened((), depot.queue.position(), lost=True))
        assert await asyncio.gather(*waiting[1:]) == [APPLIED] * 4
        assert not waiting[0].done()
        assert not left
        world.outcomes.end()
        await waiting[0]

    in_world(depot, story, told=False)


def test_who_finds_no_place_or_nothing_that_can_be_read_goes_on_at_once(
    depot: Depot, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A preference is no right, and no error either."""
    async def story(world: World) -> None:
        upload = depot.accept()
        waiting = await world.begin(upload)
        assert await (await world.begin(upload)) == ()
        world.outcomes.end()
        await waiting

    in_world(depot, story, places=1)

    def fail(_: Reader) -> NoReturn:
        raise Rejected("queue_unreadable")

    monkeypatch.setattr(Reader, "positions", fail)

    async def unreadable(world: World) -> None:
        assert await (await world.begin(depot.accept())) == ()

    in_world(depot, unreadable)


def test_task_that_is_not_there_is_not_waited_for(depot: Depot) -> None:
    """Whoever answers meets that, too."""
    async def story(world: World) -> None:
        client = Client()
        assert await world.outcomes.wait(client.scope, client.receive, new_id()) == APPLIED

    in_world(depot, story)
