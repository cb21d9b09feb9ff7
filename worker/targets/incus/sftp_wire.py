"""An SFTP connection as a wire: requests leave it together, and answers find who asked.

Several pieces of work share it, each with a `Channel` of its own (`worker.targets.incus.sftp_channel`) and each written
as a coroutine that waits for nothing but answers. The requests of all leave in one send, and each goes on as soon as
its answer is there. No event loop is needed for that, and no second thread.

It is spoken here because no library sends requests together from plain threads: paramiko's client waits for the answer
to each request (but for reads and writes), and asyncssh's belongs to asyncio and brings all of SSH along.
"""

import socket
import struct
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from typing import Final, Protocol, TypeVar

from worker.targets.base import Patience

_INIT, _VERSION = 1, 2
_VERSION_3: Final = 3
#: The length of a message, its kind and its number.
_HEAD: Final = struct.Struct(">IBI")
_MAX_ANSWER_BYTES: Final = 2**20
#: Pieces up to this size wait for their neighbours and leave in one send.
_GATHER_BYTES: Final = 64 * 1024
_RECEIVE_BYTES: Final = 64 * 1024
_NOTHING: Final = memoryview(b"")
#: While nothing moves, its limit is looked at so often: it may have become shorter.
_LOOK_S: Final = 0.25
#: Where nothing came for so long, nothing was under way.
_QUIET_S: Final = 0.01
#: Seconds and microseconds, as socket(7) wants them; all zero would be no limit.
_TIMEVAL: Final = struct.Struct("@ll")
#: On, with no time to wait, as socket(7) wants it.
_RESET_ON_CLOSE: Final = struct.pack("@ii", 1, 0)
#: How a file gets the name of another, in one step.
POSIX_RENAME: Final = b"posix-rename@openssh.com"

Result = TypeVar("Result")


class WireBroken(Exception):
    """The connection was lost or speaks nonsense: close it."""


class WireForeign(WireBroken):
    """Said in answer to hello: it speaks something else, or too little of SFTP to deliver by it."""


class WireStalled(WireBroken):
    """Nothing moved for the whole timeout: close the connection."""


class Asking(Protocol):
    """Who asks, and waits for answers."""

    def take(self, number: int, message: bytes) -> bool:
        """Take an answer; return True when this was what is waited for."""


