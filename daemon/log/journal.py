"""Native messages to systemd's journal: one datagram an event, in the order of the events, never blocking.

What the journal does not take at once is kept in memory, up to a limit, and sent by a thread as soon as it does.
What is over the limit is lost, counted, and reported once the journal takes messages again.

Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/. Field names are A-Z, 0-9 and _, at most 64 characters,
starting with a letter; a value with a newline has the length-prefixed form.
"""

import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

SOCKET: Final = "/run/systemd/journal/socket"
#: `journalctl -o json` shows `null` for a field of 4096 bytes or more, its name and the `=` included.
MAX_FIELD_BYTES: Final = 4095
#: Far under the largest datagram (212,960 bytes measured); fields beyond it are left out.
MAX_MESSAGE_BYTES: Final = 96 * 1024
#: Messages that wait for the journal take at most so much memory.
MAX_KEPT_BYTES: Final = 8 * 2**20
#: Ends a value that was cut.
_CUT: Final = "…".encode()
_MAX_NAME: Final = 64
#: Between two looks whether the journal is there again, should nothing wake the sender.
_LOOK_S: Final = 1.0
#: A journal that is busy, and one that was stopped.
_WAIT_FOR: Final = (BlockingIOError, ConnectionError, FileNotFoundError)


class Journal:
    """A connection to the journal. Safe from several threads; no method raises."""

    def __init__(self, describe_loss: Callable[[int], Mapping[str, str]], path: str, *, only_way: bool = False) -> None:
        """`describe_loss` gives the fields of the message that so many others were lost.

        `only_way`: what is sent has nowhere else to go, so it is kept while there is no journal, too.
        """
        self._describe_loss = describe_loss
        self._path = path
        self._only_way = only_way
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._lost = 0
        self._sender: threading.Thread | None = None

    def send(self, fields: Mapping[str, str]) -> bool:
        """Send one event, or keep it for the moment; return False when there is no journal. Never blocks."""
        message = encode_all(fields)
        with self._lock:
            if self._sender is None:
                try:
                    self._send_now(message)
                    return True
                except OSError as error:
                    if not isinstance(error, _WAIT_FOR if self._only_way else BlockingIOError):
                        return False
                    self._sender = threading.Thread(target=self._send_kept, name="journal", daemon=True)
                    self._sender.start()
            self._keep(message)
            return True

    def flush(self, within_s: float) -> bool:
        """Wait until everything is sent; return False if it was not within that time."""
        deadline = time.monotonic() + within_s
        sender = self._sender
        if sender is not None:
            sender.join(max(0.0, deadline - time.monotonic()))
        return self._sender is None

    def close(self) -> None:
        """Let go of the connection. May be called again."""
        with self._lock:
            self._disconnect()

    def _send_now(self, message: bytes) -> None:
        """Send without waiting. Raises BlockingIOError when the journal is busy, OSError when it is gone."""
        if self._socket is not None:
            try:
                self._socket.send(message)
                return
            except BlockingIOError:
                raise
            except OSError:
                # The journal's socket is not the one from before: connect again.
                self._disconnect()
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            fresh.connect(self._path)
        except OSError:
            fresh.close()
            raise
        self._socket = fresh
        fresh.send(message)

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _keep(self, message: bytes) -> None:
        if self._kept_bytes + len(message) > MAX_KEPT_BYTES:
            self._lost += 1
            return
        self._kept.append(message)
        self._kept_bytes += len(message)

    def _send_kept(self) -> None:
        """The thread: send what is kept, as fast as the journal takes it; end when nothing is left."""
        while True:
            with self._lock:
                if self._drain():
                    self._sender = None
                    return
                poll = select.poll()
                if self._socket is not None:
                    poll.register(self._socket, select.POLLOUT)
            poll.poll(_LOOK_S * 1000)

    def _drain(self) -> bool:
        """Send while the journal takes messages; return True when all are sent."""
        while self._kept or self._lost:
            if not self._kept:
                self._kept.append(encode_all(self._describe_loss(self._lost)))
                self._kept_bytes += len(self._kept[0])
                self._lost = 0
            try:
                self._send_now(self._kept[0])
            except OSError:
                return False
            self._kept_bytes -= len(self._kept.popleft())
        return True


def encode_all(fields: Mapping[str, str]) -> bytes:
    """A message in the journal's own form; fields that do not fit are left out."""
    message = bytearray()
    for name, value in fields.items():
        field = encode(name, value)
        if len(message) + len(field) <= MAX_MESSAGE_BYTES:
            message += field
    return bytes(message)


def encode(name: str, value: str) -> bytes:
    """One field in the journal's own form; nothing in `value` can start another field."""
    data = _cut(value.encode("utf-8", "backslashreplace"), MAX_FIELD_BYTES - len(name) - 1)
    if b"\n" in data:
        return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


def _cut(data: bytes, most: int) -> bytes:
    if len(data) <= most:
        return data
    # Not in the middle of a character: what is no UTF-8 is shown as numbers.
    return data[:most - len(_CUT)].decode(errors="ignore").encode() + _CUT


@lru_cache
def field_name(key: str) -> str:
    """The journal's name for one of our keys: INCUS_ and the key in capitals."""
    return f"INCUS_{key.upper()}"[:_MAX_NAME]


def on_stderr() -> bool:
    """True when systemd connected this process's stderr to the journal (JOURNAL_STREAM says to which file)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    if not (device.isdigit() and inode.isdigit()):
        return False
    found = os.fstat(2)
    return (found.st_dev, found.st_ino) == (int(device), int(inode))
