"""What keeps uploads, and who asks it: opened first, closed last."""

import socket
from collections.abc import Callable
from typing import Final

from api.assembly.ground import Ground
from api.queries.finder import Finder
from api.queries.reader import Reader
from api.uploads.storage import Storage
from daemon.partials import open_partials
from daemon.process.thread_pools import begin_pool
from daemon.spool import open_spool
from daemon.task_queue import Total

#: Threads that answer questions.
READING_THREADS: Final = 2


class Stores:
    """The spool, the queue and unfinished uploads."""

    def __init__(self, ground: Ground, when_dead: Callable[[], None], line: socket.socket | None) -> None:
        """`when_dead` is called, from another thread, when nothing can be stored any more by a mistake of ours.

        By `line` a process is reached that stores small uploads.
        """
        live, layout = ground.live, ground.layout
        shards = live.config.queue.shards
        self.spool = open_spool(layout)
        self.reader = Reader(layout, self.spool, shards)
        self.reading = begin_pool(READING_THREADS, "read")
        self.finder = Finder(self.reader, self.reading)
        self.storage = Storage(
            layout, shards, self.spool, supersede=lambda: live.config.delivery.supersedes, when_dead=when_dead,
            line=line)
        self.partials = open_partials(layout, self.spool)

    def pending_under(self, name: str) -> Total:
        """What waits of that name and all below it, and what of it is still on its way in resumable uploads."""
        waiting, partials = self.reader.pending_under(name), self.partials.census_under(name)
        return Total(waiting.tasks + partials.number,
                     waiting.size_bytes + partials.present_bytes + partials.owed_bytes)

    def close(self) -> bool:
        """Store what was handed over, then close the files; False if that takes too long. Blocks."""
        self.reading.shutdown()
        self.reader.close()
        ended = self.storage.close()
        if ended:
            # What hangs goes on using them until the process ends.
            self.partials.close()
            self.spool.close()
        return ended
