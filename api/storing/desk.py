"""Stores the small uploads of one shard: a thread that takes from all links what has come, and answers it together.

A batch is all that came while the last one was on its way to the disk. Guarantees: a job is answered on the link it
came by, or that link ends; a link that breaks off, or is not read from, takes no other with it.
"""

import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from api.threads import start_thread
from api.uploads.group_commit import Answer, GroupCommit
from api.uploads.small import make_ready
from api.uploads.store_wire import Job, Messages, answers_message, read_job
from daemon.spool import Receive
from daemon.state.layout import Layout

#: Most uploads in one batch: the first of them are not held up by the last.
MAX_BATCH: Final = 256
#: Bytes that are read from a link at once.
_READ_BYTES: Final = 256 * 1024


class _Link:
    """One process that takes uploads, as this one sees it."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self.connected: Final = connected
        self._messages = Messages()
        #: What the other side has not read yet.
        self._unsent = b""

    def read(self) -> list[Job]:
        """The jobs that have come. Raises OSError at the end of the link."""
        try:
            data = self.connected.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        if not data:
            raise ConnectionResetError
        return [read_job(*message) for message in self._messages.take(data)]

    def send(self, data: bytes = b"") -> bool:
        """Send it after what is left; True when all of it is sent. Raises OSError at the end of the link."""
        self._unsent += data
        try:
            while self._unsent:
                self._unsent = self._unsent[self.connected.send(self._unsent):]
        except BlockingIOError:
            return False
        return True


class Desk:
    """The thread of one shard."""

    def __init__(self, layout: Layout, shard: int, spool: Receive, *, when_dead: Callable[[], None]) -> None:
        """`when_dead` is called, from the thread, when a mistake of ours ends it."""
        self._spool = spool
        self._when_dead = when_dead
        self._supersede = False
        self._commits = GroupCommit(layout, shard, spool, supersede=lambda: self._supersede)
        self._links: dict[int, _Link] = {}
        self._jobs: deque[tuple[_Link, Job]] = deque()
        self._poll = select.poll()
        self._bell, self._ringer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self._bell, select.POLLIN)
        #: What was handed over by another thread; None is the end.
        self._handed: deque[socket.socket | None] = deque()
        self._ends = False
        self._thread = threading.Thread(target=self._run, name=f"storage-{shard}", daemon=True)

    def start(self) -> None:
        """Begin. Raises CannotStart('io_error') when the machine has no thread left for it."""
        start_thread(self._thread)

    def add(self, connected: socket.socket) -> None:
        """Take jobs from one link more, until it ends. From another thread."""
        self._hand(connected)

    def end(self) -> None:
        """End when the last link has ended. From another thread."""
        self._hand(None)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end for so long; True when it is there. From another thread."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _hand(self, what: socket.socket | None) -> None:
        self._handed.append(what)
        os.write(self._ringer, b"!")

    # --- the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        well = False
        try:
            while not self._ends or self._links or self._jobs:
                self._gather()
                batch = [self._jobs.popleft() for _ in range(min(MAX_BATCH, len(self._jobs)))]
                if batch:
                    # Of two to one path the later one is newer, by whichever links they came.
                    self._store(sorted(batch, key=lambda order: order[1].at))
            self._commits.close()
            well = True
        finally:
            if not well:
                self._when_dead()

    def _gather(self) -> None:
        """Take what has come; wait for it while there is nothing to do."""
        for descriptor, happened in self._poll.poll(0 if self._jobs else None):
            if descriptor == self._bell:
                self._take_handed()
            else:
                self._attend(self._links[descriptor], happened)

    def _take_handed(self) -> None:
        os.read(self._bell, 4096)
        while self._handed:
            connected = self._handed.popleft()
            if connected is None:
                self._ends = True
            else:
                self._links[connected.fileno()] = _Link(connected)
                self._poll.register(connected, select.POLLIN)

    def _attend(self, link: _Link, happened: int) -> None:
        try:
            if happened & select.POLLOUT and link.send():
                self._poll.modify(link.connected, select.POLLIN)
            if happened & ~select.POLLOUT:
                self._jobs.extend((link, job) for job in link.read())
        except OSError:
            self._drop(link)

    def _drop(self, link: _Link) -> None:
        descriptor = link.connected.fileno()
        if self._links.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)
            link.connected.close()

    def _store(self, batch: Sequence[tuple[_Link, Job]]) -> None:
        # What came last knows the configuration of now.
        self._supersede = batch[-1][1].supersede
        answers = self._commits.commit([
            partial(make_ready, self._spool, job.request, (job.body,)) for _, job in batch])
        told: dict[_Link, list[tuple[int, Answer]]] = {}
        for (link, job), answer in zip(batch, answers, strict=True):
            told.setdefault(link, []).append((job.number, answer))
        for link, some in told.items():
            self._tell(link, answers_message(some))

    def _tell(self, link: _Link, message: bytes) -> None:
        try:
            if not link.send(message):
                self._poll.modify(link.connected, select.POLLIN | select.POLLOUT)
        except OSError:
            # Whoever waited there is gone.
            self._drop(link)
