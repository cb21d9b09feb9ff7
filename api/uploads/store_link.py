"""The way from a process that takes uploads to the one that stores them: one for each shard.

Guarantees: what was sent is answered, or is undecided: when the other process dies, and when it takes too long. What
was not sent yet is sent to the one that comes after it. To be used on the event loop's thread.
"""

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from struct import Struct
from typing import Final

from api.uploads.awaited import Awaited, Decided, said_of, settle
from api.uploads.group_commit import Answer
from api.uploads.request import UploadRequest
from api.uploads.store_wire import Messages, job_message, read_answers
from daemon.errors import Rejected

_DESCRIPTOR: Final = Struct("i")
#: Between two tries to reach the other process, while it has not even looked at those who came before.
RETRY_S: Final = 0.2


class StoreLink(asyncio.Protocol):
    """Has the small uploads of one shard stored."""

    def __init__(self, line: socket.socket, shard: int, *, supersede: Callable[[], bool]) -> None:
        """By `line` links are handed over; see `hand_over`. `supersede`: whether newer uploads replace older ones."""
        self._line = line
        self._shard = shard
        self._supersede = supersede
        self._loop = asyncio.get_running_loop()
        self._awaited = Awaited(self.trouble)
        self._transport: asyncio.WriteTransport | None = None
        self._reaching: asyncio.Task[None] | None = None
        self._messages = Messages()
        self._number = 0
        #: What is not sent yet, by its number; and what was, with the time of that.
        self._gathered: dict[int, bytes] = {}
        self._jobs: dict[int, tuple[UploadRequest, int]] = {}
        self._waiting: dict[int, tuple[Decided, float]] = {}
        #: Since when the first of them waits, on the monotonic clock; and when the last answers came.
        self._waits_since: float | None = None
        self._heard_at = 0.0
        #: Who waits until all before a number are answered.
        self._behind: dict[int, asyncio.Future[None]] = {}
        self._closed = False

    def open(self) -> None:
        """Begin."""
        self._reaching = self._loop.create_task(self._reach())

    def store(self, request: UploadRequest, pieces: Sequence[bytes]) -> Decided:
        """Have an upload accepted or refused; what to wait for. It raises as `Storage.store` does."""
        number, now = (self._number + 1) % 2**32, time.monotonic()
        message = job_message(number, request, pieces, supersede=self._supersede(), at=now)
        self._number = number
        decided = self._awaited.begin()
        if not self._waiting:
            self._waits_since = now
        self._waiting[number] = decided, now
        self._jobs[number] = request, sum(map(len, pieces))
        if not self._gathered:
            self._loop.call_soon(self._send)
        self._gathered[number] = message
        return decided

    async def answered(self) -> None:
        """Wait until all that was handed over by now is answered, whether somebody still waits for that or not."""
        if self._waiting:
            last = next(reversed(self._waiting))
            await asyncio.shield(self._behind.setdefault(last, self._loop.create_future()))

    def trouble(self) -> str | None:
        """Why nothing can be stored, for people; None while all is well. From any thread."""
        since = self._waits_since
        return None if since is None else said_of(time.monotonic() - max(since, self._heard_at))

    def close(self) -> None:
        """Send nothing more. Nobody waits by now."""
        self._closed = True
        if self._reaching is not None:
            self._reaching.cancel()
        if self._transport is not None:
            self._transport.close()

    async def _reach(self) -> None:
        while (own := self._new_link()) is None:
            await asyncio.sleep(RETRY_S)
        await self._loop.create_connection(lambda: self, sock=own)

    def _new_link(self) -> socket.socket | None:
        """This end of a link whose other end was handed over; None when that cannot be done just now."""
        with suppress(OSError):
            # There may be no descriptor left for it; another time there is.
            own, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with theirs, ExitStack() as unless_handed_over:
                unless_handed_over.callback(own.close)
                if hand_over(self._line, self._shard, theirs):
                    unless_handed_over.pop_all()
                    return own
        return None

    def _send(self) -> None:
        if self._transport is not None and self._gathered:
            self._transport.write(b"".join(self._gathered.values()))
            self._gathered.clear()

    # --- what the transport says --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what has been waiting."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Tell those who wait."""
        self._heard_at = time.monotonic()
        for _, values, _ in self._messages.take(data):
            for number, answer in read_answers(values, self._jobs):
                self._end(number, answer)
        self._look_for_oldest()

    def _end(self, number: int, answer: Answer) -> None:
        del self._jobs[number]
        settle(self._waiting.pop(number)[0], answer)
        # Answers come in the order of the jobs.
        behind = self._behind.pop(number, None)
        if behind is not None and not behind.done():
            behind.set_result(None)

    def _look_for_oldest(self) -> None:
        _, self._waits_since = next(iter(self._waiting.values()), (None, None))

    def connection_lost(self, _error: Exception | None) -> None:
        """The other process is gone: nobody knows how far it came. Another one will come."""
        self._transport, self._messages = None, Messages()
        for number in [number for number in self._waiting if number not in self._gathered]:
            self._end(number, Rejected("outcome_unknown"))
        self._look_for_oldest()
        if not self._closed:
            self.open()


def hand_over(line: socket.socket, shard: int, link: socket.socket) -> bool:
    """Give the end of a link to whoever stores; False when there are too many already that nobody has looked at."""
    # Not by `socket.send_fds`, nor by `recv_fds`: they drop the flags.
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTOR.pack(link.fileno()))]
    with suppress(BlockingIOError):
        line.sendmsg([bytes([shard])], rights, socket.MSG_DONTWAIT)
        return True
    return False


def take_over(line: socket.socket) -> tuple[int, socket.socket] | None:
    """The next end of a link that was handed over, with its shard; None when there is none. Raises OSError."""
    try:
        said, rights, _, _ = line.recvmsg(
            1, socket.CMSG_SPACE(_DESCRIPTOR.size), socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
    except BlockingIOError:
        return None
    if not rights:
        # The kernel has closed what there was no descriptor for.
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return said[0], socket.socket(fileno=_DESCRIPTOR.unpack(rights[0][2])[0])
