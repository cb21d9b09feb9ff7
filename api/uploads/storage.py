"""What makes the uploads of a process durable: a thread for each shard; one that is locked holds up no other."""

from collections.abc import Callable

from api.uploads.group_commit import CommitResult, GroupCommit, Prepare
from api.uploads.storage_thread import StorageThread
from daemon.model.upload import Destination
from daemon.spool import Receive
from daemon.state.layout import Layout


class Storage:
    """Has uploads decided about. To be made, and used unless said otherwise, on the event loop's thread."""

    def __init__(
        self, layout: Layout, shards: int, spool: Receive, *, supersede: Callable[[], bool],
        when_dead: Callable[[], None],
    ) -> None:
        """`supersede` is asked for each batch: whether newer uploads replace older ones of their paths.

        `when_dead` is called, from another thread, when a mistake of ours ended a thread.
        """
        self._commits = [GroupCommit(layout, shard, spool, supersede=supersede) for shard in range(shards)]
        self._threads = [StorageThread(commits.commit, when_dead=when_dead) for commits in self._commits]

    def start(self) -> None:
        """Begin to take uploads. Raises CannotStart('io_error') when the machine has no thread left for it."""
        for thread in self._threads:
            thread.start()

    async def decide(self, destination: Destination, prepare: Prepare) -> CommitResult:
        """Have the upload that `prepare` makes for `destination` decided about; see `StorageThread.decide`."""
        return await self._threads[destination.shard(len(self._threads))].decide(prepare)

    def trouble(self) -> str | None:
        """Why something cannot be stored, for people; None while all is well. From any thread."""
        return next((trouble for thread in self._threads if (trouble := thread.trouble()) is not None), None)

    def close(self) -> bool:
        """Decide about what was handed over, and end; False when that takes too long. From another thread. Blocks."""
        for thread in self._threads:
            thread.end()
        # Those that hang keep what they use open, until the process ends.
        ended = [thread.join() for thread in self._threads]
        for commits in (commits for commits, has_ended in zip(self._commits, ended, strict=True) if has_ended):
            commits.close()
        return all(ended)