class Wire:
    """One SFTP connection. Every method may raise WireStalled or WireBroken. One thread at a time."""

    def __init__(self, connection: socket.socket, timeout_s: float, patience: Patience) -> None:
        """Say hello on `connection`, which stays the caller's to close.

        For each step forward `timeout_s` is the limit, or that of `patience` when that is shorter.
        """
        self._connection = connection
        _limit(connection, min(_LOOK_S, timeout_s))
        self._timeout_s = timeout_s
        self._patience = patience
        self._out = bytearray()
        self._in = bytearray()
        self._landing = memoryview(bytearray(_RECEIVE_BYTES))
        self._number = 0
        #: Who asked what is not answered yet, by number; the longest ago first.
        self._askers: dict[int, Asking] = {}
        self._running: Mapping[Asking, object] = {}
        self._failure: WireBroken | None = None
        #: Who waited for the first answer that was due when the wire broke.
        self.broke_over: Asking | None = None
        #: Whether a new file has the mode that it was asked for at once; None until that was seen.
        self.heeds_mode: bool | None = None
        self._out += _HEAD.pack(5, _INIT, _VERSION_3)
        self._flush()
        self._greet()

    @property
    def broken(self) -> bool:
        """True when the connection can no longer be used."""
        return self._failure is not None

    def close(self) -> None:
        """Use it no more. Never raises."""
        self._failure = self._failure or WireBroken("the connection is closed")

    def ask(self, asker: Asking, kind: int, body: bytes, piece: memoryview = _NOTHING) -> int:
        """Have a request leave with the next ones; return its number.

        `piece` is what it ends with, and is not used after the return: a large one leaves at once.
        """
        self._require_whole()
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        self._out += _HEAD.pack(len(body) + len(piece) + 5, kind, number) + body
        self._askers[number] = asker
        if len(piece) <= _GATHER_BYTES:
            self._out += piece
        else:
            self._flush()
            self._send(piece)
        return number

    def owes(self, asker: Asking) -> bool:
        """True while an answer to `asker` is due."""
        return asker in self._askers.values()

    def run(self, asker: Asking, work: Coroutine[None, None, Result]) -> Result:
        """Do one piece of work; return what it returns, or raise what it raises."""
        (result,) = self.run_all({asker: work})
        return result

    def run_all(self, works: Mapping[Asking, Coroutine[None, None, Result]]) -> Iterator[Result]:
        """Do several pieces of work side by side, each with whom it asks by; yield what each returns when it ends.

        When the wire breaks each is told where it waits. What one of them raises ends all.
        """
        self._running = running = dict(works)
        woken = dict.fromkeys(running)
        try:
            while running:
                for asker in woken:
                    try:
                        _go_on(running[asker], self._failure)
                    except StopIteration as ended:
                        del running[asker]
                        result = ended.value
                    except BaseException:
                        del running[asker]
                        raise
                    else:
                        continue
                    yield result
                woken = self._exchange()
        finally:
            # Nothing but a mistake ends it sooner: none of the others may wait for anything more.
            if running:
                self.close()
            for work in running.values():
                work.close()

    def breaks(self, reason: str) -> WireBroken:
        """The error to raise for an answer that makes no sense: the wire is broken."""
        return self._fail(WireBroken(reason))

    def _exchange(self) -> dict[Asking, None]:
        """Send what was asked, and wait until there is what somebody waits for; return who goes on, if only to fail."""
        woken: dict[Asking, None] = {}
        try:
            self._flush()
            while self._running and not woken:
                self._receive()
                woken = {asker: None for message in self._messages() if (asker := self._hand_out(message))}
        except WireBroken:
            return dict.fromkeys(self._running)
        return woken

    def _hand_out(self, message: bytes) -> Asking | None:
        """Give an answer to who asked; return who that is if it is what it waits for."""
        number = int.from_bytes(message[1:5])
        asker = self._askers.pop(number, None)
        if asker is None:
            raise self.breaks("an answer that nobody asked for")
        return asker if asker.take(number, message) and asker in self._running else None

    def _greet(self) -> None:
        while not (messages := self._messages()):
            self._receive()
        is_version_3 = messages[0][0] == _VERSION and int.from_bytes(messages[0][1:5]) == _VERSION_3
        if not is_version_3 or POSIX_RENAME not in messages[0]:
            raise self._fail(WireForeign("not SFTP version 3 with posix-rename"))

    def _messages(self) -> list[bytes]:
        """Take the messages that are there whole."""
        came, at = self._in, 0
        messages = []
        while len(came) >= at + 4:
            length = int.from_bytes(came[at:at + 4])
            if not 5 <= length <= _MAX_ANSWER_BYTES:
                raise self.breaks(f"an answer of {length} bytes")
            end = at + 4 + length
            if len(came) < end:
                break
            messages.append(bytes(came[at + 4:end]))
            at = end
        del came[:at]
        return messages

    def _receive(self) -> None:
        self._keep(self._step(self._connection.recv_into, self._landing))

    def _keep(self, received: int) -> None:
        if not received:
            raise self.breaks("the other side closed the connection")
        self._in += self._landing[:received]

    def _flush(self) -> None:
        self._require_whole()
        if self._out:
            out, self._out = self._out, bytearray()
            self._send(memoryview(out))

    def _require_whole(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))

    def _send(self, piece: memoryview) -> None:
        while piece:
            piece = piece[self._step(self._send_some, piece):]

    def _send_some(self, piece: memoryview) -> int:
        try:
            return self._connection.send(piece)
        except (TimeoutError, BlockingIOError):
            # The other side may take nothing more until its answers are read.
            if not self._take_what_came():
                raise
            return 0

    def _take_what_came(self) -> bool:
        """Receive as long as something comes; return True if anything did."""
        before = len(self._in)
        self._connection.settimeout(_QUIET_S)
        try:
            with suppress(TimeoutError):
                while True:
                    self._keep(self._connection.recv_into(self._landing))
        finally:
            _limit(self._connection, min(_LOOK_S, self._timeout_s))
        return len(self._in) > before

    def _step(self, move: Callable[[memoryview], int], room: memoryview) -> int:
        """Receive or send a little, waiting for that as long as patience has it; return how many bytes moved."""
        self._patience.still_since = since = time.monotonic()
        try:
            while True:
                try:
                    return move(room)
                except (TimeoutError, BlockingIOError) as error:
                    limit_s = min(self._timeout_s, self._patience.limit_s)
                    if time.monotonic() - since >= limit_s:
                        raise self._stalled(limit_s) from error
        except OSError as error:
            raise self.breaks(str(error)) from error
        finally:
            self._patience.still_since = None

    def _stalled(self, limit_s: float) -> WireBroken:
        self._patience.hurried = limit_s < self._timeout_s
        # What has not left this machine never does: nobody expects a rename that arrives after all.
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        return self._fail(WireStalled(f"nothing moved for {limit_s:g} s"))

    def _fail(self, failure: WireBroken) -> WireBroken:
        if self._failure is None:
            self._failure = failure
            due_first = (asker for asker in self._askers.values() if asker in self._running)
            self.broke_over = next(due_first, None) or next(iter(self._running), None)
        return failure


def _go_on(work: Coroutine[None, None, Result], failure: WireBroken | None) -> None:
    """Have a piece of work go on until it waits again. Raises StopIteration when it ends, and what it raises."""
    if failure is None:
        work.send(None)
    else:
        work.throw(type(failure)(str(failure)))


def _limit(connection: socket.socket, timeout_s: float) -> None:
    """Have every call on `connection` return after that time."""
    if type(connection) is not socket.socket:
        connection.settimeout(timeout_s)
        return
    # By the kernel: Python's own timeout asks with a system call more before each step whether it may wait.
    connection.settimeout(None)
    seconds = int(timeout_s)
    limit = _TIMEVAL.pack(seconds, int((timeout_s - seconds) * 1e6))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, limit)
