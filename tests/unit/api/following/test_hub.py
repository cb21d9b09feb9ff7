"""The hub: what happens in the queue is told to everyone who follows, once and in order."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from api.following.hub import Hub
from api.queries.reader import Reader
from daemon.model.upload import Upload
from daemon.task_queue import Happened
from tests.support.depot import Depot, an_upload, sealed


class Ear:
    """A follower that remembers."""

    def __init__(self) -> None:
        """Nothing is heard yet."""
        self.heard: list[str] = []
        self._more = asyncio.Event()

    def tell(self, shard: int, happened: Happened) -> None:
        """Remember what is told."""
        self.heard += ["lost"] * happened.lost + [event.task_id for event in happened.events]
        self._more.set()

    async def hears(self, *uploads: Upload) -> None:
        """Wait until so many events were told; they are of these uploads."""
        while len(self.heard) < len(uploads):
            self._more.clear()
            await self._more.wait()
        assert self.heard == [upload.task_id for upload in uploads]


@pytest.fixture
def depot(quick_path: Path) -> Iterator[Depot]:
    """One shard."""
    with Depot(quick_path / "state") as made:
        yield made


@asynccontextmanager
async def watching(depot: Depot) -> AsyncIterator[Hub]:
    """A hub that watches the shard."""
    with closing(Reader(depot.layout, depot.spool, 1)) as reader, closing(Hub(reader)) as hub:
        watch = asyncio.create_task(hub.watch())
        yield hub
        watch.cancel()


def put(depot: Depot, number: int = 1) -> list[Upload]:
    """Put uploads, each in a transaction of its own."""
    uploads = [an_upload(f"/{index}") for index in range(number)]
    for upload in uploads:
        depot.queue.put_many(sealed(upload), supersede=False)
    return uploads


def test_everyone_who_follows_is_told_what_happens_from_then_on(depot: Depot) -> None:
    """Once and in order; who leaves hears nothing more, and who comes later nothing of before."""
    async def follow() -> None:
        async with watching(depot) as hub:
            put(depot)
            first, second = Ear(), Ear()
            await hub.join(first)
            some = put(depot, 3)
            await first.hears(*some)
            await hub.join(second)
            more = put(depot, 2)
            await first.hears(*some, *more)
            await second.hears(*more)
            hub.leave(first)
            last = put(depot)
            await second.hears(*more, *last)
            await first.hears(*some, *more)
            hub.leave(second)
            put(depot)
            again = Ear()
            await hub.join(again)
            await again.hears(*put(depot))

    asyncio.run(follow())


def test_follower_of_a_queue_that_was_made_anew_is_told_that_something_is_missing(depot: Depot) -> None:
    """What another database says of the same numbers is no continuation."""
    async def follow() -> None:
        async with watching(depot) as hub:
            ear = Ear()
            await hub.join(ear)
            await ear.hears(*put(depot))
            depot.queue.begin_epoch()
            while ear.heard[-1] != "lost":
                await asyncio.sleep(0)
            assert ear.heard.count("lost") == 1

    asyncio.run(follow())
