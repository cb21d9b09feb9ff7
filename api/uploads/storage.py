"""What makes the uploads of a process durable: for each shard by itself; one that is locked holds up no other.

Small uploads are stored by a process that does nothing else, where several take uploads: so all that come to the
service, whoever took them, share its batches. All else is stored here, by a thread for each shard. Whichever way they
go, those of a shard are decided about in the order in which they came to this process: none that nobody was told of
lands over a later one that was accepted.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from api.threads import undisturbed
from api.uploads.awaited import DECIDED_WITHIN_S
from api.uploads.group_commit import CommitResult, GroupCommit, Prepare
from api.uploads.request import UploadRequest
from api.uploads.small import make_ready
from api.uploads.storage_thread import StorageThread
from api.uploads.store_link import StoreLink
from daemon.errors import Rejected
from daemon.model.upload import Destination
from daemon.spool import Receive
from daemon.state.layout import Layout

#: An upload up to this size may share a file with others: what it gains by that is more than what the way costs.
LINKED_BYTES: Final = 16 * 1024


class Storage:
    """Has uploads decided about. To be made, and used unless said otherwise, on the event loop's thread."""

    def __init__(
        self, layout: Layout, shards: int, spool: Receive, *, supersede: Callable[[], bool],
        when_dead: Callable[[], None], line: socket.socket | None = None,
    ) -> None:
        """`supersede` is asked for each batch: whether newer uploads replace older ones of their paths.

        `when_dead` is called, from another thread, when a mistake of ours ended a thread. By `line` a process is
        reached that stores small uploads.
        """
        self._spool = spool
        self._commits = [GroupCommit(layout, shard, spool, supersede=supersede) for shard in range(shards)]
        self._threads = [StorageThread(commits.commit, when_dead=when_dead) for commits in self._commits]
        #: For each shard, how many are on their way to its thread here.
        self._own = [0] * shards
        self._links = [] if line is None else [StoreLink(line, shard, supersede=supersede) for shard in range(shards)]
        self._parts: list[StorageThread | StoreLink] = [*self._threads, *self._links]

    def start(self) -> None:
        """Begin to take uploads. Raises CannotStart('io_error') when the machine has no thread left for it."""
        for thread in self._threads:
            thread.start()
        for link in self._links:
            link.open()

    async def store(self, request: UploadRequest, pieces: Sequence[bytes]) -> CommitResult:
        """Have a small upload, whose bytes these are, accepted or refused; see `decide`."""
        shard = request.destination.shard(len(self._threads))
        if self._links and not self._own[shard] and sum(map(len, pieces)) <= LINKED_BYTES:
            return await self._links[shard].store(request, pieces)
        return await self.decide(request.destination, partial(make_ready, self._spool, request, pieces))

    async def decide(self, destination: Destination, prepare: Prepare) -> CommitResult:
        """Have the upload that `prepare` makes for `destination` decided about; see `StorageThread.decide`."""
        shard = destination.shard(len(self._threads))
        if self._links:
            return await undisturbed(self._after_link(shard, prepare))
        return await self._threads[shard].decide(prepare)

    async def _after_link(self, shard: int, prepare: Prepare) -> CommitResult:
        self._own[shard] += 1
        try:
            async with asyncio.timeout(DECIDED_WITHIN_S):
                await self._links[shard].answered()
        except TimeoutError as error:
            with suppress(Rejected):
                prepare()[0].discard()
            raise Rejected("storage_failed", self.trouble() or "The disk is too slow.") from error
        else:
            return await self._threads[shard].decide(prepare)
        finally:
            self._own[shard] -= 1

    def trouble(self) -> str | None:
        """Why something cannot be stored, for people; None while all is well. From any thread."""
        return next((trouble for part in self._parts if (trouble := part.trouble()) is not None), None)

    def end(self) -> None:
        """Send nothing more to another process. Nobody waits for it by now."""
        for link in self._links:
            link.close()

    def close(self) -> bool:
        """Decide about what was handed over, and end; False when that takes too long. From another thread. Blocks."""
        for thread in self._threads:
            thread.end()
        # Those that hang keep what they use open, until the process ends.
        ended = [thread.join() for thread in self._threads]
        for commits in (commits for commits, has_ended in zip(self._commits, ended, strict=True) if has_ended):
            commits.close()
        return all(ended)
