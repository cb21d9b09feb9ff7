"""From a body to an upload: what of the request goes into it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.uploads.receive import READ_BYTES, Accepted, Receiver, pump
from api.uploads.request import UploadRequest
from api.uploads.storage import Storage
from daemon.model.upload import Destination
from daemon.spool import open_spool
from daemon.task_queue.sqlite.queue import SqliteQueue
from tests.support.depot import a_state


class Whole:
    """A body that is there already."""

    ended = announced = True

    async def pieces(self, _size: int) -> list[bytes]:
        """All of it."""
        return [b"abc"]


class Tiny:
    """A body of unknown length whose client sends pieces of one byte."""

    ended = announced = False

    async def pieces(self, size: int) -> list[bytes]:
        """What comes next, and is the last."""
        self.ended = True
        return [b"x"] * size


def test_pieces_of_one_byte_are_joined() -> None:
    """Else what waits for the disk would take fifty times its size."""
    batches, expected = list[list[bytes]](), list[int]()

    async def receive() -> None:
        with ThreadPoolExecutor(1) as threads:
            place = SimpleNamespace(expect=lambda size, _unwritten_bytes: expected.append(size))
            await pump(threads, lambda pieces: batches.append(list(pieces)), [b"first"], cast(Any, Tiny()), cast(Any, place))

    asyncio.run(receive())
    assert b"".join(b"".join(batch) for batch in batches) == b"first" + b"x" * READ_BYTES
    assert max(map(len, batches)) <= 2
    assert expected == [READ_BYTES]


@pytest.mark.parametrize("client", [None, "token:ci"])
def test_upload_carries_who_sent_it(tmp_path: Path, client: str | None) -> None:
    """In its row and in its file; nobody where the client is anonymous."""
    layout = a_state(tmp_path)
    spool = open_spool(layout)
    request = UploadRequest(
        destination=Destination("local", "default", "c1", "/f"), display_name="f", mode=None, uid=None, gid=None,
        mkdirs=False, idempotency_key=None, digests=frozenset(), length=3, client=client)

    async def receive() -> Accepted:
        storage = Storage(layout, 1, spool, supersede=lambda: True, when_dead=lambda: None)
        storage.start()
        receiver = Receiver(spool, storage)
        try:
            return await receiver.take(request, cast(Any, Whole()), cast(Any, SimpleNamespace()))
        finally:
            receiver.close()
            assert await asyncio.to_thread(storage.close)

    upload = asyncio.run(receive()).upload
    assert upload.client == client
    with SqliteQueue(layout, 0) as queue:
        task = queue.find(upload.task_id)
        assert task is not None
        assert task.upload.client == client
        assert [found.task_id for found in queue.page(client="token:ci", limit=9)] == ([upload.task_id] if client else [])
    spool.open(upload).close()
    spool.close()
